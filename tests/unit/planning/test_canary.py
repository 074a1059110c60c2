from __future__ import annotations

from typing import Any

from tests.unit.planning.stories import ask, deployed, rollout_of, running, shares, until, verbs
from tests.unit.planning.world import SECOND, World

from cloudless.domain.rollout import RolloutPhase as P
from cloudless.domain.rollout import Stage

STEPS: list[dict[str, Any]] = [
    {"weight": 10, "replicas": "1", "pause": {"duration": "30s"}},
    {"weight": 50, "pause": {}},
]


def trying(replicas: int = 6, **more: object) -> World:
    world = deployed(replicas, strategy="CANARY", steps=STEPS, **more)
    world.change(image="web:2")
    return world


def until_shares(world: World, wanted: dict[int, int], ticks: int = 60) -> None:
    for _ in range(ticks):
        if shares(world) == wanted:
            return
        world.run(1)
    raise AssertionError(f"{shares(world)}: {world.view().message}")


def test_step_by_step_beside_all_old_ones() -> None:
    world = trying()
    world.settle()
    assert (running(world), shares(world)) == ({1: 6, 2: 1}, {1: 100})
    until_shares(world, {1: 90, 2: 10})
    assert rollout_of(world).paused_until == world.now + 30 * SECOND
    world.run(29)
    assert running(world) == {1: 6, 2: 1}
    until_shares(world, {1: 50, 2: 50})
    assert running(world) == {1: 6, 2: 3}
    assert rollout_of(world).phase is P.WAITING_PROMOTION
    world.run(1000)
    assert running(world) == {1: 6, 2: 3}
    ask(world, promotions=1)
    until(world, P.COMPLETED)
    assert (running(world), shares(world)) == ({2: 6}, {})
    assert verbs(world, 2)[:8] == [
        "begin", "surge", "ready", "weigh", "pause", "surge", "weigh", "pause",
    ]  # fmt: skip


def test_the_weight_never_falls_on_the_way_up() -> None:
    world = trying()
    weights = []
    for _ in range(120):
        world.run(1)
        if rollout_of(world).phase is P.WAITING_PROMOTION:
            ask(world, promotions=1)
        if shares(world):
            weights.append(shares(world).get(2, 0))
    assert weights == sorted(weights)
    assert world.converged()


def test_a_promotion_ends_a_timed_pause_and_full_leaves_out_the_rest() -> None:
    world = trying()
    until_shares(world, {1: 90, 2: 10})
    ask(world, promotions=1)
    until_shares(world, {1: 50, 2: 50})
    world = trying()
    until_shares(world, {1: 90, 2: 10})
    ask(world, promotions=1, full=True)
    assert rollout_of(world).stage is Stage.REPLACE
    until(world, P.COMPLETED)


def test_auto_promote_waits_only_for_time() -> None:
    world = trying(auto_promote=True)
    until(world, P.COMPLETED, 90)
    assert world.converged()


def test_an_abort_takes_the_traffic_away_first() -> None:
    world = trying()
    until_shares(world, {1: 90, 2: 10})
    ask(world, aborts=1)
    assert (shares(world), running(world)) == ({1: 100}, {1: 6})
    until(world, P.ABORTED)
    assert (shares(world), running(world)) == ({}, {1: 6})


def test_a_canary_that_crashes_is_taken_back() -> None:
    world = trying(max_failures=0)
    world.run(1)
    world.change(image="bad:2")
    world.run(2)
    for machine in world.machines.values():
        for container in machine.containers.values():
            container.restarts += container.bad
    until(world, P.ROLLED_BACK)
    assert (shares(world), running(world)) == ({}, {1: 6})


def test_a_pause_by_a_user_holds_the_next_step_back() -> None:
    world = trying()
    until_shares(world, {1: 90, 2: 10})
    ask(world, paused=True)
    assert rollout_of(world).phase is P.PAUSED
    world.run(60)
    assert running(world) == {1: 6, 2: 1}
    ask(world, paused=False)
    until_shares(world, {1: 50, 2: 50})


def test_scaling_keeps_the_old_set_whole_and_the_step_in_proportion() -> None:
    world = trying(4)
    until_shares(world, {1: 90, 2: 10})
    ask(world, promotions=1)
    until_shares(world, {1: 50, 2: 50})
    assert running(world) == {1: 4, 2: 2}
    world.change(replicas=6)
    world.run(8)
    assert running(world) == {1: 6, 2: 3}
