from __future__ import annotations

from tests.unit.planning.stories import ask, deployed, journal, rollout_of, running, shares, until, verbs
from tests.unit.planning.world import WEB, World

from cloudless.domain.rollout import RolloutPhase as P
from cloudless.domain.rollout import Stage

BLUE_GREEN = {"strategy": "BLUE_GREEN", "scale_down_delay": "10s"}


def waiting(replicas: int = 3, **more: object) -> World:
    """Green is up beside blue and waits to be promoted."""
    world = deployed(replicas, **BLUE_GREEN, **more)
    world.change(image="web:2")
    until(world, P.WAITING_PROMOTION)
    return world


def test_the_first_deployment_waits_for_nobody() -> None:
    world = deployed(3, **BLUE_GREEN)
    assert shares(world) == {}
    assert running(world) == {1: 3}


def test_green_gets_no_traffic_before_it_is_promoted() -> None:
    world = deployed(3, **BLUE_GREEN)
    world.change(image="web:2")
    world.settle()
    assert shares(world) == {1: 100}
    until(world, P.WAITING_PROMOTION)
    assert (running(world), shares(world)) == ({1: 3, 2: 3}, {1: 100})
    world.run(2000)
    assert rollout_of(world).phase is P.WAITING_PROMOTION


def test_promoted_it_switches_at_one_instant_and_keeps_blue_for_a_while() -> None:
    world = waiting()
    ask(world, promotions=1)
    assert shares(world) == {2: 100}
    rollout = rollout_of(world)
    assert (rollout.phase, rollout.stage) == (P.COMPLETED, Stage.RETIRE)
    assert running(world) == {1: 3, 2: 3}
    world.run(9)
    assert running(world) == {1: 3, 2: 3}
    world.run(8)
    assert world.converged()
    assert shares(world) == {}
    assert verbs(world, 2) == [
        "begin", "surge", "ready", "pause", "promote", "switch", "end", "retire",
    ]  # fmt: skip


def test_auto_promote_needs_nobody() -> None:
    world = deployed(2, **BLUE_GREEN, auto_promote=True)
    world.change(image="web:2")
    world.run(25)
    assert world.converged()
    assert "promote" not in verbs(world, 2)


def test_an_abort_before_the_switch_never_touches_blue() -> None:
    world = waiting()
    ask(world, aborts=1)
    assert (running(world), shares(world)) == ({1: 3}, {1: 100})
    until(world, P.ABORTED)
    assert (running(world), shares(world)) == ({1: 3}, {})
    assert rollout_of(world).target == 1


def test_an_abort_in_the_delay_is_a_switch_back_at_once() -> None:
    world = waiting()
    ask(world, promotions=1)
    ask(world, aborts=1)
    assert shares(world) == {1: 100}
    assert running(world) == {1: 3, 2: 3}, "green is kept for a while as well"
    until(world, P.ABORTED)
    world.run(20)
    assert (running(world), shares(world)) == ({1: 3}, {})


def test_a_failure_in_the_bake_time_switches_back() -> None:
    world = deployed(2, **BLUE_GREEN, auto_promote=True, bake_time="20s", max_failures=0)
    world.change(image="web:2")
    for _ in range(20):
        world.run(1)
        if shares(world) == {2: 100}:
            break
    assert rollout_of(world).stage is Stage.BAKE
    green = next(one for one in world.cluster.replicas_of(WEB) if one.revision == 2)
    world.machines[green.node_id].containers[green.id].restarts = 1
    world.run(1)
    assert shares(world) == {1: 100}
    rollout = until(world, P.ROLLED_BACK)
    assert rollout.failure is not None
    assert rollout.failure.reason == "TooManyFailures"
    world.run(20)
    assert running(world) == {1: 2}


def test_an_undo_in_the_delay_waits_for_nobody() -> None:
    world = waiting(2)
    ask(world, promotions=1)
    record = world.cluster.workloads[WEB]
    spec = record.spec.replaced(image="web:1")
    world.cluster.put_workload(
        record.replaced(spec=spec, generation=record.generation + 1, restores=1, updated_at=world.now)
    )
    world.settle()
    assert shares(world) == {1: 100}
    assert rollout_of(world).phase is P.COMPLETED
    world.run(20)
    assert world.converged()
    assert [entry.decided for entry in journal(world, 3)][:1] == ["revision 3, BLUE_GREEN"]


def test_scaling_in_the_middle_resizes_both_sets() -> None:
    world = waiting(2)
    world.change(replicas=4)
    world.run(6)
    assert (running(world), shares(world)) == ({1: 4, 2: 4}, {1: 100})
    world.change(replicas=1)
    world.run(6)
    assert running(world) == {1: 1, 2: 1}


def test_a_new_change_drops_what_was_never_promoted() -> None:
    world = waiting(2)
    world.change(image="web:3")
    world.settle()
    assert shares(world) == {1: 100}
    assert 2 not in running(world)
    until(world, P.WAITING_PROMOTION)
    assert running(world) == {1: 2, 3: 2}


def test_without_blue_left_green_serves_as_soon_as_it_can() -> None:
    world = deployed(2, nodes=1, **BLUE_GREEN)
    world.change(image="web:2")
    world.settle()
    for replica in list(world.cluster.replicas_of(WEB)):
        if replica.revision == 1:
            world.cluster.drop_observation(replica.id)
            world.cluster.drop_replica(replica.id)
    world.run(10)
    assert (rollout_of(world).phase, shares(world), running(world)) == (P.COMPLETED, {}, {2: 2})
