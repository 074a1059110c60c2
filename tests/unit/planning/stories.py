"""What stories about rollouts share: a workload that runs, and its rollout looked at."""

from __future__ import annotations

from tests.unit.planning.world import WEB, World

from cloudless.domain.intent import RolloutIntent
from cloudless.domain.plan import PutJournal
from cloudless.domain.replica import ReplicaRecord
from cloudless.domain.rollout import JournalEntry, Rollout, RolloutPhase


def deployed(replicas: int, seed: int = 1, nodes: int = 2, **rollout: object) -> World:
    """A world whose first rollout is completed."""
    world = World(seed, nodes, replicas=replicas, rollout=rollout)
    world.settle()
    until(world, RolloutPhase.COMPLETED)
    return world


def rollout_of(world: World) -> Rollout:
    rollout = world.cluster.statuses[WEB].rollout
    assert rollout is not None
    return rollout


def ask(world: World, **asked: object) -> None:
    """A verb, as the service writes it down; then a decision."""
    revision = rollout_of(world).revision
    record = world.cluster.workloads[WEB]
    known = record.intent if record.intent.revision == revision else RolloutIntent(revision=revision)
    world.cluster.put_workload(record.replaced(intent=known.replaced(**asked)))
    world.settle()


def shares(world: World) -> dict[int, int]:
    return {one.revision: one.percent for one in rollout_of(world).shares}


def running(world: World) -> dict[int, int]:
    """Revision -> replicas that are to run."""
    found: dict[int, int] = {}
    for one in world.cluster.replicas_of(WEB):
        if one.run:
            found[one.revision] = found.get(one.revision, 0) + 1
    return found


def stopped_of(world: World, revision: int) -> list[ReplicaRecord]:
    return [one for one in world.cluster.replicas_of(WEB) if one.revision == revision and not one.run]


def until(world: World, phase: RolloutPhase, ticks: int = 60) -> Rollout:
    """Let time pass until the rollout is at ``phase``."""
    for _ in range(ticks):
        if rollout_of(world).phase is phase:
            return rollout_of(world)
        world.run(1)
    raise AssertionError(f"still {rollout_of(world).phase}: {world.view().message}")


def journal(world: World, revision: int) -> list[JournalEntry]:
    """The journal of one revision's rollout, as the plans wrote it."""
    return [
        action.entry
        for plan in world.plans
        for action in plan.actions
        if isinstance(action, PutJournal) and action.entry.revision == revision
    ]


def verbs(world: World, revision: int) -> list[str]:
    return [entry.verb for entry in journal(world, revision)]
