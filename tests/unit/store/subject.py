"""A store under test, and the few calls that most tests of this room make."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

from cloudless.aio.clock import Clock
from cloudless.store.embedded import open_embedded
from cloudless.store.local import LocalStore
from cloudless.store.model import Bounds
from cloudless.store.port import (
    Compare,
    Delete,
    DeletePrefix,
    Put,
    Store,
    WatchBatch,
)

DEADLINE_S = 20


@dataclass
class Subject:
    """A store, and a way to let its time pass."""

    store: Store
    pass_time: Callable[[float], Awaitable[None]]


def open_files(
    path: Path, clock: Clock, *, identity: str = "data", bounds: Bounds | None = None
) -> AbstractAsyncContextManager[LocalStore]:
    """An embedded store whose data, if new, gets this identity."""
    return open_embedded(path, clock, new_id=lambda: identity, bounds=bounds)


async def put(store: Store, key: str, value: bytes = b"", lease: int = 0) -> int:
    result = await store.txn((), [Put(key, value, lease)])
    assert result.succeeded
    return result.revision


async def delete(store: Store, *ops: Delete | DeletePrefix) -> int:
    return (await store.txn((), ops)).revision


async def keys(store: Store, prefix: str = "") -> list[str]:
    return [item.key for item in (await store.range(prefix)).items]


async def revision_of(store: Store) -> int:
    return (await store.range("none/", limit=1)).revision


async def holds(store: Store, *compares: Compare) -> bool:
    return (await store.txn(compares, ())).succeeded


async def take(batches: AsyncIterator[WatchBatch], count: int) -> list[WatchBatch]:
    """The next ``count`` batches with events."""
    found: list[WatchBatch] = []
    async with asyncio.timeout(DEADLINE_S):
        while len(found) < count:
            batch = await anext(batches)
            if batch.events:
                found.append(batch)
    return found


def short(batch: WatchBatch) -> tuple[int, list[tuple[str, str, bytes]]]:
    return batch.revision, [(e.kind.value, e.kv.key, e.kv.value) for e in batch.events]
