"""Every limit of this room in one place, with its unit."""

from __future__ import annotations

#: What one copy may write here unless the caller says otherwise: bytes of files, and members.
MAX_BYTES = 10 * 1024**3
MAX_MEMBERS = 1_000_000
#: Longest path, and how deep it may be.
MAX_PATH_BYTES = 4096
MAX_DEPTH = 200
#: Longest extended header of an archive (a long name, or pax records).
MAX_EXTENSION_BYTES = 64 * 1024
#: What may follow the end of an archive: tar fills its last record with zeros.
MAX_PADDING_BYTES = 1024 * 1024
#: Files are read and written in pieces of this size.
PIECE_BYTES = 256 * 1024
#: What is kept of a program's complaints, and how many of its lines are repeated.
MAX_COMPLAINT_BYTES = 64 * 1024
MAX_COMPLAINT_LINES = 5
#: How long tidying up in the replica may take after a copy that failed.
TIDY_S = 10.0
#: How long a program whose archive is broken is waited for, to say why.
CAUSE_S = 2.0
#: Members that were left out and are named; the rest is only counted.
MAX_NAMED = 1000
