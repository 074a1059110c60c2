"""What every store promises about watches: everything, in order, once."""

from __future__ import annotations

import asyncio

import pytest
from tests.unit.store.subject import DEADLINE_S, Subject, delete, keys, put, revision_of, short, take

from cloudless.store.errors import Compacted
from cloudless.store.limits import MAX_TXN_OPS
from cloudless.store.port import (
    Delete,
    DeletePrefix,
    EventKind,
    KeyValue,
    Put,
    WatchBatch,
)


class WatchContract:
    """Watches: everything, in order, once."""

    async def test_changes_arrive_in_order_one_batch_for_a_revision(self, subject: Subject) -> None:
        store = subject.store
        start = await revision_of(store)
        async with store.watch("w/", start_revision=start + 1) as batches:
            await put(store, "w/a", b"1")
            await put(store, "other", b"1")
            await store.txn((), [Put("w/b", b"2"), Put("other", b"2"), Delete("w/a"), Put("w/c", b"3")])
            await delete(store, DeletePrefix(""))
            seen = await take(batches, 3)
        assert [short(batch) for batch in seen] == [
            (start + 1, [("put", "w/a", b"1")]),
            (start + 3, [("put", "w/b", b"2"), ("delete", "w/a", b""), ("put", "w/c", b"3")]),
            (start + 4, [("delete", "w/b", b""), ("delete", "w/c", b"")]),
        ]
        event = seen[1].events[1]
        assert event.kv == KeyValue("w/a", b"", 0, start + 3, 0)

    async def test_a_watch_from_an_old_revision_replays(self, subject: Subject) -> None:
        store = subject.store
        start = await revision_of(store)
        for number in range(50):
            await put(store, f"w/{number % 7}", b"%d" % number)
        async with store.watch("w/", start_revision=start + 11) as batches:
            late = asyncio.ensure_future(put(store, "w/late", b"50"))
            seen = await take(batches, 41)
            await late
        assert [batch.revision for batch in seen] == list(range(start + 11, start + 52))
        assert [batch.events[0].kv.value for batch in seen] == [b"%d" % n for n in range(10, 51)]

    async def test_list_then_watch_misses_nothing(self, subject: Subject) -> None:
        store = subject.store

        midway = asyncio.Event()

        async def write() -> None:
            for number in range(100):
                if number == 40:
                    midway.set()
                await put(store, f"w/{number % 10}", b"%d" % number)
                if number % 3 == 0:
                    await delete(store, Delete(f"w/{(number + 5) % 10}"))
            await put(store, "w/end", b"")

        writing = asyncio.ensure_future(write())
        await midway.wait()
        page = await store.range("w/")
        state = {kv.key: kv for kv in page.items}
        start = page.revision + 1
        async with asyncio.timeout(DEADLINE_S), store.watch("w/", start_revision=start) as batches:
            while "w/end" not in state:
                for event in (await anext(batches)).events:
                    if event.kind is EventKind.PUT:
                        state[event.kv.key] = event.kv
                    else:
                        del state[event.kv.key]
        await writing
        assert sorted(state) == await keys(store, "w/")
        assert tuple(state[key] for key in sorted(state)) == (await store.range("w/")).items

    async def test_a_watch_waits_for_a_future_revision(self, subject: Subject) -> None:
        store = subject.store
        start = await revision_of(store)
        async with store.watch("", start_revision=start + 3) as batches:
            for number in range(4):
                await put(store, "k", b"%d" % number)
            seen = await take(batches, 2)
        assert [short(batch)[0] for batch in seen] == [start + 3, start + 4]

    async def test_watches_see_the_same(self, subject: Subject) -> None:
        store = subject.store
        start = await revision_of(store) + 1

        async def follow() -> list[WatchBatch]:
            async with store.watch("", start_revision=start) as batches:
                return await take(batches, 30)

        async with asyncio.TaskGroup() as tasks:
            watching = [tasks.create_task(follow()) for _ in range(5)]
            for number in range(30):
                await put(store, "k", b"%d" % number)
        assert all(one.result() == watching[0].result() for one in watching)

    async def test_a_watch_before_the_compacted_revision_is_refused(self, subject: Subject) -> None:
        store = subject.store
        start = await revision_of(store)
        for number in range(5):
            await put(store, "k", b"%d" % number)
        await store.compact(start + 3)
        for old in (start + 1, start + 3):
            async with asyncio.timeout(DEADLINE_S), store.watch("", start_revision=old) as batches:
                with pytest.raises(Compacted) as caught:
                    await anext(batches)
            assert caught.value.oldest == start + 3
        async with store.watch("", start_revision=start + 4) as batches:
            assert [batch.revision for batch in await take(batches, 2)] == [start + 4, start + 5]

    async def test_after_compaction_one_lists_and_goes_on(self, subject: Subject) -> None:
        store = subject.store
        await put(store, "k", b"1")
        await delete(store, Delete("k"))
        await put(store, "l", b"1")
        await store.compact(await revision_of(store))
        page = await store.range("")
        async with store.watch("", start_revision=page.revision + 1) as batches:
            await delete(store, Delete("l"))
            [batch] = await take(batches, 1)
        assert short(batch) == (page.revision + 1, [("delete", "l", b"")])

    async def test_leaving_a_watch_leaves_the_store_alone(self, subject: Subject) -> None:
        store = subject.store
        start = await revision_of(store) + 1
        async with store.watch("", start_revision=start) as batches:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await take(batches, 1)
            await put(store, "k")
            assert len(await take(batches, 1)) == 1  # a cancelled wait loses nothing
        await put(store, "k")
        async with store.watch("", start_revision=start) as batches:
            assert len(await take(batches, 2)) == 2

    async def test_a_large_transaction_is_still_one_batch(self, subject: Subject) -> None:
        store = subject.store
        start = await revision_of(store) + 1
        async with store.watch("big/", start_revision=start) as batches:
            await store.txn((), [Put(f"big/{n:03}", bytes(10_000)) for n in range(MAX_TXN_OPS)])
            await delete(store, DeletePrefix("big/"))
            created, deleted = await take(batches, 2)
        assert len(created.events) == MAX_TXN_OPS
        assert len(deleted.events) == MAX_TXN_OPS
