"""The store that lives in this process: a model, a journal, and what runs on time.

``memory`` and ``embedded`` are this class with two journals. Reads are answered from memory
and never wait. A write is evaluated at once, in order, then waits for the journal; the
ones that come meanwhile share the next journal write (group commit). Readers and
watchers see only what the journal holds.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple, Protocol, Self

from cloudless.aio.clock import Clock
from cloudless.aio.supervise import Supervisor
from cloudless.store.checks import check_key, check_read
from cloudless.store.cursor import Cursor
from cloudless.store.errors import InvalidRequest, NoSpace, StoreError, Unavailable
from cloudless.store.limits import (
    EXPIRY_RETRY_S,
    GROUP_COMMIT_BYTES,
    GROUP_COMMIT_WRITES,
    MAX_WAITING_WRITES,
    SHORTEST_SLEEP_S,
)
from cloudless.store.model import Change, LeaseState, Model
from cloudless.store.port import Compare, KeyValue, Lease, Op, Page, StoreStatus, TxnResult, WatchBatch


class Journal(Protocol):
    """Where changes become durable, one batch at a time."""

    def write(self, changes: Sequence[Change], done: Callable[[StoreError | None], None]) -> None:
        """Store all of ``changes`` or nothing, then call ``done`` on the running loop.

        ``NoSpace`` leaves the journal usable; any other error ends all writing.
        """
        ...

    def size_bytes(self) -> int:
        """Bytes on the disk; 0 without one."""
        ...

    async def close(self) -> None:
        """Give everything back; nothing is being written any more."""
        ...


class Waiting(NamedTuple):
    """A change on its way to the journal, and who waits for it (nobody for housekeeping)."""

    change: Change
    answer: asyncio.Future[None] | None


class LocalStore:
    """Implements ``Store``; open it with ``open_memory`` or ``open_embedded``."""

    def __init__(
        self, model: Model, journal: Journal, clock: Clock, *, identity: str, exclusive: bool = False
    ) -> None:
        self._model = model
        self._journal = journal
        self._clock = clock
        self._identity = identity
        self._exclusive = exclusive
        self._opened_revision = model.history.visible if exclusive else 0
        self._tasks = Supervisor("store")
        self._watches: set[Cursor] = set()
        self._waiting: deque[Waiting] = deque()
        self._writing: list[Waiting] = []
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed = False
        self._broken: StoreError | None = None
        self._alarm = ""

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        for state in self._model.leases.values():
            self._start_expiry(state)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
        await self._tasks.__aexit__(None, None, None)

    @property
    def exclusive(self) -> bool:
        return self._exclusive

    @property
    def opened_revision(self) -> int:
        return self._opened_revision

    # -- reading ---------------------------------------------------------------------

    async def get(self, key: str, *, revision: int | None = None) -> KeyValue | None:
        self._check_open()
        check_key(key)
        check_read(key, revision, start_after=None, limit=0)
        history = self._model.history
        return history.at(key, history.check(revision))

    async def range(
        self, prefix: str, *, start_after: str | None = None, limit: int = 0, revision: int | None = None
    ) -> Page:
        self._check_open()
        check_read(prefix, revision, start_after=start_after, limit=limit)
        history = self._model.history
        return history.scan(prefix, history.check(revision), start_after=start_after, limit=limit)

    @asynccontextmanager
    async def watch(self, prefix: str, *, start_revision: int) -> AsyncIterator[AsyncIterator[WatchBatch]]:
        self._check_open()
        check_read(prefix, start_revision, start_after=None, limit=0)
        cursor = Cursor(self._model.history, prefix, start_revision)
        self._watches.add(cursor)
        try:
            yield cursor
        finally:
            self._watches.discard(cursor)

    async def status(self) -> StoreStatus:
        size_bytes = self._journal.size_bytes() or self._model.history.total_bytes
        ready = not self._closed and self._broken is None
        return StoreStatus(self._model.history.visible, ready, size_bytes, self._alarm, self._identity)

    # -- writing ---------------------------------------------------------------------

    async def txn(
        self, compares: Sequence[Compare], then: Sequence[Op], otherwise: Sequence[Op] = ()
    ) -> TxnResult:
        self._check_writable()
        result, change = self._model.txn(compares, then, otherwise)
        await self._durable(change)
        return result

    async def compact(self, revision: int) -> None:
        self._check_writable()
        if revision < 1:
            raise InvalidRequest(f"revision {revision} does not exist, the first is 1")
        await self._durable(self._model.compact(revision))

    async def grant(self, ttl_s: float) -> Lease:
        self._check_writable()
        lease, change = self._model.grant(ttl_s, self._clock.monotonic())
        # Started first: a lease whose caller is cancelled meanwhile must expire all the same.
        self._start_expiry(self._model.leases[lease.id])
        await self._durable(change)
        return lease

    async def keep_alive(self, lease: Lease) -> None:
        self._check_open()
        self._model.keep_alive(lease.id, self._clock.monotonic())

    async def revoke(self, lease: Lease) -> None:
        self._check_writable()
        await self._durable(self._model.revoke(lease.id))
        await self._tasks.stop(_expiry_name(lease.id))

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            for cursor in self._watches:
                cursor.end(Unavailable("the store is closed"))
            await self._tasks.close()
            await self._idle.wait()
            await self._journal.close()

    # -- group commit ------------------------------------------------------------------

    async def _durable(self, change: Change) -> None:
        """Wait until the journal holds ``change`` and all it was evaluated on."""
        if not change.writes and not self._writing:
            self._model.settle(change)
            return
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(Waiting(change, answer))
        if not self._writing:
            self._write_next()
        await answer

    def _write_next(self) -> None:
        size_bytes = 0
        batch = self._writing
        while self._waiting and len(batch) < GROUP_COMMIT_WRITES and size_bytes < GROUP_COMMIT_BYTES:
            entry = self._waiting.popleft()
            size_bytes += sum(len(record.value) for record in entry.change.records)
            batch.append(entry)
        self._idle.clear()
        changes = [entry.change for entry in batch if entry.change.writes]
        if changes:
            self._journal.write(changes, self._written)
        else:
            self._written(None)

    def _written(self, error: StoreError | None) -> None:
        batch, self._writing = self._writing, []
        if error is None:
            self._settle(batch)
        else:
            self._fail(batch, error)
        if self._waiting:
            self._write_next()
        else:
            self._idle.set()

    def _settle(self, batch: Sequence[Waiting]) -> None:
        model = self._model
        before = model.history.visible
        self._alarm = ""
        for change, answer in batch:
            model.settle(change)
            if answer is not None and not answer.done():
                answer.set_result(None)
        if model.history.visible > before:
            for cursor in self._watches:
                cursor.wake()
        overdue = model.overdue_compaction()
        if overdue:
            self._waiting.append(Waiting(model.compact(overdue), None))

    def _fail(self, batch: Sequence[Waiting], error: StoreError) -> None:
        """Nothing of ``batch`` happened, so what was evaluated on top of it is void too."""
        self._model.rollback()
        self._alarm = str(error)
        if not isinstance(error, NoSpace):
            self._broken = error
        for _, answer in itertools.chain(batch, self._waiting):
            if answer is not None and not answer.done():
                answer.set_exception(_again(error))
        self._waiting.clear()

    def _check_open(self) -> None:
        if self._closed:
            raise Unavailable("the store is closed")

    def _check_writable(self) -> None:
        self._check_open()
        if self._broken is not None:
            raise Unavailable(f"the store takes no writes until it is opened again: {self._broken}")
        if len(self._waiting) >= MAX_WAITING_WRITES:
            raise Unavailable(f"{MAX_WAITING_WRITES} writes wait for the disk")

    # -- leases ------------------------------------------------------------------------

    def _start_expiry(self, state: LeaseState) -> None:
        self._tasks.start(_expiry_name(state.lease.id), self._expire(state))

    async def _expire(self, state: LeaseState) -> None:
        lease_id = state.lease.id
        while self._model.leases.get(lease_id) is state:
            remaining_s = state.deadline_s - self._clock.monotonic()
            if remaining_s > 0:
                await self._clock.sleep(max(remaining_s, SHORTEST_SLEEP_S))
                continue
            try:
                self._check_writable()
                await self._durable(self._model.revoke(lease_id))
            except (NoSpace, Unavailable):
                await self._clock.sleep(EXPIRY_RETRY_S)


def _expiry_name(lease_id: int) -> str:
    return f"lease-{lease_id:x}"


def _again(error: StoreError) -> StoreError:
    """The same error for another waiter, so that tracebacks do not pile up on one object."""
    if isinstance(error, Unavailable):
        return Unavailable(str(error), outcome_unknown=error.outcome_unknown)
    return NoSpace(str(error)) if isinstance(error, NoSpace) else error
