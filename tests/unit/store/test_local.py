"""Group commit: what the journal has not stored, nobody sees; what it refuses, never was."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

import pytest
from tests.unit.store.subject import delete, keys, put, revision_of, take

from cloudless.aio.clock import ManualClock
from cloudless.store.errors import (
    Compacted,
    LeaseExpired,
    NoSpace,
    StoreError,
    Unavailable,
    WatchOverrun,
)
from cloudless.store.history import History
from cloudless.store.local import LocalStore
from cloudless.store.memory import open_memory
from cloudless.store.model import Bounds, Change, Model
from cloudless.store.port import Compare, Delete, Put


class SlowJournal:
    """Holds every batch until the test lets it through or refuses it."""

    def __init__(self) -> None:
        self.batches: list[list[Change]] = []
        self._done: Callable[[StoreError | None], None] | None = None

    def write(self, changes: Sequence[Change], done: Callable[[StoreError | None], None]) -> None:
        assert self._done is None, "one batch at a time"
        self.batches.append(list(changes))
        self._done = done

    def answer(self, error: StoreError | None = None) -> None:
        done, self._done = self._done, None
        assert done is not None
        done(error)

    @property
    def busy(self) -> bool:
        return self._done is not None

    def size_bytes(self) -> int:
        return 0

    async def close(self) -> None:
        assert self._done is None


@pytest.fixture
def journal() -> SlowJournal:
    return SlowJournal()


@pytest.fixture
async def store(journal: SlowJournal, clock: ManualClock) -> AsyncIterator[LocalStore]:
    async with LocalStore(Model(History(), Bounds()), journal, clock, identity="test") as store:
        yield store
        while journal.busy:
            journal.answer()


async def started(*writes: asyncio.Future[int]) -> None:
    """Let the writes run until they wait for the journal."""
    for _ in range(5):
        await asyncio.sleep(0)
    assert not any(write.done() for write in writes)


async def test_writers_share_a_batch(store: LocalStore, journal: SlowJournal) -> None:
    writes = [asyncio.ensure_future(put(store, f"k{n}")) for n in range(10)]
    await started(*writes)
    journal.answer()
    journal.answer()
    assert await asyncio.gather(*writes) == list(range(2, 12))
    assert [len(batch) for batch in journal.batches] == [1, 9]


async def test_nobody_sees_what_is_not_durable(store: LocalStore, journal: SlowJournal) -> None:
    async with store.watch("", start_revision=2) as batches:
        write = asyncio.ensure_future(put(store, "k", b"1"))
        await started(write)
        assert await store.get("k") is None
        assert (await store.range("")).revision == 1
        watching = asyncio.ensure_future(anext(batches))
        loser = asyncio.ensure_future(create(store, "k"))
        await started(watching, loser)
        journal.answer()
        assert await write == 2
        assert (await watching).revision == 2
        assert await store.get("k") is not None
    journal_batches = len(journal.batches)
    assert await loser is False
    assert journal_batches == len(journal.batches), "a failed compare writes nothing"


async def create(store: LocalStore, key: str) -> bool:
    return (await store.txn([Compare.absent(key)], [Put(key, b"")])).succeeded


async def test_a_refused_batch_never_was(store: LocalStore, journal: SlowJournal) -> None:
    done = asyncio.ensure_future(put(store, "k", b"1"))
    await started(done)
    journal.answer()
    await done
    first = asyncio.ensure_future(put(store, "k", b"2"))
    second = asyncio.ensure_future(put(store, "new", b"3"))
    third = asyncio.ensure_future(delete(store, Delete("k")))
    reader = asyncio.ensure_future(create(store, "new"))
    granted = asyncio.ensure_future(store.grant(10))
    await started(first, second, third, reader)
    journal.answer(NoSpace("full"))
    for failed in (first, second, third, reader, granted):
        with pytest.raises(NoSpace):
            await failed
    assert await keys(store) == ["k"]
    assert await revision_of(store) == 2
    assert (await store.status()).alarm == "full"
    again = asyncio.ensure_future(put(store, "k", b"4"))
    await started(again)
    journal.answer()
    assert await again == 3
    found = await store.get("k")
    assert found is not None
    assert (found.value, found.version, found.create_revision) == (b"4", 2, 2)
    assert (await store.status()).alarm == ""


async def test_a_refused_revocation_leaves_the_lease(store: LocalStore, journal: SlowJournal) -> None:
    granted = asyncio.ensure_future(store.grant(10))
    await asyncio.sleep(0)
    journal.answer()
    lease = await granted
    write = asyncio.ensure_future(put(store, "k", b"", lease.id))
    await started(write)
    journal.answer()
    await write
    revoked = asyncio.ensure_future(store.revoke(lease))
    await asyncio.sleep(0)
    with pytest.raises(LeaseExpired):
        await store.keep_alive(lease)
    journal.answer(NoSpace("full"))
    with pytest.raises(NoSpace):
        await revoked
    await store.keep_alive(lease)
    again = asyncio.ensure_future(store.revoke(lease))
    await asyncio.sleep(0)
    journal.answer()
    await again
    assert await keys(store) == []


async def test_after_an_unknown_outcome_nothing_is_written(store: LocalStore, journal: SlowJournal) -> None:
    write = asyncio.ensure_future(put(store, "k"))
    await started(write)
    journal.answer(Unavailable("fsync failed", outcome_unknown=True))
    with pytest.raises(Unavailable) as caught:
        await write
    assert caught.value.outcome_unknown
    with pytest.raises(Unavailable, match="fsync failed"):
        await put(store, "k")
    assert await keys(store) == []
    status = await store.status()
    assert not status.ready
    assert "fsync failed" in status.alarm


async def test_a_cancelled_writer_does_not_disturb_others(store: LocalStore, journal: SlowJournal) -> None:
    first = asyncio.ensure_future(put(store, "a"))
    second = asyncio.ensure_future(put(store, "b"))
    await started(first, second)
    first.cancel()
    await asyncio.sleep(0)
    journal.answer()
    journal.answer()
    assert await second == 3
    assert await keys(store) == ["a", "b"]


async def test_a_slow_watcher_is_overrun_and_costs_nothing(clock: ManualClock) -> None:
    async with open_memory(clock, bounds=Bounds(history_revisions=100)) as store:
        async with store.watch("", start_revision=2) as batches:
            await put(store, "k")
            await take(batches, 1)
            for _ in range(1000):
                await put(store, "k")
            with pytest.raises(WatchOverrun):
                await take(batches, 1)
        async with store.watch("", start_revision=2) as batches:
            with pytest.raises(Compacted):
                await take(batches, 1)


async def test_a_watcher_of_a_quiet_prefix_gets_bookmarks(clock: ManualClock) -> None:
    async with open_memory(clock) as store, store.watch("quiet/", start_revision=2) as batches:
        for _ in range(500):
            last = await put(store, "loud")
        bookmark = await anext(batches)
    assert bookmark.events == ()
    assert bookmark.revision == last


async def test_a_lease_is_over_at_its_time_not_when_its_keys_are_gone(clock: ManualClock) -> None:
    async with open_memory(clock) as store:
        lease = await store.grant(10)
        await put(store, "k", b"", lease.id)
        clock.advance(10)
        with pytest.raises(LeaseExpired):
            await store.keep_alive(lease)
        assert await keys(store) == ["k"], "nobody had the time to delete it yet"


async def test_a_full_store_takes_deletes_only(clock: ManualClock) -> None:
    async with open_memory(clock, bounds=Bounds(store_bytes=10_000)) as store:
        with pytest.raises(NoSpace):
            for number in range(100):
                await put(store, f"k/{number}", bytes(1000))
        before = await store.range("")
        assert len(before.items) > 5
        assert (await store.txn((), [Delete(before.items[0].key)])).responses == (1,)
        await store.txn((), [Delete(item.key) for item in before.items])
        await put(store, "k", bytes(1000))
