"""Finding and reading manifest files: a file, a folder, or standard input."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from typing import BinaryIO

from cloudless.sdk.manifest.limits import MAX_FILE_BYTES, MAX_FILES, MAX_OBJECTS
from cloudless.sdk.manifest.located import ManifestError, Position
from cloudless.sdk.manifest.reading import Manifest, read_text

SUFFIXES = (".yaml", ".yml", ".json")
STDIN_NAME = "standard input"


def read_paths(paths: Iterable[str], stdin: BinaryIO | None = None) -> list[Manifest]:
    """The objects of all files, in order; ``-`` is standard input, a folder its files by name.

    Raises ``ManifestError`` (nothing is returned of a set with one mistake in it).
    """
    found: list[Manifest] = []
    for path in paths:
        for file in _files(path):
            found += read_text(_text(file, stdin), STDIN_NAME if file == "-" else file)
            if len(found) > MAX_OBJECTS:
                raise ManifestError.at(file, Position(1, 1), f"more than {MAX_OBJECTS} objects are given")
    _refuse_twice(found)
    if not found:
        raise ManifestError(f"there is nothing to read in {', '.join(paths)}")
    return found


def _files(path: str) -> list[str]:
    if path == "-" or not os.path.isdir(path):
        return [path]
    names = sorted(name for name in os.listdir(path) if name.endswith(SUFFIXES) and not name.startswith("."))
    if not names:
        raise ManifestError(f"there is no .yaml, .yml or .json file in {path}")
    if len(names) > MAX_FILES:
        raise ManifestError(f"there are more than {MAX_FILES} files in {path}")
    return [os.path.join(path, name) for name in names]


def _text(path: str, stdin: BinaryIO | None) -> str:
    shown = STDIN_NAME if path == "-" else path
    try:
        if path == "-":
            data = (stdin or sys.stdin.buffer).read(MAX_FILE_BYTES + 1)
        else:
            with open(path, "rb") as file:
                data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ManifestError(f"cannot read {shown}: {(error.strerror or str(error)).lower()}") from None
    if len(data) > MAX_FILE_BYTES:
        raise ManifestError(f"{shown} is larger than {MAX_FILE_BYTES // 1024} KiB")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - data.rfind(b"\n", 0, error.start)
        raise ManifestError.at(shown, Position(line, column), "is not UTF-8") from None
    if path.endswith(".json") or text.lstrip()[:1] in ("{", "["):
        return _json(text, shown, strict=path.endswith(".json"))
    return text


def _json(text: str, file: str, *, strict: bool) -> str:
    """JSON in a form that YAML reads alike: tabs between values are only blanks there."""
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        if not strict:
            return text  # YAML in braces
        raise ManifestError.at(
            file, Position(error.lineno, error.colno), f"is not JSON: {error.msg.lower()}"
        ) from None
    except RecursionError:
        raise ManifestError.at(file, Position(1, 1), "is nested too deeply") from None
    return text.replace("\t", " ")


def _refuse_twice(manifests: list[Manifest]) -> None:
    places: dict[tuple[str, str], str] = {}
    for manifest in manifests:
        key = (manifest.workload.namespace, manifest.workload.name)
        if key in places:
            raise ManifestError(
                f"{manifest.place}: workload {key[1]} is given twice (first at {places[key]})"
            )
        places[key] = manifest.place
