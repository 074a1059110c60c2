"""Which lines of one run pass, as whole lines: whatever pieces they were kept in. Pure.

A log holds a long line, or one that its program paused in, as pieces, and pieces of stdout
and stderr lie between each other. What patterns say of a line is known when it is whole,
or when as much of it is there as is ever looked at; until then it is held. Lines come out
in the order in which they were decided, in order of time, and the same ones however the
log was cut into chunks.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cloudless.domain import loglines
from cloudless.domain.logfilter import LogFilter
from cloudless.domain.logrecord import LogCursor

_HEAD = loglines.HEAD_BYTES
_TIME = loglines.TIME_BYTES
_TAG = slice(_TIME, _HEAD)
_STREAMS = ("stdout", "stderr")
_WHOLE = (b" stdout F ", b" stderr F ")
_PIECE = (b" stdout P ", b" stderr P ")
#: What becomes of the rest of a line that is decided, in ``LineJudge.rest``.
PASSES, DROPPED, _NOTHING = "p", "d", "-"


@dataclass(slots=True)
class _Open:
    """A line that goes on; ``time`` is its first piece's, or later where other lines came out meanwhile."""

    stream: int
    time: bytes = b""
    offset: int = 0
    place: LogCursor | None = None
    text: bytearray = field(default_factory=bytearray)
    passes: bool | None = None


class LineJudge:
    """Lets the lines of one run through ``line_filter``; a line is decided by its first ``limit_bytes``.

    It holds not much more than that of each stream.
    """

    def __init__(self, line_filter: LogFilter, limit_bytes: int) -> None:
        self._filter = line_filter
        self._limit_bytes = limit_bytes
        self._tags: dict[bytes, tuple[int, bool]] = {}
        for number, name in enumerate(_STREAMS):
            if name in line_filter.streams:
                self._tags |= {_WHOLE[number]: (number, False), _PIECE[number]: (number, True)}
        self._both = len(self._tags) == 2 * len(_STREAMS)
        self._open: list[_Open | None] = [None, None]
        self._last = b""

    @property
    def held(self) -> LogCursor | None:
        """Where the oldest line begins that is not decided."""
        return min((line.place for line in self._held() if line.place is not None), default=None)

    @property
    def rest(self) -> str:
        """What becomes of the rest of lines that were decided by their begin; empty when there are none.

        A letter each for stdout and stderr: ``PASSES``, ``DROPPED``, or ``-``.
        """
        said = {None: _NOTHING, True: PASSES, False: DROPPED}
        text = "".join(_NOTHING if line is None else said[line.passes] for line in self._open)
        return text if text.strip(_NOTHING) else ""

    @property
    def horizon(self) -> bytes:
        """No line that comes out later is older."""
        return min((line.time for line in self._held()), default=self._last)

    def restore(self, rest: str) -> None:
        """Be in the middle of lines that were decided, as ``rest`` said then."""
        for number, letter in enumerate(rest):
            if letter != _NOTHING:
                self._open[number] = _Open(number, passes=letter == PASSES)

    def feed(self, chunk: bytes, at: LogCursor) -> bytes:
        """What is decided by whole lines that begin at ``at``, in the form that was asked for."""
        if not chunk:
            return b""
        self._last = loglines.last_time(chunk)
        if self._is_plain(chunk):
            if self._both and len(self._last) == _TIME:
                self.overtake(self._last)
            return self._filter.apply(chunk)
        lines = self._decided(chunk)
        for line in self._held():
            if line.place is None:
                before = loglines.written_bytes(chunk[: line.offset])
                line.place = LogCursor(at.sequence, at.offset + line.offset, at.position + before)
        return self._filter.stamped(b"\n".join(lines) + b"\n") if lines else b""

    def overtake(self, time: bytes) -> None:
        """Something of that time comes before what is held: this will not be older."""
        for line in self._held():
            line.time = max(line.time, time)

    def flush(self) -> bytes:
        """Decide what is held by what there is of it: its rest will not come, or is lost."""
        lines, latest = [], b""
        for line in sorted(self._held(), key=lambda line: line.place or LogCursor(0, 0, 0)):
            latest = line.time = max(line.time, latest)
            self._decide(line)
            if line.passes:
                lines.append(line.time + _PIECE[line.stream] + line.text)
        self._open = [None, None]
        return self._filter.stamped(b"\n".join(lines) + b"\n") if lines else b""

    def _held(self) -> list[_Open]:
        return [line for line in self._open if line is not None and line.passes is None]

    def _is_plain(self, chunk: bytes) -> bool:
        """Whether every line that is looked at is whole: as good as always, and quick to see."""
        if any(tag in chunk for tag in _PIECE):
            return False
        return not any(line and tag in chunk for line, tag in zip(self._open, _WHOLE, strict=True))

    def _decided(self, chunk: bytes) -> list[bytes]:
        found: list[bytes] = []
        matches, offset = self._filter.matches, 0
        for line in chunk.split(b"\n")[:-1]:
            begin, offset = offset, offset + len(line) + 1
            kind = self._tags.get(line[_TAG])
            if kind is None:  # of the other stream, or no line that a logger wrote
                if self._both and matches(line[_HEAD:]):
                    found.append(line)
                continue
            number, is_piece = kind
            other, mine = self._open[1 - number], self._open[number]
            if other is not None:
                other.time = max(other.time, line[:_TIME])
            if mine is None and not is_piece:
                if matches(line[_HEAD:]):
                    found.append(line)
                continue
            if mine is None:
                mine = self._open[number] = _Open(number, line[:_TIME], begin)
            if mine.passes is not None:
                if mine.passes:
                    found.append(line)
            else:
                mine.text += line[_HEAD:]
                if not is_piece or len(mine.text) >= self._limit_bytes:
                    self._decide(mine)
                    if mine.passes:
                        found.append(mine.time + line[_TAG] + mine.text)
                    mine.text = bytearray()
            if not is_piece:
                self._open[number] = None
        return found

    def _decide(self, line: _Open) -> None:
        line.passes = self._filter.matches(bytes(line.text[: self._limit_bytes]))
