"""What a rollout shows beyond its record: counts, the deadline, and why it is where it is.

``view_workload`` puts ``RolloutFacts`` into the view; the wire shows them. Nothing here
is stored: all of it follows from the replicas, the record and the time.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass

from cloudless.domain.cluster import Cluster
from cloudless.domain.rollout import MOVING, Rollout, RolloutPhase
from cloudless.domain.workload import WorkloadRecord
from cloudless.planning.census import Census, Standing
from cloudless.planning.conditions import Refusals, explain
from cloudless.planning.judging import deadline_of, person_deadline
from cloudless.planning.limits import MAX_EXPLAINED
from cloudless.planning.revisions import template_key
from cloudless.planning.trouble import exit_text


@dataclass(frozen=True, slots=True)
class Reason:
    """One line of a tree of reasons in reading order; ``depth`` 0 is a root."""

    depth: int
    text: str
    #: ``web/1`` when it is about one replica.
    replica: str = ""


@dataclass(frozen=True, slots=True)
class RolloutFacts:
    """What follows from the replicas of a rollout now; counts are numbers of replicas.

    ``new_replicas`` are those of the revision that is made now (``Rollout.target``);
    ``pending`` is true while something asked for is not taken up yet.
    """

    new_replicas: int = 0
    new_available: int = 0
    old_replicas: int = 0
    deadline: datetime.datetime | None = None
    reasons: tuple[Reason, ...] = ()
    pending: bool = False


def rollout_facts(
    cluster: Cluster,
    workload: WorkloadRecord,
    rollout: Rollout | None,
    census: Census,
    refusals: Refusals,
    now: datetime.datetime,
) -> RolloutFacts:
    """The facts of a workload's rollout at ``now``; ``census`` is that of its target."""
    if rollout is None:
        return RolloutFacts(pending=True)
    waits = rollout.paused_until is not None and rollout.paused_until > now
    timed = rollout.phase in (RolloutPhase.PROGRESSING, RolloutPhase.ROLLING_BACK) and not waits
    strategy = workload.spec.rollout
    deadline = person_deadline(rollout, strategy.pause_deadline)
    if timed:
        deadline = deadline_of(rollout, strategy.progress_deadline)
    return RolloutFacts(
        new_replicas=len(census.new),
        new_available=sum(one.settled for one in census.new),
        old_replicas=len(census.old) + sum(not one.current for one in census.leaving),
        deadline=deadline,
        reasons=_reasons(rollout, census, refusals),
        pending=_is_pending(cluster, workload, rollout),
    )


def _is_pending(cluster: Cluster, workload: WorkloadRecord, rollout: Rollout) -> bool:
    """Whether the workload asks for something that its rollout knows nothing of yet."""
    newest = cluster.newest_revision(workload.id)
    status = cluster.statuses.get(workload.id)
    if newest is None or status is None or status.observed_generation != workload.generation:
        return True
    if newest.template_hash != template_key(workload) or rollout.revision != newest.number:
        return True
    intent = workload.intent
    if intent.revision != rollout.revision:
        return False
    asked = intent.aborts > rollout.aborts or intent.retries > rollout.retries
    promoted = rollout.phase is RolloutPhase.WAITING_PROMOTION and intent.promotions > rollout.promotions
    asked = asked or promoted
    waits = rollout.phase in (RolloutPhase.PROGRESSING, RolloutPhase.WAITING_PROMOTION)
    return asked or (intent.paused and waits) or (not intent.paused and rollout.phase is RolloutPhase.PAUSED)


def _reasons(rollout: Rollout, census: Census, refusals: Refusals) -> tuple[Reason, ...]:
    """Why a rollout is where it is: what it is at, what it waits for, what each replica says."""
    if rollout.phase is RolloutPhase.COMPLETED:
        return ()
    tree = [Reason(0, rollout.because or f"revision {rollout.revision} is {rollout.phase.lower()}")]
    if rollout.phase in MOVING:
        tree.append(Reason(1, census.summary(rollout.target)))
    waiting = [one for one in census.new if not one.settled]
    tree += [Reason(2, f"{one.title}: {_told(one, refusals)}", one.title) for one in waiting[:MAX_EXPLAINED]]
    if len(waiting) > MAX_EXPLAINED:
        tree.append(Reason(2, f"and {len(waiting) - MAX_EXPLAINED} more"))
    failure = rollout.failure
    if failure is not None:
        tree.append(Reason(0, failure.message, failure.replica))
        tree += [Reason(1, end, end.partition(": ")[0]) for end in failure.ends]
        tree += [Reason(1, f"changed: {change}") for change in failure.changes]
    return tuple(tree)


def _told(one: Standing, refusals: Refusals) -> str:
    """Why a replica is not there yet, and how it ended before if it did."""
    text, seen = explain(one, refusals), one.observation
    if seen is None or seen.last_exit is None or f"exit code {seen.last_exit.code}" in text:
        return text
    return f"{text}; it ended before with {exit_text(seen.last_exit)}"
