"""One log that grows, read once for all who follow it.

Whoever finds nothing new reads for everybody; what was read is kept in a small ring, and
who is too slow for it reads the files by itself. ``store`` gives one ``LiveLog`` to all
followers of a run.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from enum import Enum
from pathlib import Path

from cloudless.agent.logs import files
from cloudless.agent.logs.limits import BATCH_BYTES, RING_BATCHES, RING_BYTES
from cloudless.agent.logs.place import LogPlace
from cloudless.agent.logs.record import LogBatch
from cloudless.agent.logs.watch import LogWatcher
from cloudless.domain.logrecord import LogCursor


class Nothing(Enum):
    """Why there is no batch."""

    #: Not yet: wait for ``wake``.
    YET = "yet"
    #: Nothing more will come.
    EVER = "ever"
    #: The place asked for is not in the ring any more: read the files.
    HERE = "here"


class LiveLog:
    """The end of the log in ``directory``; ``release`` it as often as it was ``acquire``d."""

    def __init__(self, directory: Path, watcher: LogWatcher) -> None:
        self.directory = directory
        self._watcher = watcher
        self._place: LogPlace | None = None
        #: What was read, each with the place before it.
        self._ring: deque[tuple[LogCursor | None, LogBatch]] = deque()
        self._ring_bytes = 0
        self._lock = asyncio.Lock()
        self._notice: asyncio.Future[None] | None = None
        #: Since the notice was armed, everything there is was read.
        self._dry = False
        self._ended = False
        self.followers = 0

    async def next(self, at: LogCursor | None, *, over: bool) -> LogBatch | Nothing:
        """What follows ``at``. ``over``: nobody writes any more, whatever the files say."""
        found = self._after(at)
        if found is not None:
            return found
        async with self._lock:
            found = self._after(at)
            if found is not None:
                return found
            return await self._read(at, over=over)

    def wake(self, call: Callable[[], None]) -> None:
        """Call once when there may be something new (at once, when there may be already)."""
        if self._notice is None or self._notice.done():
            call()
        else:
            self._notice.add_done_callback(lambda _: call())

    def close(self) -> None:
        """Nobody follows any more."""
        if self._notice is not None:
            self._notice.cancel()
        self._ring.clear()

    async def _read(self, at: LogCursor | None, *, over: bool) -> LogBatch | Nothing:
        """Read on until there is something behind ``at``, or nothing at all."""
        place = self._place = self._place or LogPlace(self.directory, at, chunk_bytes=BATCH_BYTES)
        while True:
            if self._ended:
                return Nothing.EVER
            armed = self._notice is not None and not self._notice.done()
            if armed and self._dry and not over:
                return Nothing.YET
            before, ended = place.cursor, False
            batch = await place.read(at_end=False)
            if batch is None and armed:
                ended = over or files.has_ended(self.directory) or not files.exists(self.directory)
                batch = await place.read(at_end=True) if ended else None
            if batch is None:
                if armed:
                    self._dry, self._ended = True, ended
                else:  # and look once more: what was written before gives no notice
                    self._notice, self._dry = self._watcher.arm(self.directory), False
                continue
            self._keep(before, batch)
            found = self._after(at)
            if found is not None:
                return found

    def _keep(self, before: LogCursor | None, batch: LogBatch) -> None:
        self._ring.append((before, batch))
        self._ring_bytes += len(batch.data)
        while len(self._ring) > 1 and (self._ring_bytes > RING_BYTES or len(self._ring) > RING_BATCHES):
            self._ring_bytes -= len(self._ring.popleft()[1].data)

    def _after(self, at: LogCursor | None) -> LogBatch | Nothing | None:
        """What the ring has to say; None when it has to be read on."""
        reached = self._place.cursor if self._place is not None else None
        if reached is None or at == reached:
            return None
        if at is not None and at > reached:
            return None  # somebody ahead, who read the files by himself
        for before, batch in reversed(self._ring):
            if before == at:
                return batch
            if at is not None and before is not None and before < at:
                return _rest(batch, at) or Nothing.HERE
        return Nothing.HERE


def _rest(batch: LogBatch, at: LogCursor) -> LogBatch | None:
    """The part of a batch behind ``at``, where that is plain to see."""
    begin = batch.begin
    if begin is None or not begin < at < batch.cursor or at.sequence != begin.sequence:
        return None
    if batch.cursor.offset - begin.offset != len(batch.data):
        return None
    return LogBatch(batch.data[at.offset - begin.offset :], batch.cursor, begin=at)
