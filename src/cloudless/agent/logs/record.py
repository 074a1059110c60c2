"""What a reader of one log gets: batches of whole lines, what is missing, positions.

A batch carries the lines as they lie in the file, so that the hot path moves chunks and
never makes an object per line; see ``domain.loglines`` for what a line looks like.
"""

from __future__ import annotations

from dataclasses import dataclass

from cloudless.domain.logrecord import LogCursor


@dataclass(frozen=True, slots=True)
class LogBatch:
    """Some lines that follow each other, and what happened right before them.

    ``data`` is whole lines in the file's format, each with its line feed, or empty.
    ``cursor`` is the place after the last of them, ``begin`` the one before the first,
    behind ``gap_bytes`` that are missing (``why``). ``logger_lost``: the rest
    of this log was never written, and never will be.
    """

    data: bytes
    cursor: LogCursor
    gap_bytes: int = 0
    begin: LogCursor | None = None
    why: str = ""
    rotated: bool = False
    logger_lost: bool = False
