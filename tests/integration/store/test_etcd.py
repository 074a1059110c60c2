"""What happens to a store on etcd when etcd goes away, comes back, fills up or is replaced."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.integration.store.etcd_server import EtcdServer, cluster
from tests.integration.store.proxy import Proxy
from tests.unit.store.subject import DEADLINE_S, delete, keys, put, revision_of, take

from cloudless.aio.clock import SystemClock
from cloudless.store.election import lead
from cloudless.store.errors import Compacted, NoSpace, Relist, Rewound, Unavailable
from cloudless.store.port import Delete, Put, Store, WatchBatch
from cloudless.store.url import open_store

CLOCK = SystemClock()


@pytest.fixture
async def store(server: EtcdServer) -> AsyncIterator[Store]:
    async with open_store(f"etcd://{server.address}/test", CLOCK, new_id=str) as store:
        yield store


async def write_ledger(store: Store, count: int, answered: list[tuple[int, int]], unsure: set[int]) -> None:
    """Write 0..count-1 in turn; notes (number, revision) of answers, and what nobody answered."""
    for number in range(count):
        try:
            answered.append((number, await put(store, "ledger", b"%d" % number)))
        except Unavailable as error:
            if error.outcome_unknown:
                unsure.add(number)


def check_ledger(seen: list[WatchBatch], answered: list[tuple[int, int]], unsure: set[int]) -> None:
    """Every answered write was seen once at its revision; of the others at most once."""
    assert [batch.revision for batch in seen] == sorted({batch.revision for batch in seen})
    told = {(int(event.kv.value), batch.revision) for batch in seen for event in batch.events}
    assert set(answered) <= told
    numbers = [number for number, _ in told]
    assert len(numbers) == len(set(numbers))
    assert set(numbers) - {number for number, _ in answered} <= unsure


async def test_nothing_is_lost_or_doubled_over_kills(server: EtcdServer, store: Store) -> None:
    answered: list[tuple[int, int]] = []
    unsure: set[int] = set()
    start = await revision_of(store) + 1
    rng = random.Random()
    async with asyncio.timeout(180), store.watch("ledger", start_revision=start) as batches:
        writing = asyncio.ensure_future(write_ledger(store, 1500, answered, unsure))
        for _ in range(3):
            await asyncio.sleep(rng.uniform(0.05, 0.2))
            await server.restart()
        await writing
        end = await put(store, "ledger/end", b"-1")
        seen: list[WatchBatch] = []
        while not seen or seen[-1].revision < end:
            seen += await take(batches, 1)
    assert len(answered) > 1000
    check_ledger(seen[:-1], answered, unsure)


async def test_a_cut_off_watch_goes_on_where_it_was(server: EtcdServer, store: Store) -> None:
    async with (
        Proxy(server.client_port) as proxy,
        open_store(f"etcd://{proxy.address}/test", CLOCK, new_id=str) as far,
        far.watch("", start_revision=await revision_of(store) + 1) as batches,
    ):
        for round_number in range(3):
            first = await put(store, "k", b"%d" % round_number)
            assert [batch.revision for batch in await take(batches, 1)] == [first]
            proxy.cut()
            for _ in range(10):
                last = await put(store, "k")
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await anext(batches)
            proxy.heal()
            assert [batch.revision for batch in await take(batches, 10)] == list(range(first + 1, last + 1))


async def test_a_watch_cut_off_too_long_must_list_again(server: EtcdServer, store: Store) -> None:
    async with (
        Proxy(server.client_port) as proxy,
        open_store(f"etcd://{proxy.address}/test", CLOCK, new_id=str) as far,
    ):
        start = await put(store, "k")
        async with far.watch("", start_revision=start) as batches:
            await take(batches, 1)
            proxy.cut()
            await put(store, "gone")
            last = await delete(store, Delete("gone"), Delete("k"))
            await store.compact(last)
            proxy.heal()
            with pytest.raises(Compacted) as caught:
                await take(batches, 1)
            assert caught.value.oldest == last
        assert await keys(far) == []


async def test_a_write_without_an_answer_is_not_repeated(server: EtcdServer, store: Store) -> None:
    async with (
        Proxy(server.client_port) as proxy,
        open_store(f"etcd://{proxy.address}/test", CLOCK, new_id=str) as far,
    ):
        await put(far, "k", b"1")
        proxy.mute = True
        with pytest.raises(Unavailable) as caught:
            await put(far, "k", b"2")
        assert caught.value.outcome_unknown
        proxy.cut()
        proxy.mute = False
        proxy.heal()
        found = await far.get("k")
        assert found is not None
        assert (found.value, found.version) == (b"2", 2)


async def test_an_emptied_etcd_is_noticed(server: EtcdServer, store: Store) -> None:
    for _ in range(10):
        last = await put(store, "k")
    async with store.watch("", start_revision=last) as batches:
        await take(batches, 1)
        before = await store.status()
        await asyncio.to_thread(server.kill)
        server.wipe()
        await asyncio.to_thread(server.start)
        with pytest.raises(Rewound) as caught:
            await take(batches, 1)
        assert isinstance(caught.value, Relist)
    assert before.identity == (await store.status()).identity, "the same members make the same cluster id"
    assert await keys(store) == []


async def test_a_frozen_etcd_is_unavailable_not_a_hang(server: EtcdServer, store: Store) -> None:
    await put(store, "k", b"1")
    async with store.watch("", start_revision=await revision_of(store) + 1) as batches:
        server.pause()
        async with asyncio.timeout(DEADLINE_S):
            with pytest.raises(Unavailable) as caught:
                await put(store, "k", b"2")
            assert caught.value.outcome_unknown
            with pytest.raises(Unavailable) as caught:
                await store.get("k")
            assert not caught.value.outcome_unknown
            assert not (await store.status()).ready
        server.resume()
        found = await store.get("k")
        assert found is not None
        last = await put(store, "k", b"3")
        while (await take(batches, 1))[0].revision < last:
            pass


async def test_a_stopped_etcd_is_unavailable_and_comes_back(server: EtcdServer, store: Store) -> None:
    await put(store, "k")
    await asyncio.to_thread(server.stop)
    assert not (await store.status()).ready
    # Calls wait for some seconds only, of which etcd needs some to start.
    writing = asyncio.ensure_future(put(store, "k"))
    reading = asyncio.ensure_future(store.get("k"))
    await asyncio.to_thread(server.start)
    assert await reading is not None
    [outcome] = await asyncio.gather(writing, return_exceptions=True)
    unknown = isinstance(outcome, Unavailable) and outcome.outcome_unknown
    assert isinstance(outcome, int) or unknown, "what was certainly not sent is tried again"


async def test_a_full_etcd_takes_deletes_and_reads(tmp_path: Path) -> None:
    server = EtcdServer(tmp_path, f"--quota-backend-bytes={4 * 1024 * 1024}")
    server.start()
    try:
        async with open_store(f"etcd://{server.address}", CLOCK, new_id=str) as store:
            with pytest.raises(NoSpace):
                for number in range(200):
                    await put(store, f"k/{number}", bytes(100_000))
            status = await store.status()
            assert status.alarm == "NOSPACE"
            assert status.ready
            found = await keys(store)
            assert found
            await delete(store, Delete(found[0]))
            assert await keys(store) == found[1:]
            with pytest.raises(NoSpace):
                await store.grant(10)
    finally:
        server.stop()


async def test_the_leader_of_a_cluster_dies(tmp_path: Path) -> None:
    servers = cluster(tmp_path, 3)
    await asyncio.gather(*(asyncio.to_thread(server.start) for server in servers))
    answered: list[tuple[int, int]] = []
    unsure: set[int] = set()
    addresses = ",".join(server.address for server in servers)
    try:
        async with (
            asyncio.timeout(180),
            open_store(f"etcd://{addresses}/test", CLOCK, new_id=str) as store,
            lead(store, CLOCK, key="leader", candidate=b"one", ttl_s=8) as leadership,
        ):
            start = await revision_of(store) + 1
            async with store.watch("ledger", start_revision=start) as batches:
                writing = asyncio.ensure_future(write_ledger(store, 1000, answered, unsure))
                for server in servers:
                    await asyncio.sleep(0.2)
                    await server.restart()
                    await store.get("k")
                await writing
                end = await put(store, "ledger/end", b"-1")
                seen: list[WatchBatch] = []
                while not seen or seen[-1].revision < end:
                    seen += await take(batches, 1)
            assert leadership.holds, "etcd gives leases their time again after a change of leader"
            assert (await leadership.txn([], [Put("k", b"")])).succeeded
    finally:
        await asyncio.gather(*(asyncio.to_thread(server.kill) for server in servers))
    assert len(answered) > 500
    check_ledger(seen[:-1], answered, unsure)
