"""A batch of logs as it arrived, its order of time, and long lines put together again.

``LogStream`` gives batches to those who want speed, and takes lines from them for the
others. Lines stay slices of the bytes that came until somebody looks at one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import accumulate
from typing import Generic, NamedTuple, TypeVar

from cloudless.domain.loglines import HEAD_BYTES, MAX_JOINED_BYTES, TIME_BYTES
from cloudless.sdk.logentry import LogLine, LogMarker, LogOrigin, new_lines

T = TypeVar("T")
#: Of which line a piece is: its run, and stdout or stderr. One at a time has begun there.
LineKey = tuple[str, bytes]
_STREAM = slice(31, 37)
_TAG = slice(38, 39)
_PIECE = re.compile(rb"(?m)^[^\n]{30} std(?:out|err) P ")


class LogChunk(NamedTuple):
    """Consecutive output of one run of a replica, or one marker, or neither (``source`` is just there).

    ``lines`` are whole lines with a line feed each and a head of 40 bytes: 30 of time, a
    blank, ``stdout`` or ``stderr``, a blank, ``F`` or ``P``, a blank. After ``P`` the line goes on
    in the next one of the same stream and run, and the line feed is not the container's.
    """

    origin: LogOrigin
    lines: bytes = b""
    marker: LogMarker | None = None

    @property
    def source_id(self) -> str:
        """The id of the replica; empty for a marker about a node."""
        return self.origin.source.replica_id

    @property
    def line_count(self) -> int:
        """Number of lines; pieces count as lines."""
        return self.lines.count(b"\n")

    @property
    def raws(self) -> list[bytes]:
        """The lines one by one, without their line feeds."""
        raws = self.lines.split(b"\n")
        if not raws[-1]:
            del raws[-1]
        return raws

    @property
    def has_pieces(self) -> bool:
        """Whether a line in it goes on elsewhere."""
        return b" P " in self.lines and _PIECE.search(self.lines) is not None

    @property
    def data(self) -> bytes:
        """Just what the container wrote.

        >>> from cloudless.sdk.logentry import LogSource
        >>> head = b"2026-01-01T00:00:00.000000000Z stdout "
        >>> LogChunk(LogOrigin(LogSource("r"), "c"), head + b"P one " + b"\\n" + head + b"F line\\n").data
        b'one line\\n'
        """
        if not self.has_pieces:
            raws = self.raws
            return b"\n".join([raw[HEAD_BYTES:] for raw in raws]) + b"\n" if raws else b""
        return b"".join([raw[HEAD_BYTES:] + (b"" if raw[38:39] == b"P" else b"\n") for raw in self.raws])


class LogBatch(NamedTuple):
    """Chunks that arrived together.

    ``caught_up`` is set once in a followed stream: from here on lines are new.
    """

    chunks: Sequence[LogChunk]
    caught_up: bool = False

    @property
    def line_count(self) -> int:
        """Number of lines."""
        return sum(chunk.lines.count(b"\n") for chunk in self.chunks)

    @property
    def data(self) -> bytes:
        """Just what the containers wrote, chunk after chunk."""
        return b"".join([chunk.data for chunk in self.chunks])

    def entries(self) -> list[LogLine | LogMarker]:
        """Lines and markers in order of time; long lines are in pieces."""
        parts: list[Part[LogLine | LogMarker]] = []
        for chunk in self.chunks:
            if chunk.marker is not None:
                parts.append(Part(chunk.source_id, [chunk.marker.place], [chunk.marker]))
            else:
                raws = chunk.raws
                parts.append(Part(chunk.source_id, raws, new_lines(chunk.origin, raws)))
        return in_order(parts)


class Part(NamedTuple, Generic[T]):
    """Items of one source; of each text in ``raws`` the first 30 bytes are the time of its item."""

    source_id: str
    raws: Sequence[bytes]
    items: Sequence[T]


def in_order(parts: Sequence[Part[T]]) -> list[T]:
    """The items of a batch in order of time.

    What one source sent stays in its own order, even where a clock was set back.

    >>> in_order([Part("a", [b"1", b"4", b"3"], ["a1", "a4", "a3"]), Part("b", [b"2", b"4"], ["b2", "b4"])])
    ['a1', 'b2', 'a4', 'a3', 'b4']
    """
    items = [item for part in parts for item in part.items]
    if len({part.source_id for part in parts}) < 2:
        return items
    times: list[bytes] = []
    latest: dict[str, bytes] = {}
    for name, raws, _ in parts:
        if raws:
            rising = _rising([raw[:TIME_BYTES] for raw in raws], latest.get(name, b""))
            latest[name] = rising[-1]
            times += rising
    return [items[place] for place in sorted(range(len(items)), key=times.__getitem__)]


def _rising(times: list[bytes], least: bytes) -> list[bytes]:
    """Times none of which is before the one in front of it."""
    if times[0] >= least and times == sorted(times):
        return times
    return list(accumulate(times, max, initial=least))[1:]


def line_key(origin: LogOrigin, raw: bytes) -> LineKey:
    """The key of a line or piece."""
    return (origin.container_id, raw[_STREAM])


def run_ended_by(marker: LogMarker) -> str | None:
    """The run whose lines get no end after this marker; empty for all runs, None for no run."""
    if marker.kind == "LIMIT_REACHED":
        return ""
    if marker.kind == "ROTATED":
        return None  # the line goes on in the next file
    return marker.container_id or None


class PieceJoiner:
    """Puts the pieces of long lines together, up to ``limit_bytes``; one per stream of logs."""

    def __init__(self, limit_bytes: int = MAX_JOINED_BYTES) -> None:
        self._limit_bytes = limit_bytes
        #: The pieces of lines whose end has not come.
        self._open: dict[LineKey, list[bytes]] = {}
        self._sizes: dict[LineKey, int] = {}
        self._origins: dict[str, LogOrigin] = {}

    def join(self, chunk: LogChunk) -> list[bytes]:
        """The lines of a chunk with pieces joined; what the limit cuts stays a piece."""
        raws = chunk.raws
        if not self._open and not chunk.has_pieces:
            return raws
        run = chunk.origin.container_id
        self._origins[run] = chunk.origin
        joined = []
        for raw in raws:
            key = (run, raw[_STREAM])
            pieces = self._open.get(key)
            size = self._sizes.get(key, 0) + len(raw) - HEAD_BYTES
            if raw[_TAG] != b"P" or size >= self._limit_bytes:
                joined.append(raw if pieces is None else self._closed(key, raw))
            else:
                self._sizes[key] = size
                self._open.setdefault(key, []).append(raw)
        return joined

    def cut(self, marker: LogMarker) -> list[LogLine]:
        """What waited for an end that, as the marker says, will not come."""
        run = run_ended_by(marker)
        return [] if run is None else self.flush(run)

    def flush(self, run: str = "") -> list[LogLine]:
        """What waits for its end, in one run or in all."""
        return [self.take(key) for key in list(self._open) if run in ("", key[0])]

    def take(self, key: LineKey) -> LogLine:
        """What has come of a line that waits for its end; the rest of it will be a line of its own."""
        line = LogLine(self._origins[key[0]], self._closed(key))
        if not self._open:
            self._origins.clear()  # runs come and go for as long as a stream is followed
        return line

    def waiting(self) -> dict[LineKey, bytes]:
        """The lines that wait for their end, each with its first piece."""
        return {key: pieces[0] for key, pieces in self._open.items()}

    def waits(self, replica_id: str) -> bool:
        """Whether a line of this source has begun and not ended."""
        return any(self._origins[run].source.replica_id == replica_id for run, _ in self._open)

    def _closed(self, key: LineKey, *last: bytes) -> bytes:
        raws = [*self._open.pop(key), *last]
        del self._sizes[key]
        head = raws[0][: _TAG.start] + raws[-1][_TAG.start : HEAD_BYTES]
        return head + b"".join([raw[HEAD_BYTES:] for raw in raws])
