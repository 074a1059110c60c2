"""Lets the pieces of one source through the patterns of a request, line by whole line.

``source`` puts in what it read and takes out what is left of it. What is held of a line
ends with whatever says that its rest will not come. A cursor that was handed out says
what was held there: read again from there, up to where the stream stood, nothing comes out.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import replace

from cloudless.agent.logs.limits import JUDGED_BYTES
from cloudless.agent.logs.piece import Piece, advance
from cloudless.domain import loglines
from cloudless.domain.logfilter import LogFilter
from cloudless.domain.logjudge import LineJudge
from cloudless.domain.logrecord import LogCursor, SourceCursor
from cloudless.domain.logstream import LogMarker, MarkerKind

K = MarkerKind
#: Follows every time of that text, and no other.
_AFTER = b"\x00"


class Sieve:
    """``begin`` is where the stream begins, or goes on."""

    def __init__(self, line_filter: LogFilter, begin: SourceCursor) -> None:
        self._judge = LineJudge(line_filter, JUDGED_BYTES)
        self._out: deque[Piece] = deque()
        #: The place in the log up to which everything was put in.
        self._place = begin._replace(at=begin.held or begin.at)
        #: While it is read again: up to here everything was passed on before, but for what is held.
        self._replayed: LogCursor | None = begin.at
        self._rest = begin.rest
        #: Lines behind it that were passed on: those before a time, and so many of that time.
        self._skip = (begin.before, begin.passed)

    def take(self) -> Piece | None:
        """What is left, in order; None when more has to be put in first."""
        return self._out.popleft() if self._out else None

    async def put(self, piece: Piece) -> None:
        """Take in what follows."""
        if piece.run != self._place.run:
            self._arrive("")
            self.flush()
            self._place = piece.begin
        if piece.marker is None:
            await self._lines(piece)
        else:
            self._marker(piece, piece.marker)

    def flush(self) -> None:
        """Decide what is held by what there is of it."""
        begin = self._cursor(self._place)
        lines = self._skipped(self._judge.flush())
        if lines:
            after = self._cursor(self._place)
            self._out.append(Piece(self._place.run, lines, begin, after, loglines.first_time(lines)))

    def _marker(self, piece: Piece, marker: LogMarker) -> None:
        same_run = piece.after.run == self._place.run
        if self._replayed is not None and not (same_run and piece.after.at <= self._replayed):
            self._arrive("" if marker.kind is K.GAP else self._rest)
        if marker.kind is not K.ROTATED:
            self.flush()
        else:
            self._judge.overtake(loglines.time_text(marker.at_ns))
            if self._replayed is not None:
                return  # it was told before
        after = self._cursor(piece.after)
        self._out.append(replace(piece, begin=after, after=after))
        if same_run:
            self._place = piece.after

    async def _lines(self, piece: Piece) -> None:
        data, begin = piece.data, piece.begin
        if self._replayed is not None:
            seen = _seen(piece, self._replayed)
            await self._decided(data[:seen], begin)
            if piece.after.at < self._replayed:
                self._place = piece.after
                return
            self._arrive(self._rest)
            if seen:
                data, begin = data[seen:], advance(begin, data[:seen])
        self._place = piece.after
        if not data:
            return
        before = self._cursor(begin)
        lines = self._skipped(await self._decided(data, begin))
        time = loglines.first_time(lines) or self._judge.horizon
        self._out.append(Piece(piece.run, lines, before, self._cursor(piece.after), time))

    def _arrive(self, rest: str) -> None:
        """From here on, what comes out was not passed on before."""
        self._judge.restore(rest)
        self._replayed, self._rest = None, ""

    async def _decided(self, data: bytes, begin: SourceCursor) -> bytes:
        return await asyncio.to_thread(self._judge.feed, data, begin.at) if data else b""

    def _skipped(self, lines: bytes) -> bytes:
        """What is left without the lines that were passed on before the stream was resumed."""
        before, count = self._skip
        if not before or not lines:
            return lines
        end = loglines.find_time(lines, before)
        same = loglines.find_time(lines, before + _AFTER, end)
        while count and end < same:
            end = lines.find(b"\n", end) + 1
            count -= 1
        self._skip = (before, count) if end == len(lines) else (b"", 0)
        return lines[end:]

    def _cursor(self, at: SourceCursor) -> SourceCursor:
        """The whole of a place in the log: what is held there, and what was passed on behind it."""
        if at.run != self._place.run:
            return at
        before, count = self._skip
        held, rest = self._judge.held, self._judge.rest
        if self._replayed is not None:
            held, rest = held or at.at, self._rest
            at = at._replace(at=self._replayed)
        if held == at.at:
            held = None
        return at._replace(before=before, passed=count, held=held, rest=rest)


def _seen(piece: Piece, to: LogCursor) -> int:
    """How much of a piece lies before ``to``: whole lines."""
    begin = piece.begin.at
    if piece.after.at <= to:
        return len(piece.data)
    if begin.sequence != to.sequence:
        return 0
    return piece.data.rfind(b"\n", 0, max(to.offset - begin.offset, 0)) + 1
