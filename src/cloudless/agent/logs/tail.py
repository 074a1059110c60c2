"""Where the newest lines begin that patterns let through: whole lines, read backwards. Blocking.

Lines count in the order in which they are decided (see ``domain.logjudge``), so the newest
of them may have begun anywhere: the place that is found says from where on lines are
wanted, and what is held or dropped of those that had begun there. Called by ``begin``.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Iterator
from heapq import heappush, heapreplace
from pathlib import Path
from typing import NamedTuple

from cloudless.agent.logs import files
from cloudless.agent.logs.limits import JUDGED_BYTES, TAIL_LOOK_BACK_BYTES
from cloudless.domain.logfilter import LogFilter
from cloudless.domain.logjudge import DROPPED
from cloudless.domain.loglines import HEAD_BYTES, TIME_BYTES
from cloudless.domain.logrecord import LogCursor

_TAGS = {
    b" stdout F ": (0, True),
    b" stdout P ": (0, False),
    b" stderr F ": (1, True),
    b" stderr P ": (1, False),
}
_STREAMS = ("stdout", "stderr")
_NOTICE = b" system "


#: The begin of a line: its file's number, and where in it. Plain, as is a line of one piece (with
#: its text): there is one for every line that is looked at.
Place = tuple[int, int]
Single = tuple[Place, bytes]

#: Behind every line.
END: Place = (sys.maxsize, 0)


class _Line:
    """A line as it is put together from its end: as much of its begin as patterns look at."""

    def __init__(self, end: Place | None) -> None:
        #: Where its end was seen; None when it may still go on.
        self.end = end
        self._parts: deque[tuple[Place, bytes]] = deque()
        self._size = 0

    def add(self, place: Place, text: bytes) -> None:
        self._parts.appendleft((place, text))
        self._size += len(text)
        while self._size - len(self._parts[-1][1]) >= JUDGED_BYTES:
            self._size -= len(self._parts.pop()[1])

    @property
    def begin(self) -> Place:
        return self._parts[0][0]

    @property
    def decided_at(self) -> Place | None:
        return self._parts[-1][0] if self._size >= JUDGED_BYTES else self.end

    @property
    def text(self) -> bytes:
        if len(self._parts) == 1:
            return self._parts[0][1][:JUDGED_BYTES]
        return b"".join(text for _, text in self._parts)[:JUDGED_BYTES]


class _Span(NamedTuple):
    """A line of several pieces: where it begins, ends and is decided."""

    begin: Place
    end: Place
    decided_at: Place | None


class TailScan:
    """Takes the lines of one run from the last one backwards, until it is ``settled``.

    ``waits``: what has no end yet is waited for, and does not count.
    """

    def __init__(self, count: int, line_filter: LogFilter, *, waits: bool) -> None:
        self._count = count
        self._filter = line_filter
        self._end = None if waits else END
        self._wanted = [number for number, name in enumerate(_STREAMS) if name in line_filter.streams]
        self._lines: dict[int, _Line | Single] = {}
        self._spans: dict[int, list[_Span]] = {number: [] for number in self._wanted}
        #: When each of the newest lines was decided; ties go by where they begin.
        self._newest: list[tuple[Place, Place]] = []
        self._scanned = 0
        #: How much was scanned when a stream was last seen, or the count was reached.
        self._seen: dict[int, int] = dict.fromkeys(self._wanted, 0)
        #: Streams whose earlier lines may still matter.
        self._going = set(self._wanted)

    @property
    def missing(self) -> int:
        """How many lines are wanted of what was written before."""
        return self._count - len(self._newest)

    @property
    def first(self) -> tuple[Place, Place]:
        """The oldest of the lines that are wanted, as far as they are known."""
        return self._newest[0] if self._count else (END, END)

    def add(self, place: Place, line: bytes) -> None:
        """The line before those that were added."""
        self._scanned += len(line) + 1
        kind = _TAGS.get(line[TIME_BYTES:HEAD_BYTES])
        if kind is None:
            self._add_other(place, line)
            return
        number, whole = kind
        if number not in self._going:
            return
        self._seen[number] = self._scanned
        later = self._lines.get(number)
        if whole:
            if later is not None:
                self._close(number, later)
            self._lines[number] = (place, line[HEAD_BYTES:])
            return
        if not isinstance(later, _Line):
            joined = self._lines[number] = _Line(self._end if later is None else later[0])
            if later is not None:
                joined.add(*later)
            later = joined
        later.add(place, line[HEAD_BYTES:])

    def close(self) -> None:
        """Nothing is before what was added that would belong to it."""
        for number, line in self._lines.items():
            self._close(number, line)
        self._lines.clear()

    def settled(self) -> bool:
        """Whether the newest lines are found, and what of others goes on among them."""
        if self.missing:
            return False
        first = self.first[0]
        for number in tuple(self._going):
            line = self._lines.get(number)
            end = line.end if isinstance(line, _Line) else line and line[0]
            known = end is not None and end < first
            if known or self._scanned - self._seen[number] > TAIL_LOOK_BACK_BYTES:
                self._going.discard(number)
        return not self._going

    def held(self) -> tuple[Place | None, str]:
        """What is held of lines that have begun before the first one: from where on; ``LineJudge.rest``."""
        held, rest = None, ["-", "-"]
        for number, spans in self._spans.items():
            for span in spans:
                if not span.begin < self.first[0] <= span.end:
                    continue
                if span.decided_at is None or (span.decided_at, span.begin) >= self.first:
                    held = span.begin if held is None else min(held, span.begin)
                else:
                    rest[number] = DROPPED
        return held, "" if rest == ["-", "-"] else "".join(rest)

    def _add_other(self, place: Place, line: bytes) -> None:
        if line[TIME_BYTES : TIME_BYTES + len(_NOTICE)] == _NOTICE:
            self.close()  # what was written before it ends there
            self._end = place
        elif len(self._wanted) == len(_STREAMS) and self._filter.matches(line[HEAD_BYTES:]):
            self._note(place, place)  # no line that a logger wrote: it passes as it is

    def _close(self, number: int, line: _Line | Single) -> None:
        if not isinstance(line, _Line):
            place, text = line
            if self._filter.matches(text[:JUDGED_BYTES]):
                self._note(place, place)
            return
        begin, decided_at = line.begin, line.decided_at
        if begin != line.end:
            span = _Span(begin, END if line.end is None else line.end, decided_at)
            if self.missing or span.end >= self.first[0]:
                self._spans[number].append(span)
        if decided_at is not None and self._filter.matches(line.text):
            self._note(decided_at, begin)

    def _note(self, decided_at: Place, begin: Place) -> None:
        if self.missing:
            heappush(self._newest, (decided_at, begin))
            if not self.missing:
                self._seen = dict.fromkeys(self._seen, self._scanned)
        elif self._count and (decided_at, begin) > self._newest[0]:
            heapreplace(self._newest, (decided_at, begin))


class WholeTail(NamedTuple):
    """Where the last lines begin (None: with the run), what is held there, and how many are missing."""

    at: LogCursor | None
    held: LogCursor | None
    rest: str
    missing: int


def find_whole_tail(directory: Path, scan: TailScan, end: files.End, *, since: bytes = b"") -> WholeTail:
    """Let ``scan`` look at a log before ``end``, back to ``since``.

    Raises ``FileNotFoundError`` when a file was rotated away meanwhile.
    """
    known = [one for one in files.segments(directory) if one.sequence <= end.sequence]
    last: Place | None = None
    for place, line in _backwards(known, end):
        if since and line[:TIME_BYTES] < since:
            break
        last = last or (place[0], place[1] + len(line) + 1)
        scan.add(place, line)
        if scan.settled():
            break
    scan.close()
    if scan.missing or last is None:
        return WholeTail(None, None, "", scan.missing)
    paths = {one.sequence: one for one in known}

    def cursor(place: Place) -> LogCursor:
        return files.cursor_at(paths[place[0]], place[1])

    held, rest = scan.held()
    first = scan.first[0]
    return WholeTail(cursor(last if first == END else first), cursor(held) if held else None, rest, 0)


def _backwards(known: list[files.Segment], end: files.End) -> Iterator[tuple[Place, bytes]]:
    for segment in reversed(known):
        size = os.stat(segment.path).st_size
        if segment.sequence == end.sequence:
            size = min(size, end.size_bytes)
        for offset, line in files.backwards(segment.path, size):
            yield (segment.sequence, offset), line
