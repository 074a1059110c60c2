"""What is true of a workload now: counts, replicas, conditions, one sentence.

``view_workload`` serves every question about status. Nothing in it is older than the
snapshot it was made from: counts and messages follow from records, observations and
the time, and only what cannot be computed (since when, where a rollout is) was stored.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field

from cloudless.domain.cluster import Cluster
from cloudless.domain.replica import Observation, ReplicaPhase, ReplicaRecord
from cloudless.domain.rollout import Rollout, RolloutPhase
from cloudless.domain.status import Refusal, StatusRecord
from cloudless.domain.workload import WorkloadRecord
from cloudless.planning.bounds import bounds_of
from cloudless.planning.census import Census, Standing, current_numbers, take_census
from cloudless.planning.conditions import Refusals, explain, judge_conditions
from cloudless.planning.explain import RolloutFacts, rollout_facts
from cloudless.planning.trouble import counted, worst_of


@dataclass(frozen=True, slots=True)
class ReplicaView:
    """One replica as people see it; ``observation`` is None until its node speaks of it."""

    record: ReplicaRecord
    observation: Observation | None
    phase: ReplicaPhase
    ready: bool
    available: bool
    node_name: str = ""
    message: str = ""
    refusals: tuple[Refusal, ...] = ()


@dataclass(frozen=True, slots=True)
class WorkloadView:
    """A workload's status; counts are numbers of replicas.

    ``current`` counts all that exist, those on their way out too; ``updated`` those of
    the newest revision's template; ``valid_until`` is when time alone changes a count.
    """

    desired: int = 0
    ready: int = 0
    available: int = 0
    updated: int = 0
    current: int = 0
    replicas: tuple[ReplicaView, ...] = ()
    status: StatusRecord | None = None
    message: str = ""
    valid_until: datetime.datetime | None = field(default=None)
    rollout: RolloutFacts | None = None


def view_workload(cluster: Cluster, workload_id: str, now: datetime.datetime) -> WorkloadView:
    """The status of a workload at ``now``; raises ``KeyError`` for an unknown id."""
    workload = cluster.workloads[workload_id]
    known = cluster.revisions.get(workload_id, {})
    newest = known[max(known)] if known else None
    stored = cluster.statuses.get(workload_id)
    rollout = stored.rollout if stored is not None else None
    back = rollout is not None and newest is not None and rollout.revision == newest.number
    target = known.get(rollout.target, newest) if back and rollout is not None else newest
    census = take_census(cluster, workload, current_numbers(known, target), now)
    updated = current_numbers(known, newest)
    status = _fresh(cluster, workload, census, now)
    refusals = status.refusals if status else {}
    everyone = census.everyone
    return WorkloadView(
        desired=0 if workload.deleted_at else workload.spec.replicas,
        ready=sum(one.ready for one in everyone),
        available=sum(one.available for one in everyone),
        updated=sum(one.record.revision in updated and one.record.run and not one.lost for one in everyone),
        current=len(everyone),
        replicas=tuple(_replica(one, refusals, census) for one in everyone),
        status=status,
        message=_sentence(workload, census, status),
        valid_until=min((one.available_at for one in everyone if one.available_at), default=None),
        rollout=rollout_facts(cluster, workload, rollout, census, refusals, now),
    )


def _fresh(
    cluster: Cluster, workload: WorkloadRecord, census: Census, now: datetime.datetime
) -> StatusRecord | None:
    """The stored status with its conditions judged anew, if it speaks of the current spec."""
    status = cluster.statuses.get(workload.id)
    if status is None or status.observed_generation != workload.generation or workload.deleted_at:
        return status
    bounds = bounds_of(workload.spec)
    fresh = judge_conditions(census, bounds, status.rollout, status.refusals, status.conditions, now)
    return status if fresh == status.conditions else status.replaced(conditions=fresh)


def _replica(one: Standing, refusals: Refusals, census: Census) -> ReplicaView:
    pending = one.phase is ReplicaPhase.PENDING
    against = refusals.get(one.record.id, ()) if pending else ()
    if pending and not against:
        against = next(iter(refusals.values()), ())
    return ReplicaView(
        record=one.record,
        observation=one.observation,
        phase=one.phase,
        ready=one.ready,
        available=one.available,
        node_name=one.node.name if one.node else "",
        message=_replica_message(one, refusals),
        refusals=against,
    )


#: What a node says of a replica that it stops when there is nothing more to tell.
STOPS = "stops"


def _replica_message(one: Standing, refusals: Refusals) -> str:
    if one.phase is ReplicaPhase.STOPPING:
        seen = one.observation
        told = seen.message if seen is not None and seen.phase is ReplicaPhase.STOPPING else ""
        return "; ".join(part for part in (one.record.because, told) if part and part != STOPS)
    if one.settled or one.ready:
        return one.observation.message if one.observation else ""
    return explain(one, refusals)


def _sentence(workload: WorkloadRecord, census: Census, status: StatusRecord | None) -> str:
    """One sentence for a person."""
    desired, everyone = workload.spec.replicas, census.everyone
    if workload.deleted_at is not None:
        return f"being deleted: {counted(len(everyone))} left"
    if status is None or status.observed_generation != workload.generation:
        return "accepted, not planned yet"
    if desired == 0:
        return f"scaled to 0: {counted(len(everyone))} left" if everyone else "scaled to 0"
    rollout, refusals = status.rollout, status.refusals
    text = _counts(census, desired)
    told = _PHASES.get(rollout.phase) if rollout is not None else None
    if rollout is not None and told is not None:
        return f"revision {rollout.revision} {told}, {text}: {rollout.because}"
    if rollout is not None and rollout.phase is RolloutPhase.PROGRESSING and census.replacing:
        text = f"{_updated(rollout, census, desired)}, {text}"
    worst = worst_of(census.staying + census.lost)
    return f"{text}: {worst.title}: {explain(worst, refusals)}" if worst else text


#: What is said of rollouts that are not simply on their way or done.
_PHASES = {
    RolloutPhase.FAILED: "failed",
    RolloutPhase.ROLLING_BACK: "is taken back",
    RolloutPhase.ROLLED_BACK: "was rolled back",
    RolloutPhase.ABORTED: "was aborted",
    RolloutPhase.PAUSED: "is paused",
    RolloutPhase.WAITING_PROMOTION: "waits to be promoted",
}


def _updated(rollout: Rollout, census: Census, desired: int) -> str:
    return f"revision {rollout.revision}: {len(census.new)} of {desired} replicas updated"


def _counts(census: Census, desired: int) -> str:
    ready = sum(one.ready for one in census.everyone)
    available = sum(one.available for one in census.everyone)
    done = sum(one.phase is ReplicaPhase.SUCCEEDED and one.record.run for one in census.everyone)
    if done:
        running = f", {ready} ready" if ready else ""
        return f"{done} of {desired} replicas succeeded{running}"
    if ready < desired:
        return f"{ready} of {desired} ready"
    return f"{available} of {desired} replicas available"
