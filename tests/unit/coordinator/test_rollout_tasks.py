"""One task for each rollout that is on: who owns it, when it begins and ends, whose turn it is."""

from __future__ import annotations

import asyncio
import datetime
from collections import Counter
from typing import Any, cast

from tests.unit.coordinator.steering import (
    BLUE_GREEN,
    CANARY,
    P,
    V,
    order,
    rollout_in,
    running,
    until,
    update,
)
from tests.unit.coordinator.world import World

from cloudless import api
from cloudless.aio.clock import SystemClock
from cloudless.aio.keyqueue import TICK_S, KeyQueue
from cloudless.coordinator.control.loop import NODES
from cloudless.coordinator.control.rollouts import Carrier, Rollouts
from cloudless.coordinator.state import keys
from cloudless.domain.cluster import Cluster
from cloudless.planning.workload import plan_workload


def tasks() -> list[str]:
    """Names of the tasks that carry rollouts now, without their numbers."""
    names = (task.get_name() for task in asyncio.all_tasks())
    return sorted(name.partition("#")[0] for name in names if name.startswith("rollouts/"))


def metric(world: World, line: str) -> float:
    for found in world.coordinator.health.metrics_text().decode().splitlines():
        if found.startswith(f"{line} "):
            return float(found.rpartition(" ")[2])
    return 0.0


async def test_a_task_for_each_rollout_that_is_on_and_none_afterwards(world: World) -> None:
    world.agents["n1"].start_replicas = False
    await world.create("one", 1)
    await world.create("two", 1)
    await world.settle()
    assert tasks() == ["rollouts/default/one@1", "rollouts/default/two@1"]
    assert metric(world, 'cloudless_rollouts{phase="PROGRESSING"}') == 2
    agent = world.agents["n1"]
    agent.start_replicas = True
    for replica_id in list(agent.observed):
        agent.run(replica_id)
    await until_done(world, "one", "two")
    assert tasks() == []
    assert metric(world, 'cloudless_rollouts{phase="COMPLETED"}') == 2
    count = 'cloudless_rollout_seconds_count{outcome="COMPLETED",strategy="ROLLING_UPDATE"}'
    assert metric(world, count) == 2
    written = (await world.store.range(keys.ROOT + "journal/")).items
    assert metric(world, "cloudless_rollout_steps_total") == len(written) > 4


async def until_done(world: World, *names: str) -> None:
    async def done(name: str) -> bool:
        rollout = rollout_in(await world.get(name))
        return rollout.phase is P.COMPLETED and not rollout.pending

    async with asyncio.timeout(100):
        while not all([await done(name) for name in names]):
            await asyncio.sleep(0.01)
    await world.settle()


async def test_a_rollout_that_only_waits_has_its_task(world: World) -> None:
    await running(world, 4, rollout=CANARY)
    await update(world, "nginx:2")
    await until(world, P.WAITING_PROMOTION)
    await world.pass_time(3600)
    assert tasks() == ["rollouts/default/web@2"]
    await order(world, V.PROMOTE)
    await until(world, P.COMPLETED, revision=2)  # a pause of 60 seconds is in between
    await world.settle()
    assert tasks() == []


async def test_old_replicas_that_are_kept_for_a_while_are_part_of_it(world: World) -> None:
    await running(world, 2, rollout=BLUE_GREEN)
    await update(world, "nginx:2")
    await until(world, P.WAITING_PROMOTION)
    await order(world, V.PROMOTE)
    await until(world, P.COMPLETED, revision=2)
    assert tasks() == ["rollouts/default/web@2"]
    count = 'cloudless_rollout_seconds_count{outcome="COMPLETED",strategy="BLUE_GREEN"}'
    assert metric(world, count) == 2, "measured once, when it was completed"
    await world.pass_time(31)
    assert tasks() == []
    assert metric(world, count) == 2


async def test_a_newer_revision_has_a_task_of_its_own(world: World) -> None:
    await running(world, 2)
    world.agents["n1"].start_replicas = False
    await update(world, "nginx:2")
    await world.settle()
    assert tasks() == ["rollouts/default/web@2"]
    await update(world, "nginx:3")
    await world.settle()
    assert tasks() == ["rollouts/default/web@3"]
    superseded = 'cloudless_rollout_seconds_count{outcome="SUPERSEDED",strategy="ROLLING_UPDATE"}'
    assert metric(world, superseded) == 1


async def test_a_deleted_workload_has_no_rollout(world: World) -> None:
    await running(world, 2)
    world.agents["n1"].start_replicas = False
    await update(world, "nginx:2")
    await world.settle()
    world.agents["n1"].stop_replicas = False
    await world.delete("web")
    await world.settle()
    assert tasks() == []
    agent = world.agents["n1"]
    for replica_id in list(agent.observed):
        agent.remove(replica_id)
    await world.until_gone()


async def test_tasks_end_with_the_leadership_and_begin_with_the_next(world: World) -> None:
    await running(world, 4)
    world.agents["n1"].start_replicas = False
    before = await update(world, "nginx:2")
    await world.settle()
    first = [task for task in asyncio.all_tasks() if task.get_name().startswith("rollouts/")]
    seat = world.coordinator.seat
    seat._held.stand_down("test")  # type: ignore[union-attr]
    await world.until(lambda: not seat.leading)
    await asyncio.wait(first)
    assert tasks() == []
    await world.until(lambda: seat.leading)
    await world.relink("n1")
    await world.settle()
    assert tasks() == ["rollouts/default/web@2"]
    agent = world.agents["n1"]
    agent.start_replicas = True
    for replica_id in list(agent.observed):
        agent.run(replica_id)
    await until(world, P.COMPLETED, revision=2)
    assert (await world.get()).generation == before.generation
    await world.settle()
    assert tasks() == []


async def test_the_next_coordinator_carries_rollouts_on_from_the_store(world: World) -> None:
    await running(world, 4, rollout=CANARY)
    await update(world, "nginx:2")
    await until(world, P.WAITING_PROMOTION)
    await world.kill()
    assert tasks() == []
    await world.start()
    await world.relink("n1")
    await world.settle()
    assert tasks() == ["rollouts/default/web@2"]
    await order(world, V.PROMOTE, full=True)
    await until(world, P.COMPLETED, revision=2)


async def test_a_task_that_ends_before_it_could_begin_keeps_nobody_waiting(world: World) -> None:
    world.agents["n1"].start_replicas = False
    workload = await world.create("web", 1)
    await world.settle()
    control = world.coordinator.control
    control.rollouts.cancel()
    await world.settle()
    carrier = control.rollouts.look(workload.id)
    assert carrier is not None
    turn = asyncio.ensure_future(carrier.turn())
    await asyncio.sleep(0)
    control.rollouts.cancel()
    async with asyncio.timeout(1):
        await turn
    await world.settle()
    await world.create("other", 0)
    await until_done(world, "other")


async def test_a_planner_that_fails_is_asked_again_in_the_task(world: World) -> None:
    await running(world, 2)
    control = world.coordinator.control
    world.agents["n1"].start_replicas = False
    await update(world, "nginx:2")
    await world.settle()
    broken = True

    def plan(cluster: Cluster, workload_id: str, now: datetime.datetime, new_id: Any) -> Any:
        if broken:
            raise ZeroDivisionError("a bug")
        return plan_workload(cluster, workload_id, now, new_id)

    control._plan_workload = plan
    agent = world.agents["n1"]
    agent.start_replicas = True
    for replica_id in list(agent.observed):
        agent.run(replica_id)
    await world.pass_time(10)
    assert tasks() == ["rollouts/default/web@2"]
    broken = False
    await until(world, P.COMPLETED, revision=2)


async def test_turns_are_given_in_the_order_they_were_asked_for(world: World) -> None:
    """Nobody has a second turn while somebody who asked before waits for a first one."""
    names = [f"w{number}" for number in range(20)]
    for name in names:
        await world.create(name, 4)
    await until_done(world, *names)
    control, turns = world.coordinator.control, []
    take = control._queue.take

    async def noted() -> str:
        waiting = set(control._queue._ready)
        key = await take()
        turns.append((key, waiting))
        return key

    control._queue.take = noted  # type: ignore[method-assign]
    for name in names:
        request = api.UpdateWorkloadRequest(name=name, spec=api.WorkloadSpec(image="nginx:2", replicas=4))
        await world.call("update_workload", request)
    await world.create("bystander", 1)
    await until_done(world, *names, "bystander")
    passed_over: Counter[tuple[str, str]] = Counter()
    for key, waiting in turns:
        for other in waiting - {key}:
            passed_over[other, key] += 1
        for other in [pair for pair in passed_over if pair[0] == key]:
            del passed_over[other]
        assert max(passed_over.values(), default=0) <= 1
    assert {NODES} <= {key for key, _ in turns} or len(turns) > 100
    assert tasks() == []


class RoundingClock(SystemClock):
    """Too late by a little when it is asked first, as seen by a loop whose timers count milliseconds."""

    def __init__(self) -> None:
        self.asked = 0

    def monotonic(self) -> float:
        self.asked += 1
        return super().monotonic() + (0.0004 if self.asked == 1 else 0.0)


async def test_a_turn_is_not_asked_for_before_its_time() -> None:
    """The control loop takes nothing that is not due: a turn asked for too early would never come."""
    clock, loop = RoundingClock(), asyncio.get_running_loop()
    queue: KeyQueue[str] = KeyQueue(SystemClock())

    async def handle(key: str) -> None:
        raise AssertionError("nobody gave it a turn")

    rollouts = Rollouts(cast(Any, None), queue, handle, clock, cast(Any, None))
    carrier = Carrier("web", cast(Any, None), rollouts)
    carrier.due_s = due_s = loop.time() + 0.01
    task = asyncio.ensure_future(carrier.run())
    try:
        async with asyncio.timeout(10):
            assert await queue.take() == "web"
        assert loop.time() + TICK_S >= due_s
        assert clock.asked > 1
    finally:
        task.cancel()
