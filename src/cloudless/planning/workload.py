"""The decision about one workload, start to end: the table of contents of planning.

``plan_workload`` is called by the coordinator's control loop for each workload that may
have changed, and by dry runs. Its plan is one transaction; applied, the same call gives
an empty plan, until something is observed or ``wake_at`` has come.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable

from cloudless.domain.cluster import Cluster
from cloudless.domain.plan import Plan, PutRevision, PutStatus, RemoveRevision
from cloudless.domain.status import Rollout, StatusRecord
from cloudless.domain.workload import Strategy
from cloudless.planning.announce import workload_event
from cloudless.planning.conditions import Refusals, judge, settled_messages
from cloudless.planning.deletion import plan_deletion, plan_orphans
from cloudless.planning.draft import Draft
from cloudless.planning.placement import place_pending
from cloudless.planning.progress import begin_rollout, conclude_rollout, is_paused, note_progress
from cloudless.planning.recreate import step_recreate
from cloudless.planning.replicas import clear_lost, heal_old, settle_count, stop_duplicates, take_step
from cloudless.planning.revisions import (
    describe_change,
    settled_revisions,
    surplus_revisions,
)
from cloudless.planning.rolling import Bounds, Step, bounds_of, step_rolling

#: Most steps of a rollout in one plan.
MAX_STEPS = 4


def plan_workload(
    cluster: Cluster, workload_id: str, now: datetime.datetime, new_id: Callable[[], str]
) -> Plan:
    """Everything that is to be done for one workload now; empty when nothing is."""
    workload = cluster.workloads.get(workload_id)
    if workload is None:
        return plan_orphans(cluster, workload_id, now)
    if workload.deleted_at is not None:
        return plan_deletion(cluster, workload, now)
    before = cluster.statuses.get(workload_id)
    draft = Draft(cluster, workload, settled_revisions(cluster, workload, now), now, new_id)
    bounds = bounds_of(workload.spec)
    _announce_revision(draft)
    scaled = _note_scaling(draft, before)
    rollout = begin_rollout(draft, before)
    clear_lost(draft, bounds)
    stop_duplicates(draft)
    rollout = note_progress(draft, rollout, scaled=scaled)
    _take_steps(draft, rollout, bounds)
    refusals = place_pending(draft, before.refusals if before else {})
    clear_lost(draft, bounds)
    rollout = conclude_rollout(draft, rollout, bounds)
    _keep_revisions(draft)
    _conclude(draft, before, bounds, rollout, refusals)
    return draft.plan()


def _announce_revision(draft: Draft) -> None:
    """Say what a new revision changes."""
    before = draft.cluster.newest_revision(draft.workload.id)
    if before is None or before.number != draft.target.number:
        text = describe_change(before, draft.target)
        draft.events.append(workload_event(draft.workload, draft.now, "RevisionCreated", text))
        draft.say(text)


def _keep_revisions(draft: Draft) -> None:
    """Store the new revision and digests that became known; forget what is beyond those kept."""
    stored = draft.cluster.revisions.get(draft.workload.id, {})
    used = {one.record.revision for one in draft.census.everyone}
    surplus = surplus_revisions(draft.revisions, used)
    for number, revision in draft.revisions.items():
        if number in surplus:
            draft.actions.append(RemoveRevision(draft.workload.id, number))
        elif stored.get(number) is not revision:
            draft.actions.append(PutRevision(revision))


def _note_scaling(draft: Draft, before: StatusRecord | None) -> bool:
    """Whether the wanted number of replicas is another than when last looked at."""
    wanted = draft.workload.spec.replicas
    if before is None or before.desired == wanted:
        return False
    text = f"scaled from {before.desired} to {wanted} replicas"
    draft.events.append(workload_event(draft.workload, draft.now, "WorkloadScaled", text))
    draft.say(text)
    return True


def _take_steps(draft: Draft, rollout: Rollout, bounds: Bounds) -> None:
    """The next step, and those that it makes possible at once.

    A replica without a node, or on a lost one, is gone as soon as it is told to stop,
    which may leave room for the next one.
    """
    for _ in range(MAX_STEPS):
        heal_old(draft, bounds)
        step = _next_step(draft, rollout, bounds)
        take_step(draft, step, *_reasons(draft, step))
        if all(one.record.node_id and not one.node_lost for one in step.stops):
            break


def _next_step(draft: Draft, rollout: Rollout, bounds: Bounds) -> Step:
    if not draft.census.replacing:
        return settle_count(draft.census, bounds.desired)
    strategy = draft.workload.spec.rollout
    if strategy.strategy is Strategy.RECREATE:
        return step_recreate(draft.census, bounds.desired)
    paused = is_paused(rollout, draft.now)
    return step_rolling(draft.census, bounds, paused=paused, pausing=bool(strategy.pause_duration))


def _reasons(draft: Draft, step: Step) -> tuple[str, str]:
    """Why replicas stop, and why new ones are made."""
    revision = draft.target.number
    if draft.census.replacing:
        return f"replaced by revision {revision}", f"rollout of revision {revision}"
    return step.because, f"{draft.workload.spec.replicas} replicas wanted"


def _conclude(
    draft: Draft, before: StatusRecord | None, bounds: Bounds, rollout: Rollout, refusals: Refusals
) -> None:
    """Store what was concluded, if it is anything new."""
    known = before.conditions if before else ()
    fresh = judge(draft.census, bounds, rollout, refusals, known, draft.now)
    status = StatusRecord(
        workload_id=draft.workload.id,
        observed_generation=draft.workload.generation,
        desired=bounds.desired,
        revision=draft.target.number,
        conditions=settled_messages(fresh, known),
        rollout=rollout,
        refusals=refusals,
    )
    if status != before:
        draft.actions.append(PutStatus(status))
    for one in draft.census.everyone:
        if one.available_at is not None:
            draft.wake(one.available_at)
