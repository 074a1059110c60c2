"""The watch cache: what it misses it repairs, and it knows when its place in history is lost."""

from __future__ import annotations

import asyncio
import random

import pytest
from tests.unit.coordinator.world import World, open_world

from cloudless import api
from cloudless.coordinator.state import keys
from cloudless.coordinator.state.cache import WatchCache
from cloudless.coordinator.state.changes import Changes
from cloudless.coordinator.state.codec import Codec
from cloudless.coordinator.state.facts import Facts
from cloudless.domain.errors import Unavailable
from cloudless.store.faulty import BuggyWatch
from cloudless.store.port import Delete, Put


def assert_same(world: World, fresh: Facts) -> None:
    """The cache holds what a fresh list says."""
    facts = world.coordinator.cache.facts
    assert facts.mods == fresh.mods
    assert facts.cluster.workloads == fresh.cluster.workloads
    assert facts.cluster.replicas == fresh.cluster.replicas
    assert facts.cluster.observations == fresh.cluster.observations
    for workload_id in facts.cluster.workloads:
        assert facts.cluster.statuses.get(workload_id) == fresh.cluster.statuses.get(workload_id)
        assert facts.cluster.revisions.get(workload_id) == fresh.cluster.revisions.get(workload_id)
    assert facts.cluster.nodes == fresh.cluster.nodes
    assert facts.names == fresh.names
    assert facts.event_count == fresh.event_count


async def listed(world: World) -> Facts:
    fresh, changes = Facts(Codec()), Changes(0)
    for prefix in keys.CACHED:
        for kv in (await world.store.range(prefix)).items:
            fresh.put(kv, changes)
    return fresh


async def test_the_cache_is_the_store(world: World) -> None:
    for name, replicas in (("one", 3), ("two", 2)):
        await world.create(name, replicas, labels={"app": name})
        await world.until_ready(name, replicas)
    await world.scale("one", 1)
    await world.delete("two")
    await world.until_gone("two")
    await world.until_ready("one", 1)
    await world.settle()
    assert_same(world, await listed(world))


@pytest.mark.parametrize("seed", range(5))
async def test_lost_and_repeated_changes_are_repaired(seed: int) -> None:
    async with open_world() as world:
        await world.start()
        world.faulty.mangle = BuggyWatch(random.Random(seed), drop=0.3, duplicate=0.3)
        await world.stop()
        await world.start()
        world.faulty.mangle = BuggyWatch(random.Random(seed), drop=0.2, duplicate=0.3)
        cache = world.coordinator.cache
        for number in range(20):
            key = keys.workload("default", f"w{number % 7}")
            if number % 3 == 2:
                await world.store.txn([], [Delete(key)])
            else:
                await world.store.txn([], [Put(key, await record_bytes(world, number))])
        world.faulty.mangle = lambda batch: (batch,)
        await world.create("last", 0)
        await world.settle()
        await cache.compare()
        await world.settle()
        assert_same(world, await listed(world))


async def record_bytes(world: World, number: int) -> bytes:
    from cloudless.domain.workload import WorkloadRecord, WorkloadSpec

    now = world.clock.now()
    record = WorkloadRecord(
        id=f"id{number % 7}",
        namespace="default",
        name=f"w{number % 7}",
        spec=WorkloadSpec(image="a", replicas=0),
        generation=number + 1,
        created_at=now,
        updated_at=now,
    )
    return record.model_dump_json().encode()


async def test_a_compare_finds_nothing_wrong_in_a_faithful_watch(world: World) -> None:
    await world.create("web", 2)
    await world.until_ready("web", 2)
    assert await world.coordinator.cache.compare() == 0
    await world.pass_time(1000)
    assert world.coordinator.cache.repairs == 0


async def test_a_compacted_watch_lists_again(bare: World) -> None:
    await bare.create("one", 0)
    await bare.settle()
    await bare.stop()
    cache = WatchCache(bare.store, Codec(), bare.clock)
    task = asyncio.ensure_future(cache.run())
    await cache.wait_filled()
    task.cancel()
    await asyncio.wait({task})
    await bare.start()
    await bare.create("two", 0)
    await bare.delete("one")
    await bare.until_gone("one")
    await bare.store.compact(bare.coordinator.cache.revision)
    seen: list[Changes] = []
    with cache.subscribed(seen.append):
        task = asyncio.ensure_future(cache.run())
        await bare.until(lambda: bool(seen))
    assert [name for _, name in cache.facts.names] == ["two"]
    assert [record.name for record in seen[0].deleted.values()] == ["one"]
    task.cancel()
    await asyncio.wait({task})


async def test_waiting_for_a_revision_has_a_deadline(bare: World) -> None:
    with pytest.raises(Unavailable, match="has not arrived"):
        await bare.coordinator.cache.wait_for(10**9, timeout_s=3)


async def test_an_unreadable_record_keeps_the_last_readable_one(bare: World) -> None:
    created = await bare.create("web", 0)
    await bare.store.txn([], [Put(keys.workload("default", "web"), b"{broken")])
    await bare.settle()
    assert (await bare.get()).id == created.id
    body = (await bare.coordinator.health.health()).body
    assert body["cache"]["unreadable"] == 1


async def test_foreign_keys_are_ignored(bare: World) -> None:
    for key in ("/cloudless/v1/other/x", "/cloudless/v1/workloads/a", "/cloudless/v1/workloads/a/b/c", "/x"):
        await bare.store.txn([], [Put(key, b"?")])
    await bare.settle()
    assert not bare.cluster.workloads
    assert not bare.coordinator.cache.facts.unreadable


async def test_answers_are_encoded_once_for_each_change(world: World) -> None:
    await world.create("web", 1)
    await world.until_ready()
    await world.settle()
    views = world.coordinator.service._context.views
    await world.get()
    before = views.encodings
    for _ in range(5):
        await world.get()
        await world.call("list_workloads", api.ListWorkloadsRequest())
    assert views.encodings == before
    world.agents["n1"].crash(next(iter(world.agents["n1"].observed)))
    await world.settle()
    await world.get()
    assert views.encodings == before + 1


async def test_the_encoded_cache_is_bounded(bare: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from cloudless.coordinator.services import views as module

    monkeypatch.setattr(module, "ENCODED_CACHE_BYTES", 3000)
    views = bare.coordinator.service._context.views
    for number in range(12):
        await bare.create(f"w{number}", 0)
    await bare.settle()
    answer = await bare.call("list_workloads", api.ListWorkloadsRequest())
    assert len(answer.workloads) == 12
    assert 0 < views._bytes <= 3000
    assert views._bytes == sum(kept.size_bytes for kept in views._kept.values())
