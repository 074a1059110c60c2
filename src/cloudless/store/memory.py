"""The store without a disk: for tests, simulation and ``--store memory://``.

A faithful model of etcd's semantics (history, compaction, leases, watches) that passes
the same contract suite as the durable ones. Everything is lost at the end of the
process. Faults are not made here: ``faulty`` wraps any store.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from cloudless.aio.clock import Clock
from cloudless.store.errors import StoreError
from cloudless.store.history import History
from cloudless.store.local import LocalStore
from cloudless.store.model import Bounds, Change, Model


class NoJournal:
    """Keeps nothing; answers in the loop's next round, so that a writer never starves others."""

    def write(self, changes: Sequence[Change], done: Callable[[StoreError | None], None]) -> None:
        asyncio.get_running_loop().call_soon(done, None)

    def size_bytes(self) -> int:
        return 0

    async def close(self) -> None:
        """Nothing to give back."""


@asynccontextmanager
async def open_memory(clock: Clock, *, bounds: Bounds | None = None) -> AsyncIterator[LocalStore]:
    """An empty store that lives as long as the block."""
    model = Model(History(), bounds or Bounds())
    async with LocalStore(model, NoJournal(), clock, identity="memory") as store:
        yield store
