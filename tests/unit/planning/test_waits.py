"""Waits for a person: nothing goes on meanwhile, replicas are judged, and no wait is for ever."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
from tests.unit.planning.stories import ask, deployed, journal, rollout_of, running, until, verbs
from tests.unit.planning.world import SECOND, WEB, World

from cloudless.domain.rollout import RolloutPhase as P
from cloudless.domain.workload import WorkloadSpec

DAY = datetime.timedelta(days=1)
STRATEGIES: list[dict[str, Any]] = [
    {"max_surge": "1", "max_unavailable": "0"},
    {"max_surge": "0", "max_unavailable": "1"},
    {"strategy": "RECREATE"},
    {"strategy": "BLUE_GREEN", "auto_promote": True, "scale_down_delay": "0s", "bake_time": "2s"},
    {"strategy": "BLUE_GREEN", "auto_promote": True, "scale_down_delay": "5s"},
    {"strategy": "CANARY", "auto_promote": True},
    {"strategy": "CANARY", "steps": [{"weight": 50, "pause": {"duration": "2s"}}], "bake_time": "2s"},
]


@pytest.mark.parametrize("replicas", [1, 4])
@pytest.mark.parametrize("rollout", STRATEGIES)
@pytest.mark.parametrize("after", range(10))
def test_a_paused_rollout_stands_wherever_it_was_and_ends_only_when_resumed(
    rollout: dict[str, Any], replicas: int, after: int
) -> None:
    world = deployed(replicas, **rollout)
    world.change(image="web:2")
    world.settle()
    world.run(after)
    if rollout_of(world).phase is P.COMPLETED:
        return  # it was faster
    ask(world, paused=True)
    before = rollout_of(world)
    stopped = {one.id for one in world.cluster.replicas_of(WEB) if not one.run}
    world.run(60)
    held = rollout_of(world)
    assert (held.phase, held.stage, held.step, held.shares) == (
        P.PAUSED,
        before.stage,
        before.step,
        before.shares,
    )
    told = verbs(world, 2)
    later = set(told[told.index("pause") :]) if rollout.get("strategy") != "CANARY" else set()
    assert later <= {"pause", "surge", "ready"}, "at most an empty place is filled"
    if rollout.get("strategy") != "RECREATE":
        assert {one.id for one in world.cluster.replicas_of(WEB) if not one.run} <= stopped
    assert sum(running(world).values()) >= replicas
    ask(world, paused=False)
    assert until(world, P.COMPLETED).waiting_since is None
    assert world.cluster.revisions[WEB][2].phase is P.COMPLETED


def test_a_single_replica_is_not_replaced_while_paused() -> None:
    world = deployed(1, max_surge="1")
    world.change(image="web:2")
    world.settle()
    ask(world, paused=True)
    world.run(20)
    assert running(world) == {1: 1, 2: 1}
    assert verbs(world, 2) == ["begin", "surge", "pause", "ready"]


def test_a_replica_whose_node_is_lost_is_replaced_while_paused() -> None:
    world = deployed(4, nodes=3, max_surge="1", max_unavailable="0")
    world.change(image="web:2")
    world.settle()
    ask(world, paused=True)
    world.do(("cut", 0))
    world.run(10)
    assert sum(running(world).values()) >= 4
    assert rollout_of(world).phase is P.PAUSED
    assert world.view().available >= 4


@pytest.mark.parametrize("strategy", ["BLUE_GREEN", "CANARY"])
def test_new_replicas_are_judged_while_somebody_has_to_promote(strategy: str) -> None:
    world = deployed(2, strategy=strategy, max_failures=0)
    world.change(image="web:2")
    until(world, P.WAITING_PROMOTION)
    break_one(world, 2)
    assert rollout_of(world).phase is P.ROLLING_BACK
    assert (rollout_of(world).failures, rollout_of(world).waiting_since) == (1, None)


def test_new_replicas_are_judged_while_paused() -> None:
    world = deployed(2, max_failures=1)
    world.change(image="web:2")
    world.run(1)
    ask(world, paused=True)
    world.run(3)
    break_one(world, 2)
    assert (rollout_of(world).phase, rollout_of(world).failures) == (P.PAUSED, 1)
    break_one(world, 2)
    assert rollout_of(world).phase is P.ROLLING_BACK
    rollout = until(world, P.ROLLED_BACK)
    assert rollout.failure is not None
    assert rollout.failure.reason == "TooManyFailures"
    assert running(world) == {1: 2}


def break_one(world: World, revision: int) -> None:
    """A container of a revision has ended once more, and is on again by now."""
    for machine in world.machines.values():
        for replica_id, container in machine.containers.items():
            if world.cluster.replicas[replica_id].revision == revision:
                container.restarts += 1
                world._report_all()
                world.settle()
                return
    raise AssertionError("no such container")


def test_a_pause_ends_by_itself_and_the_rollout_goes_back() -> None:
    world = deployed(2)
    world.change(image="web:2")
    world.settle()
    ask(world, paused=True)
    assert rollout_of(world).because == (
        f"paused by a user until resumed, at most until {world.now + DAY:%Y-%m-%d %H:%M:%S} UTC"
    )
    facts = world.view().rollout
    assert facts is not None
    assert facts.deadline == world.now + DAY
    assert world.plans[-1].wake_at == world.now + DAY
    world.now += DAY - SECOND
    world.settle()
    assert rollout_of(world).phase is P.PAUSED
    world.run(1)
    assert rollout_of(world).phase is P.ROLLING_BACK
    rollout = until(world, P.ROLLED_BACK)
    assert rollout.failure is not None
    assert (rollout.failure.reason, rollout.failure.message) == (
        "PauseDeadlineExceeded",
        "nobody resumed it within 24h",
    )


@pytest.mark.parametrize("strategy", ["BLUE_GREEN", "CANARY"])
def test_a_wait_for_promotion_ends_by_itself(strategy: str) -> None:
    world = deployed(2, strategy=strategy, auto_rollback=False, pause_deadline="1m30s")
    world.change(image="web:2")
    waits = until(world, P.WAITING_PROMOTION)
    assert waits.waiting_since == world.now
    assert waits.because.startswith("waiting to be promoted, at most until 2026-01-01 00:0")
    world.run(89)
    assert rollout_of(world).phase is P.WAITING_PROMOTION
    world.run(1)
    failed = rollout_of(world)
    assert (failed.phase, failed.waiting_since) == (P.FAILED, None)
    assert failed.because.startswith("nobody promoted it within 1m30s; not rolled back: auto_rollback is off")
    assert verbs(world, 2)[-1] == "judge"


def test_each_wait_has_a_time_of_its_own() -> None:
    world = deployed(2, strategy="BLUE_GREEN", pause_deadline="10s")
    world.change(image="web:2")
    first = until(world, P.WAITING_PROMOTION).waiting_since
    world.run(8)
    ask(world, paused=True)
    world.run(8)
    ask(world, paused=False)
    again = rollout_of(world)
    assert (again.phase, again.waiting_since) == (P.WAITING_PROMOTION, world.now)
    assert again.waiting_since != first
    world.run(8)
    assert rollout_of(world).phase is P.WAITING_PROMOTION


def test_a_longer_wait_may_be_granted_under_way() -> None:
    world = deployed(2, strategy="BLUE_GREEN", pause_deadline="10s")
    world.change(image="web:2")
    until(world, P.WAITING_PROMOTION)
    world.change(rollout={"strategy": "BLUE_GREEN", "pause_deadline": "1h"})
    world.run(60)
    assert rollout_of(world).phase is P.WAITING_PROMOTION


def test_what_was_written_before_waits_had_a_time_gets_one_now() -> None:
    world = deployed(2)
    world.change(image="web:2")
    world.settle()
    ask(world, paused=True)
    status = world.cluster.statuses[WEB]
    older = rollout_of(world).replaced(waiting_since=None)
    world.cluster.statuses[WEB] = status.replaced(rollout=older)
    world.now += 30 * DAY
    world.settle()
    assert (rollout_of(world).phase, rollout_of(world).waiting_since) == (P.PAUSED, world.now)


@pytest.mark.parametrize("wait", ["0s", "999ms", "721h"])
def test_a_wait_has_bounds(wait: str) -> None:
    with pytest.raises(ValueError, match="pause_deadline: must be from 1s to 720h, not "):
        WorkloadSpec.model_validate({"image": "web:1", "rollout": {"pause_deadline": wait}})


def test_a_pause_is_a_line_of_the_journal_with_the_reason_of_its_end() -> None:
    world = deployed(1, pause_deadline="5s", auto_rollback=False)
    world.change(image="web:2")
    world.settle()
    ask(world, paused=True)
    world.run(60)
    assert rollout_of(world).phase is P.FAILED, "what nobody looked after does not end well by itself"
    assert running(world) == {1: 1, 2: 1}
    last = journal(world, 2)[-1]
    assert (last.verb, last.decided) == ("judge", "failed, stops where it is")
    assert last.because.startswith("nobody resumed it within 5s")
