"""A way back leads to a revision that runs: how the proof of one is lost and found again."""

from __future__ import annotations

import datetime

from tests.unit.planning.stories import deployed, rollout_of, running, until
from tests.unit.planning.world import SECOND, WEB, World

from cloudless.domain.rollout import RolloutPhase as P

#: After so long a run a node forgets earlier ends.
LONG = datetime.timedelta(seconds=600)


def update(world: World, image: str) -> None:
    world.change(image=image)
    world.settle()


def die(world: World, revision: int, times: int, down_s: int = 1000) -> None:
    """All containers of a revision have ended so often, and are not on again for a while."""
    for machine in world.machines.values():
        for replica_id, container in machine.containers.items():
            if world.cluster.replicas[replica_id].revision == revision:
                container.restarts += times
                container.broken_until = world.now + down_s * SECOND
    world._report_all()
    world.settle()


def is_proved(world: World, revision: int) -> bool:
    return world.cluster.revisions[WEB][revision].healthy_at is not None


def test_what_completes_and_then_dies_is_not_gone_back_to() -> None:
    """All fields as they are by default: ready at once, counted as done, dead soon after."""
    world = deployed(2)
    update(world, "web:2")
    until(world, P.COMPLETED)
    assert is_proved(world, 2)
    die(world, 2, times=2)
    assert not is_proved(world, 2), "four ends of two replicas, two are tolerated"
    assert world.plans[-2].events[0].reason == "RevisionUnproved"
    update(world, "bad:3")
    world.run(3)
    die(world, 3, times=3)
    rollout = until(world, P.ROLLED_BACK)
    assert rollout.back_to == 1
    assert running(world) == {1: 2}


def test_an_end_that_is_tolerated_takes_no_proof() -> None:
    world = deployed(2)
    update(world, "web:2")
    until(world, P.COMPLETED)
    die(world, 2, times=1)
    assert is_proved(world, 2)


def test_ends_of_replicas_that_are_available_again_take_no_proof() -> None:
    world = deployed(1)
    update(world, "web:2")
    until(world, P.COMPLETED)
    for _ in range(5):
        die(world, 2, times=0, down_s=1)
        world.run(3)
    for machine in world.machines.values():
        for container in machine.containers.values():
            container.restarts = 9
    world._report_all()
    world.run(1)
    assert world.view().available == 1
    assert is_proved(world, 2)


def test_the_proof_is_taken_while_the_next_rollout_is_on() -> None:
    world = deployed(2)
    update(world, "web:2")
    until(world, P.COMPLETED)
    update(world, "bad:3")
    die(world, 2, times=2)
    assert not is_proved(world, 2)


def test_a_long_run_proves_it_again() -> None:
    world = deployed(1)
    update(world, "web:2")
    until(world, P.COMPLETED)
    die(world, 2, times=3, down_s=5)
    world.run(20)
    assert world.view().available == 1
    assert not is_proved(world, 2), "a loop of crashes is available now and then, too"
    assert world.plans[-1].wake_at is not None
    world.now += LONG - 30 * SECOND
    world.settle()
    assert not is_proved(world, 2)
    world.now += 30 * SECOND
    world.settle()
    assert is_proved(world, 2)


def test_a_rollout_of_no_replicas_proves_nothing_and_a_run_does() -> None:
    world = deployed(1)
    world.change(image="bad:2", replicas=0)
    world.settle()
    world.run(5)
    assert rollout_of(world).phase is P.COMPLETED
    assert not is_proved(world, 2)
    world.change(image="web:3")
    world.settle()
    assert not is_proved(world, 3)
    world.change(replicas=2)
    world.run(10)
    assert not is_proved(world, 3)
    world.now += LONG
    world.settle()
    assert is_proved(world, 3)
