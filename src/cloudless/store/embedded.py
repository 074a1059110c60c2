"""The store of a one-node cluster: the memory model made durable by a SQLite file.

Reads come from memory, a write returns when it is fsynced, and only one process can have
the directory open. A restart finds every answered write; leases get their full time
again, for a holder may have lived on while the store was down.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from cloudless.aio.clock import Clock
from cloudless.store.datadir import DataDir
from cloudless.store.journal import SqliteJournal
from cloudless.store.local import LocalStore
from cloudless.store.model import Bounds, Model


@asynccontextmanager
async def open_embedded(
    path: Path, clock: Clock, *, new_id: Callable[[], str], bounds: Bounds | None = None
) -> AsyncIterator[LocalStore]:
    """The store in directory ``path``, made if it is not there; open as long as the block.

    ``new_id`` gives the identity of a new store's data, and of nothing else.
    Raises ``DataDirInUse``, ``Corrupted``, ``NoSpace``, ``OSError``.
    """
    directory = DataDir(path)
    try:
        journal = SqliteJournal(directory)
        try:
            contents = await journal.open(new_id())
        except BaseException:
            await journal.close()
            raise
        model = Model(contents.history, bounds or Bounds())
        model.adopt(contents.leases, contents.last_lease, clock.monotonic())
        async with LocalStore(model, journal, clock, identity=contents.identity, exclusive=True) as store:
            yield store
    finally:
        directory.release()
