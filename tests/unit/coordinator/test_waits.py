"""How long a wait of the SDK lasts that was given no limit: against the real coordinator, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Self

import pytest
from tests.unit.coordinator.steering import P, V, order, running, until, update
from tests.unit.coordinator.world import World

from cloudless import api
from cloudless.domain.replica import ReplicaPhase
from cloudless.sdk.failures import RolloutFailed, Superseded, WaitTimeout, WorkloadDeleted
from cloudless.sdk.limits import WAIT_TIMEOUT_S
from cloudless.sdk.patience import silence_s
from cloudless.sdk.verdict import Goal
from cloudless.sdk.waiting import wait_for
from cloudless.sdk.watch import Change
from cloudless.sdk.workload import Workload
from cloudless.transport.codec import Encoded, decode

DELETED = api.WatchWorkloadsResponseType.DELETED


class Watch:
    """What ``WorkloadWatch`` gives, without a connection."""

    def __init__(self, answers: AsyncIterator[Any]) -> None:
        self._answers = answers

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Change:
        async for answer in self._answers:
            workload = answer.workload
            if isinstance(workload, Encoded):
                workload = decode(workload.data, api.Workload)
            if workload is not None:
                return Change("DELETED" if answer.type == DELETED else "MODIFIED", Workload.of(workload))
        raise StopAsyncIteration


@asynccontextmanager
async def waiting(world: World, goal: Goal = "available") -> AsyncIterator[asyncio.Task[Workload]]:
    """Somebody who waits for the workload as it is now."""
    now = await world.get()
    answers = world.coordinator.service.watch_workloads(api.WatchWorkloadsRequest(name="web"))
    watch: Any = Watch(answers)
    task = asyncio.create_task(
        wait_for(watch, Workload.of(now), goal, generation=now.generation, timeout_s=None)
    )
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await answers.aclose()


def since(started_s: float) -> float:
    return asyncio.get_running_loop().time() - started_s


async def test_what_is_never_ready_ends_as_failed_and_not_as_a_timeout(world: World) -> None:
    await running(world, 3)
    world.agents["n1"].ready = False
    await update(world, "nginx:2")
    started_s = asyncio.get_running_loop().time()
    async with waiting(world) as task:
        with pytest.raises(RolloutFailed, match="rolled back to revision 1") as caught:
            await task
    assert caught.value.explanation.reason == "ProgressDeadlineExceeded"
    assert WAIT_TIMEOUT_S <= since(started_s) < WAIT_TIMEOUT_S + 60


async def test_an_update_that_gets_on_slowly_is_waited_for(world: World) -> None:
    await running(world, 6)
    agent = world.agents["n1"]
    agent.start_replicas = False
    await update(world, "nginx:2")

    async def start_slowly() -> None:
        while True:
            await asyncio.sleep(400)
            for replica_id, seen in list(agent.observed.items()):
                if seen.phase is ReplicaPhase.STARTING:
                    agent.run(replica_id)

    started_s = asyncio.get_running_loop().time()
    starting = asyncio.create_task(start_slowly())
    async with waiting(world) as task:
        done = await task
    starting.cancel()
    assert done.status.revision == 2
    assert done.phase == "Available"
    assert since(started_s) > 2 * WAIT_TIMEOUT_S


async def test_a_pause_that_nobody_ends_is_given_up(world: World) -> None:
    await running(world, 3)
    world.agents["n1"].start_replicas = False
    await update(world, "nginx:2")
    started_s = asyncio.get_running_loop().time()
    async with waiting(world) as task:
        await world.pass_time(300)
        await order(world, V.PAUSE)
        await until(world, P.PAUSED)
        with pytest.raises(WaitTimeout, match="somebody to resume it"):
            await task
    assert WAIT_TIMEOUT_S <= since(started_s) < 300 + WAIT_TIMEOUT_S + 60


async def test_a_coordinator_that_falls_silent_is_given_up(world: World) -> None:
    await running(world, 3)
    world.agents["n1"].start_replicas = False
    await update(world, "nginx:2")
    started_s = asyncio.get_running_loop().time()
    silent = (await until(world, P.PROGRESSING, revision=2)).revision
    now = await world.get()
    assert silent == 2

    async def nothing() -> AsyncIterator[Any]:
        await asyncio.Event().wait()
        yield None

    watch: Any = Watch(nothing())
    with pytest.raises(WaitTimeout, match="web is not available after 7"):
        await wait_for(watch, Workload.of(now), "available", generation=now.generation, timeout_s=None)
    assert since(started_s) == pytest.approx(silence_s(now.spec), abs=1)


async def test_a_newer_change_ends_the_wait_at_once(world: World) -> None:
    await running(world, 3)
    world.agents["n1"].start_replicas = False
    await update(world, "nginx:2")
    async with waiting(world) as task, waiting(world, "scaled") as scaling:
        await world.pass_time(1)
        await world.scale("web", 2)
        await world.pass_time(1)
        assert not task.done(), "whoever scales takes nobody's place"
        world.agents["n1"].start_replicas = True
        await update(world, "nginx:3")
        started_s = asyncio.get_running_loop().time()
        with pytest.raises(Superseded, match="superseded by revision 3") as caught:
            await task
        assert since(started_s) < 1
        assert caught.value.revision == 3
        assert (await scaling).status.available_replicas == 2


async def test_a_newer_change_that_makes_the_same_replicas_is_as_good(world: World) -> None:
    await running(world, 3)
    before = await update(world, "nginx:2")
    async with waiting(world) as task:
        strategy = api.RolloutStrategy(max_surge="3")
        request = api.UpdateWorkloadRequest(
            name="web", spec=api.WorkloadSpec(image="nginx:2", rollout=strategy)
        )
        await world.call("update_workload", request)
        done = await task
    assert done.generation == before.generation + 1
    assert done.status.revision == 2


async def test_a_deletion_is_no_failure_of_the_rollout(world: World) -> None:
    await running(world, 3)
    world.agents["n1"].start_replicas = False
    await update(world, "nginx:2")
    async with waiting(world) as task:
        await world.pass_time(1)
        await world.delete()
        with pytest.raises(WorkloadDeleted, match="web was deleted meanwhile") as caught:
            await task
    assert caught.value.code == "CL-6005"
