"""What a line in a log file looks like, and how to take chunks of whole lines apart. Pure.

``<time, 30 bytes> <stream, 6 bytes> <F|P> <what the container wrote>``: everything before
the container's bytes is 40 bytes long, so most questions about a chunk are answered
without looking at single lines.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Collection, Iterable, Iterator
from typing import Literal, NamedTuple, cast

from cloudless.domain.logrecord import LogRecord

#: Longest line that is put together from pieces; the rest of it stays in pieces.
MAX_JOINED_BYTES = 1024 * 1024

HEAD_BYTES = 40
TIME_BYTES = 30
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_SECOND = datetime.timedelta(seconds=1)
_STREAM = slice(31, 37)
_STREAMS: dict[bytes, Literal["stdout", "stderr"]] = {b"stdout": "stdout", b"stderr": "stderr"}
_PIECE = re.compile(rb"(?m)^[^\n]{30} std(?:out|err) P ")
_NOTICE = re.compile(rb"(?m)^[^\n]{30} system (?:G (\d+)|L )\n")
#: Ends a log whose logger died before the container: what the line says after its time.
LOGGER_LOST = b" system L \n"
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
        for notice in _NOTICE.finditer(chunk):
            total += int(notice[1] or 0) - (len(notice[1] or b"") + 1)
    return total


class Notice(NamedTuple):
    """A line that is not the container's: where, and what it says: bytes were lost, or all from here on."""

    begin: int
    end: int
    lost_bytes: int
    is_end: bool


def first_notice(chunk: bytes) -> Notice | None:
    """The first line that is not the container's."""
    if b"Z system " not in chunk:
        return None
    found = _NOTICE.search(chunk)
    if found is None:
        return None
    return Notice(found.start(), found.end(), int(found[1] or 0), found[1] is None)


def only(chunk: bytes, streams: Collection[str]) -> bytes:
    """The lines of ``streams``."""
    if len(streams) != 1:
        return chunk if streams else b""
    return b"".join(_OF[next(iter(streams))].findall(chunk))


def time_text(timestamp_ns: int) -> bytes:
    """A time (of the years 1 to 9999) as lines carry it; texts compare as times do.

    >>> time_text(1_767_225_600_000_000_001)
    b'2026-01-01T00:00:00.000000001Z'
    """
    second, rest = divmod(timestamp_ns, 1_000_000_000)
    at = _EPOCH + datetime.timedelta(seconds=second)
    return b"%b.%09dZ" % (at.isoformat()[:19].encode(), rest)


def time_ns(line: bytes) -> int:
    """The time that a line begins with, in nanoseconds; raises ``ValueError``.

    >>> time_ns(b"2026-01-01T00:00:00.000000001Z")
    1767225600000000001
    """
    at = datetime.datetime.fromisoformat(line[:19].decode() + "Z")
    return (at - _EPOCH) // _SECOND * 1_000_000_000 + int(line[20:29])


def first_time(chunk: bytes) -> bytes:
    """The time of the first line."""
    return chunk[:TIME_BYTES]


def last_time(chunk: bytes, end: int | None = None) -> bytes:
    """The time of the last line; of the last line before ``end``, where a line ends."""
    start = chunk.rfind(b"\n", 0, (len(chunk) if end is None else end) - 1) + 1
    return chunk[start : start + TIME_BYTES]


def find_time(chunk: bytes, when: bytes, begin: int = 0) -> int:
    """Offset of the first line whose time is not before ``when``; the chunk's length when all are.

    ``begin`` is where a line begins: those before it do not count.
    """
    low, high = begin, len(chunk)  # low is always the begin of a line, high too or the end
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
                timestamp_ns = time_ns(line)
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
