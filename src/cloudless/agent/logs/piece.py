"""What ``source`` gives to ``gather``: some lines of one run, or a marker, with the places around them."""

from __future__ import annotations

from dataclasses import dataclass

from cloudless.domain import loglines
from cloudless.domain.logrecord import LogCursor, SourceCursor
from cloudless.domain.logstream import LogMarker


@dataclass(slots=True)
class Piece:
    """Lines of one run in order of time, or a marker; ``time`` is the first one's.

    Without a marker ``data`` may be empty: patterns let nothing through up to ``after``, and
    nothing older than ``time`` will come.
    """

    run: int
    data: bytes
    begin: SourceCursor
    after: SourceCursor
    time: bytes
    marker: LogMarker | None = None


def advance(cursor: SourceCursor, data: bytes) -> SourceCursor:
    """The place behind whole lines that follow ``cursor``."""
    sequence, offset, position = cursor.at
    at = LogCursor(sequence, offset + len(data), position + loglines.written_bytes(data))
    return SourceCursor(cursor.run, at, exited=cursor.exited)
