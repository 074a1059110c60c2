"""A watch on a local history: a position in it, and nothing buffered.

``local`` hands these out. A consumer pulls; whatever it has not pulled yet stays in the
shared history, so a slow one costs neither memory nor the writers' time, and is told
``WatchOverrun`` when compaction has passed it.
"""

from __future__ import annotations

import asyncio

from cloudless.store.errors import Compacted, StoreError, WatchOverrun
from cloudless.store.history import History, Records
from cloudless.store.limits import BOOKMARK_REVISIONS, REPLAY_REVISIONS
from cloudless.store.port import EventKind, WatchBatch, WatchEvent


class Cursor:
    """An async iterator over the changes under ``prefix`` from revision ``start`` on."""

    def __init__(self, history: History, prefix: str, start: int) -> None:
        self._history = history
        self._prefix = prefix
        self._next = start
        self._skipped = 0
        self._started = False
        self._woken = asyncio.Event()
        self._end: StoreError | None = None

    def wake(self) -> None:
        """Say that history has grown."""
        self._woken.set()

    def end(self, error: StoreError) -> None:
        """Raise ``error`` from the iteration from now on."""
        self._end = error
        self._woken.set()

    def __aiter__(self) -> Cursor:
        return self

    async def __anext__(self) -> WatchBatch:
        while True:
            if self._end is not None:
                raise self._end
            self._woken.clear()
            batch = self._look()
            if batch is not None:
                return batch
            await self._woken.wait()

    def _look(self) -> WatchBatch | None:
        """The next batch that history holds already, if any."""
        history = self._history
        if self._next <= history.compacted:
            raise (WatchOverrun if self._started else Compacted)(history.compacted)
        self._started = True
        while self._next <= history.visible:
            last = min(history.visible, self._next + REPLAY_REVISIONS - 1)
            for revision, records in history.changes(self._next, last):
                self._next = revision + 1
                events = self._matching(records)
                if events:
                    self._skipped = 0
                    return WatchBatch(revision, events)
                self._skipped += 1
        if self._skipped >= BOOKMARK_REVISIONS:
            self._skipped = 0
            return WatchBatch(self._next - 1)
        return None

    def _matching(self, records: Records) -> tuple[WatchEvent, ...]:
        prefix = self._prefix
        return tuple(
            WatchEvent(EventKind.PUT if record.version else EventKind.DELETE, record)
            for record in records
            if record.key.startswith(prefix)
        )
