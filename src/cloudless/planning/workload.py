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
from cloudless.domain.status import StatusRecord
from cloudless.domain.strategy import Strategy
from cloudless.planning.announce import workload_event
from cloudless.planning.bounds import Bounds, bounds_of
from cloudless.planning.carrying import take_moves
from cloudless.planning.conditions import Refusals, judge_conditions, settled_messages
from cloudless.planning.deletion import plan_deletion, plan_orphans
from cloudless.planning.draft import Draft
from cloudless.planning.placement import place_pending
from cloudless.planning.progress import (
    begin_rollout,
    conclude_rollout,
    judge,
    note_progress,
    take_orders,
    tidy,
)
from cloudless.planning.proof import review_proofs
from cloudless.planning.replicas import clear_lost, stop_duplicates, surge
from cloudless.planning.revisions import (
    describe_change,
    proved_healthy,
    settled_revisions,
    surplus_revisions,
)
from cloudless.planning.trouble import counted


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
    newest = draft.target.number
    _announce_revision(draft)
    begin_rollout(draft, before)
    take_orders(draft)
    draft.aim(draft.rollout.target)
    clear_lost(draft, bounds)
    stop_duplicates(draft)
    scaled = _note_scaling(draft, before, bounds)
    further = note_progress(draft, scaled=scaled)
    review_proofs(draft, bounds)
    judge(draft, bounds)
    move = take_moves(draft, bounds, further=further)
    if judge(draft, bounds):  # what the moves left cannot go on: the way back begins in the same plan
        move = take_moves(draft, bounds, further=False)
    refusals = place_pending(draft, before.refusals if before else {})
    clear_lost(draft, bounds)
    if conclude_rollout(draft, move, bounds) and draft.census.replacing:
        take_moves(draft, bounds, further=False)  # an old set that is not kept goes with the same plan
        tidy(draft)
        there = {one.record.id for one in draft.census.everyone}
        refusals = {replica: why for replica, why in refusals.items() if replica in there}
    _keep_revisions(draft)
    _conclude(draft, before, bounds, newest, refusals)
    return draft.plan()


def _announce_revision(draft: Draft) -> None:
    """Say what a new revision changes."""
    before = draft.cluster.newest_revision(draft.workload.id)
    if before is None or before.number != draft.target.number:
        text = describe_change(before, draft.target)
        draft.events.append(workload_event(draft.workload, draft.now, "RevisionCreated", text))
        draft.say(text)


def _keep_revisions(draft: Draft) -> None:
    """Store the new revision and digests that became known; forget what is beyond those kept.

    What replicas are made from, or may have to go back to, is always kept.
    """
    stored = draft.cluster.revisions.get(draft.workload.id, {})
    used = {one.record.revision for one in draft.census.everyone} | {draft.rollout.target}
    healthy = proved_healthy(draft.revisions, draft.rollout.revision)
    surplus = surplus_revisions(draft.revisions, used | {healthy.number} if healthy else used)
    for number, revision in draft.revisions.items():
        if number in surplus:
            draft.actions.append(RemoveRevision(draft.workload.id, number))
        elif stored.get(number) is not revision:
            draft.actions.append(PutRevision(revision))


def _note_scaling(draft: Draft, before: StatusRecord | None, bounds: Bounds) -> bool:
    """Whether the wanted number of replicas is another than when last looked at.

    Scaling out in the middle of a rolling update is spread in proportion over old and
    new: the old ones' part is created here, the new ones' part by the next steps.
    """
    wanted = draft.workload.spec.replicas
    if before is None or before.desired == wanted:
        return False
    text = f"scaled from {before.desired} to {counted(wanted)}"
    draft.tell("WorkloadScaled", text)
    census, grown = draft.census, wanted - before.desired
    if census.replacing:
        draft.note("scale", text)
    rolling = draft.workload.spec.rollout.strategy is Strategy.ROLLING_UPDATE
    if rolling and grown > 0 and census.old:
        part = grown * len(census.old) // (len(census.old) + len(census.new))
        room = max(0, bounds.desired + bounds.surge - census.existing)
        newest = max(one.record.revision for one in census.old)
        surge(draft, min(part, room), newest, f"{text} in the middle of a rollout")
    return True


def _conclude(
    draft: Draft, before: StatusRecord | None, bounds: Bounds, newest: int, refusals: Refusals
) -> None:
    """Store what was concluded, if it is anything new."""
    known = before.conditions if before else ()
    fresh = judge_conditions(draft.census, bounds, draft.rollout, refusals, known, draft.now)
    status = StatusRecord(
        workload_id=draft.workload.id,
        observed_generation=draft.workload.generation,
        desired=bounds.desired,
        revision=newest,
        conditions=settled_messages(fresh, known),
        rollout=draft.rollout,
        refusals=refusals,
    )
    if status != before:
        draft.actions.append(PutStatus(status))
    for one in draft.census.everyone:
        if one.available_at is not None:
            draft.wake(one.available_at)
