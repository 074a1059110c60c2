"""The thread that owns the database of an embedded store.

``embedded`` starts it; ``local`` hands it one batch at a time and is called back on the
loop. One thread, because SQLite has one writer anyway and the loop must never wait for
a disk. The thread is a daemon: a process that ends without ``close`` loses only what
nobody was told is durable.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any, TypeVar

from cloudless.store.database import Contents, Database
from cloudless.store.datadir import DataDir
from cloudless.store.errors import StoreError, Unavailable
from cloudless.store.model import Change

log = logging.getLogger(__name__)

T = TypeVar("T")
Job = Callable[[], None]


class SqliteJournal:
    """A ``Journal`` in ``directory``; ``open`` comes first, ``close`` last."""

    def __init__(self, directory: DataDir) -> None:
        self._directory = directory
        self._loop = asyncio.get_running_loop()
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._database: Database | None = None
        self._thread = threading.Thread(target=self._work, name="store-journal", daemon=True)
        self._thread.start()

    async def open(self, identity: str) -> Contents:
        """Open the database and read it; ``identity`` names a new one. Raises ``StoreError``."""

        def run() -> Contents:
            self._database, contents = Database.open(self._directory.database, identity)
            return contents

        return await self._call(run)

    def write(self, changes: Sequence[Change], done: Callable[[StoreError | None], None]) -> None:
        database = self._database
        assert database is not None, "open it first"

        def run() -> None:
            error: StoreError | None = None
            try:
                database.write(changes)
            except StoreError as caught:
                error = caught
            except Exception as bug:
                log.exception("journal failed")
                error = Unavailable(f"journal failed: {bug!r}", outcome_unknown=True)
            self._answer(done, error)

        self._jobs.put(run)

    def size_bytes(self) -> int:
        return self._directory.size_bytes()

    async def close(self) -> None:
        """Close the database, if it got open, and end the thread; only once."""

        def run() -> None:
            if self._database is not None:
                self._database.close()

        try:
            await self._call(run)
        finally:
            self._jobs.put(None)

    async def _call(self, work: Callable[[], T]) -> T:
        future: asyncio.Future[T] = self._loop.create_future()

        def answer(value: T | None, error: BaseException | None) -> None:
            if future.cancelled():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(value)  # type: ignore[arg-type]

        def run() -> None:
            try:
                value = work()
            except Exception as error:
                self._answer(answer, None, error)
            else:
                self._answer(answer, value, None)

        self._jobs.put(run)
        return await future

    def _work(self) -> None:
        while True:
            job = self._jobs.get()
            if job is None:
                return
            job()

    def _answer(self, callback: Callable[..., None], *arguments: Any) -> None:
        # A loop that was closed under us has nobody left who could want the answer.
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(callback, *arguments)
