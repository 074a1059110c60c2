"""Plans in words: the steps that dry runs and ``diff`` show.

``describe_plan`` says what one plan does, in the order that a person thinks of it.
``rehearsal`` plays plans through to the end of a rollout.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field

from cloudless.domain.cluster import Cluster
from cloudless.domain.plan import (
    Action,
    Plan,
    PutJournal,
    PutReplica,
    PutRevision,
    PutStatus,
    RemoveReplica,
    RemoveRevision,
    RemoveWorkload,
)
from cloudless.domain.quantity import format_duration
from cloudless.domain.replica import ReplicaRecord
from cloudless.domain.rollout import JournalEntry, RolloutPhase
from cloudless.domain.status import Refusal
from cloudless.planning.revisions import describe_change

#: What is read first when several things are done at once.
_ORDER = ("revision", "create", "place", "switch", "weigh", "stop", "remove", "judge", "end", "delete")
#: Verbs of the journal that are steps of their own; the others show in replicas and waits.
_JOURNALED = frozenset({"switch", "weigh", "judge", "end"})


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """One line of a plan.

    ``action`` is revision, create, place, stop, remove, delete, wait, one of the journal's
    switch, weigh, judge, end, or more (cut off). ``wait`` is how long is waited,
    ``refusals`` why a replica has no ``node``, ``score`` the terms that chose one. Steps of
    one ``stage`` (from 1) are taken together; while that is going on ``available`` replicas
    are left and ``existing`` are there, those included that start or stop.
    """

    action: str
    replica: str = ""
    node: str = ""
    because: str = ""
    score: Mapping[str, float] = field(default_factory=dict)
    refusals: tuple[Refusal, ...] = ()
    wait: datetime.timedelta = datetime.timedelta(0)
    stage: int = 0
    available: int = 0
    existing: int = 0

    @property
    def sentence(self) -> str:
        """The step as a person reads it."""
        where = f" on {self.node}" if self.node else ""
        if self.wait:
            return f"wait {format_duration(self.wait)}: {self.because}"
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
    found = (_describe(cluster, action, plan, refusals) for action in plan.actions)
    return tuple(sorted((step for step in found if step is not None), key=_place_of))


def _place_of(step: PlannedStep) -> int:
    return _ORDER.index(step.action)


def _describe(
    cluster: Cluster, action: Action, plan: Plan, refusals: Mapping[str, tuple[Refusal, ...]]
) -> PlannedStep | None:
    match action:
        case PutReplica(replica) if replica.run:
            return _placed(cluster, replica, plan, refusals)
        case PutReplica(replica):
            return PlannedStep("stop", _title(replica), _node_name(cluster, replica), replica.because)
        case RemoveReplica(replica):
            because = replica.because if not replica.run else "it has no node to stop on"
            return PlannedStep("remove", _title(replica), _node_name(cluster, replica), because)
        case PutRevision(revision) if revision.number not in cluster.revisions.get(revision.workload_id, {}):
            before = cluster.newest_revision(revision.workload_id)
            return PlannedStep("revision", because=describe_change(before, revision))
        case RemoveRevision(_, number):
            return PlannedStep("remove", because=f"revision {number} is older than those kept")
        case RemoveWorkload():
            return PlannedStep("delete", because="nothing is left of the workload")
        case PutJournal(entry):
            return _journaled(entry)
    return None


def _placed(
    cluster: Cluster, replica: ReplicaRecord, plan: Plan, refusals: Mapping[str, tuple[Refusal, ...]]
) -> PlannedStep | None:
    """A replica that is new, or that gets its node now."""
    known = cluster.replicas.get(replica.id)
    if known is not None and (known.node_id or not replica.node_id):
        return None
    against = () if replica.node_id else refusals.get(replica.id) or next(iter(refusals.values()), ())
    return PlannedStep(
        "create" if known is None else "place",
        _title(replica),
        _node_name(cluster, replica),
        f"revision {replica.revision}",
        plan.scores.get(replica.id, replica.score),
        against,
    )


def _journaled(entry: JournalEntry) -> PlannedStep | None:
    """Decisions that no record of a replica shows: traffic, failing, going back, the end."""
    if entry.verb not in _JOURNALED or entry.phase is RolloutPhase.SUPERSEDED:
        return None
    why = f" ({entry.because})" if entry.because else ""
    return PlannedStep(entry.verb, because=f"{entry.decided}{why}")


def _title(replica: ReplicaRecord) -> str:
    return f"{replica.name}/{replica.ordinal}"


def _node_name(cluster: Cluster, replica: ReplicaRecord) -> str:
    node = cluster.nodes.get(replica.node_id)
    return node.name if node else ""
