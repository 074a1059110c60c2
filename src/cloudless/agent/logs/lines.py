"""What a line in a log file looks like, and how to take chunks of whole lines apart. Pure.

``<time, 30 bytes> <stream, 6 bytes> <F|P> <what the container wrote>``: everything before
the container's bytes is 40 bytes long, so most questions about a chunk are answered
without looking at single lines.
"""

from __future__ import annotations

import calendar
import re
import time
from collections.abc import Collection, Iterable, Iterator
from typing import Literal, cast

from cloudless.agent.logs.limits import MAX_JOINED_BYTES
from cloudless.agent.logs.record import LogRecord

HEAD_BYTES = 40
TIME_BYTES = 30
_STREAM = slice(31, 37)
_STREAMS: dict[bytes, Literal["stdout", "stderr"]] = {b"stdout": "stdout", b"stderr": "stderr"}
_PIECE = re.compile(rb"(?m)^[^\n]{30} std(?:out|err) P ")
_LOST = re.compile(rb"(?m)^[^\n]{30} system G (\d+)\n")
_OF = {name: re.compile(rb"(?m)^[^\n]{30} " + name.encode() + rb"[^\n]*\n") for name in ("stdout", "stderr")}


def written_bytes(chunk: bytes) -> int:
    """How many bytes of the container whole lines stand for, lost ones included.

    >>> head = b"2026-01-01T00:00:00.000000000Z "
    >>> written_bytes(head + b"stdout F hello\\n" + head + b"stdout P half\\n" + head + b"system G 7\\n")
    17
    """
    total = len(chunk) - HEAD_BYTES * chunk.count(b"\n")
    if b" P " in chunk:
        total -= len(_PIECE.findall(chunk))  # the line feed after a piece is the logger's
    if b"Z system " in chunk:
        for lost in _LOST.finditer(chunk):
            total += int(lost[1]) - (len(lost[1]) + 1)
    return total


def first_loss(chunk: bytes) -> tuple[int, int, int] | None:
    """Where the first line that stands for lost bytes begins and ends, and how many were lost."""
    if b"Z system " not in chunk:
        return None
    lost = _LOST.search(chunk)
    return None if lost is None else (lost.start(), lost.end(), int(lost[1]))


def only(chunk: bytes, streams: Collection[str]) -> bytes:
    """The lines of ``streams``."""
    if len(streams) != 1:
        return chunk if streams else b""
    return b"".join(_OF[next(iter(streams))].findall(chunk))


def time_text(timestamp_ns: int) -> bytes:
    """A time as lines carry it; texts compare as times do.

    >>> time_text(1_767_225_600_000_000_001)
    b'2026-01-01T00:00:00.000000001Z'
    """
    second, rest = divmod(timestamp_ns, 1_000_000_000)
    return b"%b%09dZ" % (time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second)).encode(), rest)


def last_time(chunk: bytes) -> bytes:
    """The time of the last line."""
    start = chunk.rfind(b"\n", 0, len(chunk) - 1) + 1
    return chunk[start : start + TIME_BYTES]


def find_time(chunk: bytes, when: bytes) -> int:
    """Offset of the first line whose time is not before ``when``; the chunk's length when all are."""
    low, high = 0, len(chunk)  # low is always the begin of a line, high too or the end
    while low < high:
        middle = chunk.rfind(b"\n", low, (low + high) // 2) + 1 or low
        middle = max(middle, low)
        after = chunk.find(b"\n", middle) + 1 or len(chunk)
        if chunk[middle : middle + TIME_BYTES] < when:
            low = after
        else:
            high = middle
    return low


def parse(chunk: bytes) -> list[LogRecord]:
    """The records in whole lines; a line that is none is skipped.

    >>> parse(b"2026-01-01T00:00:00.000000001Z stderr F no\\n")
    [LogRecord(timestamp_ns=1767225600000000001, stream='stderr', partial=False, data=b'no')]
    """
    records: list[LogRecord] = []
    stamp, timestamp_ns = b"", 0
    for line in chunk.split(b"\n"):
        stream = _STREAMS.get(line[_STREAM])
        if stream is None or line[38:39] not in b"FP":
            continue
        if line[:TIME_BYTES] != stamp:  # lines that were read together share their time
            try:
                parsed = time.strptime(line[:19].decode(), "%Y-%m-%dT%H:%M:%S")
                timestamp_ns = calendar.timegm(parsed) * 1_000_000_000 + int(line[20:29])
            except ValueError:
                continue
            stamp = line[:TIME_BYTES]
        records.append(LogRecord(timestamp_ns, stream, line[38:39] == b"P", line[HEAD_BYTES:]))
    return records


class Joiner:
    """Puts the pieces of long lines together, up to ``limit_bytes``; one per log."""

    def __init__(self, limit_bytes: int = MAX_JOINED_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._open: dict[str, list[LogRecord]] = {}
        self._sizes: dict[str, int] = {}

    def join(self, records: Iterable[LogRecord]) -> Iterator[LogRecord]:
        """The records with pieces joined; what the limit cut or a gap ended stays ``partial``."""
        for record in records:
            pieces = self._open.setdefault(record.stream, [])
            if not pieces and not record.partial:
                yield record
                continue
            pieces.append(record)
            size = self._sizes.get(record.stream, 0) + len(record.data)
            self._sizes[record.stream] = size
            if not record.partial or size >= self._limit_bytes:
                yield self._close(record.stream)

    def flush(self) -> Iterator[LogRecord]:
        """What still waits for its end: call it when the log ends, or before a gap."""
        for stream, pieces in self._open.items():
            if pieces:
                yield self._close(stream)

    def _close(self, stream: str) -> LogRecord:
        pieces, self._open[stream] = self._open[stream], []
        self._sizes[stream] = 0
        return LogRecord(
            pieces[0].timestamp_ns,
            cast(Literal["stdout", "stderr"], stream),
            pieces[-1].partial,
            b"".join(piece.data for piece in pieces),
        )
