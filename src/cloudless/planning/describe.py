"""Plans in words: the steps that dry runs and ``diff`` show.

``describe_plan`` says what one plan does. ``rehearse`` goes on to the end: it plays the
plans through on a copy of the cluster whose nodes do all they are told without fail and
without delay, so that a rollout is shown step by step with what each keeps available.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import dataclass, field

from cloudless.domain.cluster import Cluster
from cloudless.domain.node import NodePhase
from cloudless.domain.plan import (
    Action,
    Plan,
    PutReplica,
    PutRevision,
    PutStatus,
    RemoveReplica,
    RemoveRevision,
    RemoveWorkload,
)
from cloudless.domain.replica import Observation, ReplicaPhase, ReplicaRecord
from cloudless.domain.status import Refusal
from cloudless.planning.apply import apply_in_place
from cloudless.planning.revisions import describe_change
from cloudless.planning.status import view_workload
from cloudless.planning.workload import plan_workload

#: Plans of one rehearsal; a longer rollout is shown up to here.
MAX_REHEARSED = 200


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """One line of a plan: ``action`` is create, stop, remove, revision, wait or delete.

    ``wait`` is how long is waited, ``refusals`` why a replica has no ``node``, ``score``
    the terms that chose one.
    """

    action: str
    replica: str = ""
    node: str = ""
    because: str = ""
    score: dict[str, float] = field(default_factory=dict)
    refusals: tuple[Refusal, ...] = ()
    wait: datetime.timedelta = datetime.timedelta(0)

    @property
    def sentence(self) -> str:
        """The step as a person reads it."""
        where = f" on {self.node}" if self.node else ""
        if self.action == "wait":
            return f"wait {self.wait.total_seconds():g} s: {self.because}"
        if self.refusals:
            reasons = "; ".join(
                f"{one.node}: {one.reason}" if one.node else one.reason for one in self.refusals
            )
            return f"{self.action} {self.replica}: no node: {reasons}"
        subject = f" {self.replica}" if self.replica else ""
        return f"{self.action}{subject}{where}: {self.because}"


def describe_plan(cluster: Cluster, plan: Plan) -> tuple[PlannedStep, ...]:
    """The steps of ``plan``, which was made for ``cluster`` and is not applied to it yet."""
    refusals: dict[str, tuple[Refusal, ...]] = {}
    for action in plan.actions:
        if isinstance(action, PutStatus):
            refusals = action.status.refusals
    steps = [_describe(cluster, action, refusals) for action in plan.actions]
    return tuple(step for step in steps if step is not None)


def rehearse(
    cluster: Cluster, workload_id: str, now: datetime.datetime, new_id: Callable[[], str]
) -> tuple[PlannedStep, ...]:
    """All steps until nothing is left to do, were every node to do at once what it is told.

    ``cluster`` is not touched. Ends early where a replica finds no node.
    """
    world = cluster.copy()
    steps: list[PlannedStep] = []
    for _ in range(MAX_REHEARSED):
        plan = plan_workload(world, workload_id, now, new_id)
        found = describe_plan(world, plan)
        steps.extend(found)
        apply_in_place(world, plan)
        if workload_id not in world.workloads or any(step.refusals for step in found):
            break
        if _obey(world, workload_id, now) or plan.actions:
            continue
        until = _pause(world, workload_id, now)
        if until is None:
            break
        steps.append(PlannedStep("wait", because=_counts(world, workload_id, now), wait=until - now))
        now = until
    return tuple(steps)


def _describe(
    cluster: Cluster, action: Action, refusals: dict[str, tuple[Refusal, ...]]
) -> PlannedStep | None:
    match action:
        case PutReplica(replica) if replica.run:
            node = cluster.nodes.get(replica.node_id)
            because = f"revision {replica.revision}"
            return PlannedStep(
                "create",
                _title(replica),
                node.name if node else "",
                because,
                replica.score,
                refusals.get(replica.id, ()),
            )
        case PutReplica(replica):
            return PlannedStep("stop", _title(replica), _node_name(cluster, replica), replica.because)
        case RemoveReplica(replica):
            return PlannedStep(
                "remove", _title(replica), _node_name(cluster, replica), "nothing is left of it"
            )
        case PutRevision(revision) if revision.number not in cluster.revisions.get(revision.workload_id, {}):
            before = cluster.newest_revision(revision.workload_id)
            return PlannedStep("revision", because=describe_change(before, revision))
        case RemoveRevision(_, number):
            return PlannedStep("remove", because=f"revision {number} is older than those kept")
        case RemoveWorkload():
            return PlannedStep("delete", because="nothing is left of the workload")
    return None


def _title(replica: ReplicaRecord) -> str:
    return f"{replica.name}/{replica.ordinal}"


def _node_name(cluster: Cluster, replica: ReplicaRecord) -> str:
    node = cluster.nodes.get(replica.node_id)
    return node.name if node else ""


def _obey(world: Cluster, workload_id: str, now: datetime.datetime) -> bool:
    """Let the nodes do what the records say; whether that changed anything."""
    changed = False
    for replica in list(world.replicas_of(workload_id)):
        node = world.nodes.get(replica.node_id)
        if node is None or node.phase is not NodePhase.READY:
            continue
        seen = world.observations.get(replica.id)
        if not replica.run:
            world.drop_observation(replica.id)
            world.drop_replica(replica.id)
            changed = True
        elif seen is None or seen.phase in (ReplicaPhase.PENDING, ReplicaPhase.STARTING):
            world.put_observation(_running(replica, now))
            changed = True
    return changed


def _running(replica: ReplicaRecord, now: datetime.datetime) -> Observation:
    return Observation(
        replica_id=replica.id,
        workload_id=replica.workload_id,
        node_id=replica.node_id,
        phase=ReplicaPhase.RUNNING,
        ready=True,
        started_at=now,
        ready_since=now,
    )


def _pause(world: Cluster, workload_id: str, now: datetime.datetime) -> datetime.datetime | None:
    """When something goes on by time alone: a pause between batches, or ``min_ready_time``."""
    view = view_workload(world, workload_id, now)
    rollout = view.status.rollout if view.status else None
    paused = rollout.paused_until if rollout else None
    return min((at for at in (view.valid_until, paused) if at is not None and at > now), default=None)


def _counts(world: Cluster, workload_id: str, now: datetime.datetime) -> str:
    view = view_workload(world, workload_id, now)
    return f"{view.available} of {view.desired} available, {view.updated} updated"
