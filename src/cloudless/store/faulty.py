"""Faults on purpose, around any store: for tests and simulation, never in production.

A call can fail before it does anything, or after it did everything (the write happened, the
caller sees ``Unavailable``): which one is decided by a function that sees each call, so
that a test can put a fault between any two calls. A watch can drop or repeat batches.
"""

from __future__ import annotations

import enum
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from cloudless.store.errors import Unavailable
from cloudless.store.port import Compare, KeyValue, Lease, Op, Page, Store, StoreStatus, TxnResult, WatchBatch


class Fault(enum.Enum):
    """What happens to one call."""

    NONE = "none"
    BEFORE = "before"  # nothing happened, and the caller knows
    AFTER = "after"  # everything happened, and the caller does not know


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a store: the ``index``-th since the start, from 0."""

    index: int
    name: str
    write: bool


Decide = Callable[[Call], Fault]
Mangle = Callable[[WatchBatch], Sequence[WatchBatch]]


@dataclass(frozen=True, slots=True)
class FaultAt:
    """Exactly one fault, at the call with this index: walk it over a whole operation."""

    index: int
    fault: Fault

    def __call__(self, call: Call) -> Fault:
        return self.fault if call.index == self.index else Fault.NONE


@dataclass(slots=True)
class RandomFaults:
    """Faults with these probabilities, reproducible by the seed of ``rng``."""

    rng: random.Random
    before: float = 0.0
    after: float = 0.0

    def __call__(self, call: Call) -> Fault:
        dice = self.rng.random()
        if dice < self.before:
            return Fault.BEFORE
        return Fault.AFTER if call.write and dice < self.before + self.after else Fault.NONE


@dataclass(slots=True)
class BuggyWatch:
    """Loses or repeats whole batches with these probabilities."""

    rng: random.Random
    drop: float = 0.0
    duplicate: float = 0.0

    def __call__(self, batch: WatchBatch) -> Sequence[WatchBatch]:
        dice = self.rng.random()
        if dice < self.drop:
            return ()
        return (batch, batch) if dice < self.drop + self.duplicate else (batch,)


def no_fault(_: Call) -> Fault:
    """Every call goes through."""
    return Fault.NONE


def faithful(batch: WatchBatch) -> Sequence[WatchBatch]:
    """Every batch arrives once."""
    return (batch,)


@dataclass(slots=True)
class FaultyStore:
    """Implements ``Store`` on another one; ``down`` makes every call fail at once."""

    store: Store
    decide: Decide = no_fault
    mangle: Mangle = faithful
    down: bool = False
    calls: list[Call] = field(default_factory=list)

    @property
    def exclusive(self) -> bool:
        return self.store.exclusive

    @property
    def opened_revision(self) -> int:
        return self.store.opened_revision

    async def get(self, key: str, *, revision: int | None = None) -> KeyValue | None:
        self._enter("get", write=False)
        return await self.store.get(key, revision=revision)

    async def range(
        self, prefix: str, *, start_after: str | None = None, limit: int = 0, revision: int | None = None
    ) -> Page:
        self._enter("range", write=False)
        return await self.store.range(prefix, start_after=start_after, limit=limit, revision=revision)

    async def txn(
        self, compares: Sequence[Compare], then: Sequence[Op], otherwise: Sequence[Op] = ()
    ) -> TxnResult:
        fault = self._enter("txn", write=True)
        result = await self.store.txn(compares, then, otherwise)
        _leave(fault)
        return result

    @asynccontextmanager
    async def watch(self, prefix: str, *, start_revision: int) -> AsyncIterator[AsyncIterator[WatchBatch]]:
        self._enter("watch", write=False)
        async with self.store.watch(prefix, start_revision=start_revision) as batches:
            yield _Mangled(batches, self.mangle)

    async def grant(self, ttl_s: float) -> Lease:
        fault = self._enter("grant", write=True)
        lease = await self.store.grant(ttl_s)
        _leave(fault)
        return lease

    async def keep_alive(self, lease: Lease) -> None:
        fault = self._enter("keep_alive", write=True)
        await self.store.keep_alive(lease)
        _leave(fault)

    async def revoke(self, lease: Lease) -> None:
        fault = self._enter("revoke", write=True)
        await self.store.revoke(lease)
        _leave(fault)

    async def compact(self, revision: int) -> None:
        fault = self._enter("compact", write=True)
        await self.store.compact(revision)
        _leave(fault)

    async def status(self) -> StoreStatus:
        if self.down:
            return StoreStatus(0, False, 0, "down on purpose")
        return await self.store.status()

    async def close(self) -> None:
        await self.store.close()

    def _enter(self, name: str, *, write: bool) -> Fault:
        call = Call(len(self.calls), name, write)
        self.calls.append(call)
        fault = Fault.BEFORE if self.down else self.decide(call)
        if fault is Fault.BEFORE:
            raise Unavailable("unavailable on purpose")
        return fault


class _Mangled:
    """An iterator that keeps its place when it is cancelled, unlike a generator."""

    def __init__(self, batches: AsyncIterator[WatchBatch], mangle: Mangle) -> None:
        self._batches = batches
        self._mangle = mangle
        self._ready: list[WatchBatch] = []

    def __aiter__(self) -> _Mangled:
        return self

    async def __anext__(self) -> WatchBatch:
        while not self._ready:
            self._ready += self._mangle(await anext(self._batches))
        return self._ready.pop(0)


def _leave(fault: Fault) -> None:
    if fault is Fault.AFTER:
        raise Unavailable("unavailable on purpose, after it was done", outcome_unknown=True)
