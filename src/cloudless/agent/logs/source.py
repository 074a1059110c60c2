"""One replica as a source of a stream: the runs that are kept, those to come, and what happened between.

``gather`` takes pieces from many of these, one at a time. A source holds positions and at
most one chunk; when nothing is there it says so, and calls back when there may be.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from cloudless.agent.logs.begin import END_TOLD, TOLD, UNTOLD, KnownRun, find_begin
from cloudless.agent.logs.limits import LAST_WORDS_S, LOOK_WITHOUT_NOTICE_S
from cloudless.agent.logs.live import LiveLog, Nothing
from cloudless.agent.logs.piece import Piece, advance
from cloudless.agent.logs.place import LogPlace
from cloudless.agent.logs.record import LogBatch
from cloudless.agent.logs.sieve import Sieve
from cloudless.agent.logs.store import LogStore
from cloudless.domain import loglines
from cloudless.domain.logfilter import LogFilter
from cloudless.domain.logrecord import LogCursor, SourceCursor
from cloudless.domain.logstream import LogMarker, LogQuery, LogSource, MarkerKind
from cloudless.domain.replica import ExitStatus

K = MarkerKind
#: Of a source whose replica is still there, so that it may have more for a later stream.
ALL_READ = "all that was asked for is read"


class RunStates(Protocol):
    """What the node knows of replicas and their containers."""

    def exists(self, replica_id: str) -> bool:
        """Whether it is here, so that more may come."""
        ...

    def writes(self, replica_id: str, run: int) -> bool:
        """Whether the container of a run may still write."""
        ...

    def change_of(self, replica_id: str) -> asyncio.Future[None]:
        """Done when any of this may be different; cancel it when not needed."""
        ...


@dataclass(frozen=True)
class Reading:
    """What all sources of a stream share. ``now_ns`` is wall time, ``only_run`` one container."""

    store: LogStore
    states: RunStates
    query: LogQuery
    line_filter: LogFilter
    now_ns: Callable[[], int]
    only_run: int | None = None


class SourceReader:
    """``wake`` is called when ``next``, after None, may have something. ``close`` it.

    First the history, which ends where the logs ended when it was opened; then, if that was
    asked for and ``follow`` is called, what comes.
    """

    def __init__(self, reading: Reading, source: LogSource, wake: Callable[[], None]) -> None:
        self.source = source
        #: Where it stands before the first piece.
        self.cursor = SourceCursor(0, UNTOLD)
        #: The history is read, and ``follow`` may be called.
        self.caught_up = False
        #: Nothing more will come.
        self.ended = False
        #: What one chunk may hold.
        self.chunk_bytes = 0
        self._reading = reading
        self._query = reading.query
        self._wake = wake
        self._until = None if self._query.until_ns is None else loglines.time_text(self._query.until_ns + 1)
        self._since = b"" if self._query.since_ns is None else loglines.time_text(self._query.since_ns)
        self._skip = (b"", 0)
        self._known: dict[int, KnownRun] = {}
        self._following = False
        #: The run that is being read, or else the one to look for.
        self._run = 0
        self._inside = False
        #: The place in its files; None is their begin.
        self._at: LogCursor | None = None
        self._place: LogPlace | None = None
        self._live: LiveLog | None = None
        self._told_end = False
        self._told_exit = False
        #: What the node says of the replica may be different from what it said.
        self._changed = True
        self._pieces: deque[Piece] = deque()
        #: What pieces go through when there are patterns.
        self._sieve: Sieve | None = None
        self._time = b""
        self._change: asyncio.Future[None] | None = None

    async def open(self, *, tail_lines: int | None) -> None:
        """Find where to begin; raises ``OSError``."""
        given = (self._query.resume or {}).get(self.source.replica_id)
        self._known = await asyncio.to_thread(self._look)
        if given is None:
            line_filter = self._reading.line_filter
            given = await asyncio.to_thread(find_begin, self._known, self._query, tail_lines, line_filter)
        self.cursor = given
        if self._reading.line_filter.has_patterns:
            self._sieve = Sieve(self._reading.line_filter, given)
        else:
            self._skip = (given.before, given.passed)
        self._run, self._told_end = given.run, given.at == END_TOLD
        if given.at not in (UNTOLD, END_TOLD) and given.run in self._known:
            self._inside, self._told_exit = True, given.exited
            self._at = (given.held or given.at) if given.at.sequence else None

    def follow(self) -> None:
        """From now on, go on with what is written."""
        self._following, self.caught_up, self._known, self._place = True, False, {}, None
        if self._inside:
            self._live = self._reading.store.follow(self.source.replica_id, self._run)

    async def next(self) -> Piece | None:
        """The next piece, or None: nothing, or nothing yet; see ``caught_up`` and ``ended``."""
        if self._sieve is None:
            return await self._next()
        while (passed := self._sieve.take()) is None:
            piece = await self._next()
            if piece is None:
                return self.finish() if self.ended else None
            await self._sieve.put(piece)
        return passed

    def finish(self) -> Piece | None:
        """What is held of lines that have not ended: they are not waited for any more."""
        if self._sieve is None:
            return None
        self._sieve.flush()
        return self._sieve.take()

    async def _next(self) -> Piece | None:
        while not (self._pieces or self.ended or self.caught_up):
            if not self._inside:
                if not self._enter():
                    break
            elif not await (self._follow_run() if self._following else self._read_run()):
                break
        return self._pieces.popleft() if self._pieces else None

    def close(self) -> None:
        """Let go of everything."""
        self._wake = _ignore
        self._leave()
        self._pieces.clear()
        if self._change is not None:
            self._change.cancel()

    # -- runs --------------------------------------------------------------------------

    def _look(self) -> dict[int, KnownRun]:
        replica_id, runs = self.source.replica_id, self._runs()
        return {
            run: self._reading.store.known_run(replica_id, run)._replace(
                over=run < runs[-1] or not self._reading.states.writes(replica_id, run)
            )
            for run in runs
        }

    def _runs(self) -> list[int]:
        runs = list(self._reading.store.attempts(self.source.replica_id))
        if self._reading.only_run is not None:
            return [run for run in runs if run == self._reading.only_run]
        return runs[:-1] if self._query.previous else runs

    def _enter(self) -> bool:
        """Begin with the next run; False when there is nothing to do now."""
        runs = self._runs() if self._following else sorted(self._known)
        run = next((run for run in runs if run >= self._run), None)
        if run is None:
            return self._no_more_runs()
        self._run, self._inside, self._at, self._place = run, True, None, None
        self._changed = True
        self._told_exit = False
        replica_id, store = self.source.replica_id, self._reading.store
        if self._following:
            self._live = store.follow(replica_id, run)
        started_ns = store.known_run(replica_id, run).started_ns or self._reading.now_ns()
        kind = K.RESTARTED if run > 1 else K.STARTED
        self._tell(LogMarker(kind, started_ns, runs=max(run - 1, 0)), SourceCursor(run, TOLD))
        return True

    def _no_more_runs(self) -> bool:
        here = self._reading.states.exists(self.source.replica_id)
        if not self._following:
            return self._end_history()
        if here and self._reading.only_run is None:
            self._wake_on_change()
            return False
        return self._end()

    def _end_history(self) -> bool:
        if self._query.follow:
            self.caught_up = True
            return False
        return self._end()

    def _end(self) -> bool:
        """Tell that nothing more will come; once only, when that is so for good."""
        gone = not self._reading.states.exists(self.source.replica_id)
        cursor = self._cursor()
        if gone and not self._inside:
            cursor = SourceCursor(self._run, END_TOLD)
        if not (gone and self._told_end):
            told = "" if gone else ALL_READ
            self._tell(LogMarker(K.SOURCE_ENDED, self._reading.now_ns(), message=told), cursor, always=True)
        self.ended = True
        self._leave()
        return True

    def _leave_run(self, info: KnownRun) -> bool:
        """All of a run is read: tell how it ended, and go on behind it."""
        self._leave()
        run = self._run
        self._inside, self._run = False, run + 1
        if not self._told_exit:
            self._tell(self._exit_marker(info.exit), SourceCursor(self._run, UNTOLD), run=run)
        return True

    def _exit_marker(self, status: ExitStatus | None) -> LogMarker:
        if status is None:
            return LogMarker(K.EXITED, self._reading.now_ns(), message="nobody saw how it ended")
        return LogMarker(K.EXITED, int(status.finished_at.timestamp() * 1_000_000) * 1000, exit=status)

    def _leave(self) -> None:
        self._place = None
        if self._live is not None:
            self._reading.store.unfollow(self._live)
            self._live = None

    # -- reading -----------------------------------------------------------------------

    async def _read_run(self) -> bool:
        """Take more of the history of a run; False when there is nothing to do now."""
        known = self._known[self._run]
        if self._place is None:
            self._place = LogPlace(known.directory, self._at, known.end, chunk_bytes=self.chunk_bytes)
        batch = await self._place.read(at_end=known.over)
        if batch is not None:
            return self._take(batch)
        self._at = self._place.cursor
        if known.over:
            return self._leave_run(known)
        if known.exit is not None and not (self._told_exit or self._query.follow):
            self._told_exit = True  # it waits to be started again; who follows gets its last words first
            self._tell(self._exit_marker(known.exit), self._cursor())
            return True
        return self._end_history()

    async def _follow_run(self) -> bool:
        """Take what was written meanwhile; False when nothing was."""
        replica_id, states, live = self.source.replica_id, self._reading.states, self._live
        assert live is not None
        over = not states.writes(replica_id, self._run)
        found = await live.next(self._at, over=over)
        if isinstance(found, LogBatch):
            self._place = None
            return self._take(found)
        if found is Nothing.HERE:
            return await self._read_behind()
        if found is Nothing.YET and not self._changed:
            live.wake(self._woken)
            return False
        self._changed = False
        info = self._reading.store.known_run(replica_id, self._run)
        if found is Nothing.EVER and (info.exit or over or max(self._runs(), default=0) > self._run):
            return self._leave_run(info)
        if info.exit is not None and not self._told_exit:
            return self._tell_exit(info.exit)
        self._wake_on_change()
        live.wake(self._woken)
        return False

    def _tell_exit(self, status: ExitStatus) -> bool:
        """The container ended, but its log may go on: what is on its way to the file comes first."""
        quiet_s = (self._reading.now_ns() / 1e9) - status.finished_at.timestamp()
        if 0 <= quiet_s < LAST_WORDS_S:
            self._changed = True
            asyncio.get_running_loop().call_later(LAST_WORDS_S - quiet_s, self._woken)
            return False
        self._told_exit = True
        self._tell(self._exit_marker(status), self._cursor())
        return True

    async def _read_behind(self) -> bool:
        """Read from the files what the ring does not hold any more."""
        if self._place is None:
            directory = self._reading.store.directory(self.source.replica_id, self._run)
            self._place = LogPlace(directory, self._at, chunk_bytes=self.chunk_bytes)
        batch = await self._place.read(at_end=False)
        if batch is not None:
            return self._take(batch)
        moved, self._at = self._at != self._place.cursor, self._place.cursor
        if not moved:
            asyncio.get_running_loop().call_later(LOOK_WITHOUT_NOTICE_S, self._woken)
        return moved

    def _take(self, batch: LogBatch) -> bool:
        """Make pieces of a batch."""
        self._at = batch.cursor
        begin = SourceCursor(self._run, batch.begin or batch.cursor, exited=self._told_exit)
        data, after = batch.data, begin._replace(at=batch.cursor)
        at_ns = self._time_ns(data)
        if batch.gap_bytes:
            self._tell(LogMarker(K.GAP, at_ns, gap_bytes=batch.gap_bytes, message=batch.why), begin)
        if batch.rotated:
            self._tell(LogMarker(K.ROTATED, at_ns), begin)
        if batch.logger_lost:
            told = "the process that keeps the log died; what is written from here on is lost"
            self._tell(LogMarker(K.LOGGER_LOST, at_ns, message=told), after)
        if data and self._skip[0]:
            data, begin = self._skip_read(data, begin)
        if data:
            self._put(data, begin, after)
        return True

    def _time_ns(self, data: bytes) -> int:
        """When what is before ``data`` happened, as far as its lines say."""
        try:
            return loglines.time_ns(data or self._time)
        except ValueError:
            return self._reading.now_ns()

    def _put(self, data: bytes, begin: SourceCursor, after: SourceCursor) -> None:
        if data[: loglines.TIME_BYTES] < self._since:  # followed from before the time that is asked for
            early = loglines.find_time(data, self._since)
            begin, data = advance(begin, data[:early]), data[early:]
        late = self._until is not None and bool(data) and loglines.last_time(data) >= self._until
        if late and self._until is not None:
            data = data[: loglines.find_time(data, self._until)]
            after = advance(begin, data)
        if data:
            time = loglines.first_time(data)
            self._pieces.append(Piece(self._run, data, begin, after, time))
            self._time = loglines.last_time(data)
        if late:
            self._end()

    def _skip_read(self, data: bytes, begin: SourceCursor) -> tuple[bytes, SourceCursor]:
        """What is left without the lines that were passed on before the stream was resumed."""
        before, count = self._skip
        end = loglines.find_time(data, before)
        same = loglines.find_time(data, before + b"\x00", end)
        while count and end < same:
            feed = data.find(b"\n", end) + 1
            count -= bool(self._reading.line_filter.apply(data[end:feed]))
            end = feed
        self._skip = (before, count) if end == len(data) else (b"", 0)
        return data[end:], advance(begin, data[:end])

    # -- telling -----------------------------------------------------------------------

    def _cursor(self) -> SourceCursor:
        return SourceCursor(self._run, (self._at or TOLD) if self._inside else UNTOLD, exited=self._told_exit)

    def _tell(
        self, marker: LogMarker, after: SourceCursor, *, always: bool = False, run: int | None = None
    ) -> None:
        """Put a marker behind what was read, if it is of the time that is asked for."""
        query, at_ns = self._query, marker.at_ns
        late = query.until_ns is not None and at_ns > query.until_ns
        if not always and (late or (query.since_ns is not None and at_ns < query.since_ns)):
            return
        self._time = max(self._time, loglines.time_text(at_ns))
        run = self._run if run is None else run
        self._pieces.append(Piece(run, b"", after, after, self._time, marker))

    def _wake_on_change(self) -> None:
        if self._change is None or self._change.done():
            self._change = self._reading.states.change_of(self.source.replica_id)
            self._change.add_done_callback(lambda _: self._on_change())

    def _on_change(self) -> None:
        self._changed = True
        self._wake()

    def _woken(self) -> None:
        self._wake()


def _ignore() -> None:
    """Nobody is interested any more."""
