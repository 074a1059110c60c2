"""What a reader of logs gets: batches of whole lines, gaps, positions.

A batch carries the lines as they lie in the file, so that the hot path moves chunks and
never makes an object per line; ``LogBatch.records`` parses when somebody wants records.
A line in a file is ``<RFC 3339 time, 9 digits, Z> <stream> <F|P> <bytes>``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple


@dataclass(frozen=True, slots=True)
class LogRecord:
    """One line, or a piece of a long one (``partial``: the rest comes in the next record).

    ``data`` has no line feed and may be any bytes.
    """

    timestamp_ns: int
    stream: Literal["stdout", "stderr"]
    partial: bool
    data: bytes


class LogCursor(NamedTuple):
    """Where a reader stands: file number, offset in that file, bytes the container wrote before it.

    Opaque to everybody else; ``str`` and ``parse`` carry it over a wire.

    >>> LogCursor.parse(str(LogCursor(3, 120, 4096)))
    LogCursor(sequence=3, offset=120, position=4096)
    """

    sequence: int
    offset: int
    position: int

    def __str__(self) -> str:
        return f"{self.sequence}-{self.offset}-{self.position}"

    @classmethod
    def parse(cls, text: str) -> LogCursor:
        """Read what ``str`` wrote; raises ``ValueError``."""
        numbers = text.split("-")
        if len(numbers) != 3 or not all(number.isascii() and number.isdigit() for number in numbers):
            raise ValueError(f"not a log cursor: {text[:80]!r}")
        return cls(*(int(number) for number in numbers))


@dataclass(frozen=True, slots=True)
class LogBatch:
    """Some lines that follow each other; ``gap_bytes`` are missing right before them.

    ``data`` is whole lines in the file's format, each with its line feed, or empty.
    ``cursor`` is the place after the last of them, to resume from.
    """

    data: bytes
    cursor: LogCursor
    gap_bytes: int = 0
