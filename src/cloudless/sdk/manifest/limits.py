"""Limits of what is read as a manifest, with their units."""

from __future__ import annotations

#: Largest file (or standard input), in bytes: four times the largest specification.
MAX_FILE_BYTES = 1024 * 1024
#: Files read of one folder.
MAX_FILES = 1000
#: Objects in all files together.
MAX_OBJECTS = 1000
#: Mappings and lists inside of each other.
MAX_DEPTH = 32
#: Values of one document after aliases are expanded; long texts count more.
MAX_WEIGHT = 50_000
#: Characters that count like one more value.
WEIGHT_CHARACTERS = 64
#: Longest plain scalar that is looked at as a number, in characters.
MAX_NUMBER_LENGTH = 64
