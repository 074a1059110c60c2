from __future__ import annotations

import asyncio
import contextlib

import pytest
from fake_coordinator import NOW, FakeCoordinator, Type

import cloudless
from cloudless import api


def workload(name: str = "web", **fields):
    return cloudless.Workload(name, **{"image": "web:1.4"} | fields)


async def take(stream, count: int) -> list:
    async with asyncio.timeout(10):
        return [await anext(stream) for _ in range(count)]


def told(changes) -> list:
    return [(change.type, change.workload.name, change.workload.generation) for change in changes]


async def test_objects_first_then_changes(client):
    await client.create(workload("a"))
    await client.create(workload("b"))
    async with client.watch() as changes:
        assert told(await take(changes, 2)) == [("ADDED", "a", 1), ("ADDED", "b", 1)]
        await client.scale("a", 2)
        await client.delete("b")
        assert told(await take(changes, 3)) == [
            ("MODIFIED", "a", 2),
            ("MODIFIED", "b", 1),
            ("DELETED", "b", 1),
        ]


async def test_one_name_and_a_selector(client):
    await client.create(workload("a", labels={"app": "x"}))
    async with client.watch(name="b") as one, client.watch(selector="app=x") as chosen:
        await client.create(workload("b"))
        assert told(await take(one, 1)) == [("ADDED", "b", 1)]
        assert told(await take(chosen, 1)) == [("ADDED", "a", 1)]


async def test_goes_on_after_a_restart_of_the_server_without_loss_or_repeat():
    fake = FakeCoordinator()
    async with contextlib.AsyncExitStack() as first:
        address = await first.enter_async_context(fake.serving())
        async with cloudless.connect(address, patience_s=5.0) as client:
            await client.create(workload())
            async with client.watch() as changes:
                assert told(await take(changes, 1)) == [("ADDED", "web", 1)]
                await first.aclose()
                fake.set_status("web", api.WorkloadStatus(observed_generation=1))  # while nobody listens
                port = int(address.rpartition(":")[2])
                async with fake.serving(port):
                    await client.scale("web", 5)
                    seen = await take(changes, 2)
    assert told(seen) == [("MODIFIED", "web", 1), ("MODIFIED", "web", 2)]
    assert seen[0].workload.status.available_replicas == 0
    assert [request.resource_version for request in fake.asked("watch")][-1] != ""


async def test_lists_again_when_the_version_is_too_old():
    fake = FakeCoordinator()
    async with contextlib.AsyncExitStack() as first:
        address = await first.enter_async_context(fake.serving())
        async with cloudless.connect(address, patience_s=5.0) as client:
            for name in ("a", "b", "c"):
                await client.create(workload(name))
            async with client.watch() as changes:
                await take(changes, 3)
                await first.aclose()
                fake.put(fake.workloads["default", "b"], Type.DELETED)
                fake.set_status("c", api.WorkloadStatus(observed_generation=1))
                fake.forget_history()
                async with fake.serving(int(address.rpartition(":")[2])):
                    seen = await take(changes, 2)
                    await client.create(workload("d"))
                    seen += await take(changes, 1)
    assert told(seen) == [("DELETED", "b", 1), ("MODIFIED", "c", 1), ("ADDED", "d", 1)]


async def test_a_first_connection_that_fails_is_an_error():
    async with cloudless.connect("127.0.0.1:1", patience_s=0.1) as client:
        async with client.watch() as changes:
            with pytest.raises(cloudless.Unavailable):
                await take(changes, 1)
        async with client.watch_events() as events:
            with pytest.raises(cloudless.Unavailable):
                await take(events, 1)


async def test_events_are_followed_over_a_restart():
    fake = FakeCoordinator()

    def event(number: int) -> api.Event:
        return api.Event(id=f"e{number}", at=NOW, reason=f"R{number}", kind="workload", name="web")

    async with contextlib.AsyncExitStack() as first:
        address = await first.enter_async_context(fake.serving())
        async with cloudless.connect(address) as client:
            fake.happen(event(1))
            listed = await client.events()
            async with client.watch_events(since=listed.resource_version) as events:
                fake.happen(event(2))
                assert [item.reason for item in await take(events, 1)] == ["R2"]
                await first.aclose()
                fake.happen(event(3))
                async with fake.serving(int(address.rpartition(":")[2])):
                    fake.happen(event(4))
                    assert [item.reason for item in await take(events, 2)] == ["R3", "R4"]


async def test_using_it_without_a_block_is_refused(client):
    with pytest.raises(RuntimeError, match="async with"):
        await anext(client.watch())
