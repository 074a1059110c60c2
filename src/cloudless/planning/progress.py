"""Where a rollout is: progressing, completed, or stalled, and what it waits for.

The rollout's record says only what cannot be read from the replicas: which revision,
since when, when it last got further, how long it pauses. Completed once, a rollout
stays completed: what happens to replicas later is no matter of the rollout.
"""

from __future__ import annotations

import datetime

from cloudless.domain.replica import ReplicaPhase
from cloudless.domain.status import Rollout, RolloutPhase, StatusRecord
from cloudless.domain.workload import Strategy
from cloudless.planning.announce import workload_event
from cloudless.planning.census import Census, Standing
from cloudless.planning.draft import Draft
from cloudless.planning.limits import MAX_QUOTED
from cloudless.planning.rolling import Bounds, deadlock

_TROUBLE = (
    ReplicaPhase.FAILED,
    ReplicaPhase.BACKING_OFF,
    ReplicaPhase.PENDING,
    ReplicaPhase.UNKNOWN,
    ReplicaPhase.STARTING,
    ReplicaPhase.RUNNING,
)


def begin_rollout(draft: Draft, before: StatusRecord | None) -> Rollout:
    """The rollout that is on: the stored one, or a new one that supersedes it."""
    known, target = before.rollout if before else None, draft.target
    strategy = draft.workload.spec.rollout.strategy
    if known is not None and known.revision == target.number:
        return known if known.strategy is strategy else known.replaced(strategy=strategy)
    origin = 0
    if known is not None:
        done = known.phase is RolloutPhase.COMPLETED
        origin = known.revision if done else known.from_revision
        if not done:
            text = f"rollout of revision {known.revision} superseded by revision {target.number}"
            draft.events.append(workload_event(draft.workload, draft.now, "RolloutSuperseded", text))
    text = f"rollout of revision {target.number} started ({strategy})"
    draft.events.append(workload_event(draft.workload, draft.now, "RolloutStarted", text))
    return Rollout(
        phase=RolloutPhase.PROGRESSING,
        revision=target.number,
        from_revision=origin,
        strategy=strategy,
        started_at=draft.now,
        progressed_at=draft.now,
    )


def is_paused(rollout: Rollout, now: datetime.datetime) -> bool:
    """Whether the pause between two batches is on."""
    return rollout.paused_until is not None and now < rollout.paused_until


def note_progress(draft: Draft, rollout: Rollout, *, scaled: bool) -> Rollout:
    """The rollout before its next step: whether it got further, and whether a batch is done."""
    if rollout.phase is RolloutPhase.COMPLETED:
        return rollout
    census, pause = draft.census, draft.workload.spec.rollout.pause_duration
    settled = sum(one.settled for one in census.new)
    further = settled > rollout.ready_seen
    if further and pause and census.old and settled == len(census.new) < draft.workload.spec.replicas:
        rollout = rollout.replaced(paused_until=draft.now + pause)
    if further or scaled:
        rollout = rollout.replaced(progressed_at=draft.now, ready_seen=max(settled, rollout.ready_seen))
    return rollout


def conclude_rollout(draft: Draft, rollout: Rollout, bounds: Bounds) -> Rollout:
    """The rollout after this plan; adds its events, and the times to look again."""
    if rollout.phase is RolloutPhase.COMPLETED:
        return rollout
    census, now, spec = draft.census, draft.now, draft.workload.spec.rollout
    if draft.stepped:
        rollout = rollout.replaced(progressed_at=now)
    if _completed(census, bounds):
        rollout = rollout.replaced(phase=RolloutPhase.COMPLETED, paused_until=None, because="")
        text = f"rollout of revision {rollout.revision} completed: {bounds.desired} replicas updated"
        draft.events.append(workload_event(draft.workload, now, "RolloutCompleted", text))
        return rollout
    since = max(rollout.progressed_at, rollout.paused_until or rollout.progressed_at)
    deadline = since + spec.progress_deadline
    failure = _failure(census)
    if not failure and spec.strategy is Strategy.ROLLING_UPDATE:
        failure = deadlock(census, bounds)
    if not failure and now >= deadline:
        failure = (
            f"no progress for {spec.progress_deadline.total_seconds():g} s: {waiting_for(census, bounds)}"
        )
    if failure:
        return _stalled(draft, rollout, failure)
    draft.wake(deadline)
    if is_paused(rollout, now) and rollout.paused_until is not None:
        draft.wake(rollout.paused_until)
        because = f"pausing until {rollout.paused_until:%H:%M:%S} UTC before the next batch"
    else:
        because = f"waiting for {waiting_for(census, bounds)}"
    return rollout.replaced(phase=RolloutPhase.PROGRESSING, because=because)


def _stalled(draft: Draft, rollout: Rollout, failure: str) -> Rollout:
    if rollout.phase is not RolloutPhase.STALLED:
        text = f"rollout of revision {rollout.revision} stalled: {failure}"
        draft.events.append(workload_event(draft.workload, draft.now, "RolloutStalled", text, warning=True))
        draft.say(text)
    return rollout.replaced(phase=RolloutPhase.STALLED, because=failure)


def _completed(census: Census, bounds: Bounds) -> bool:
    if census.old or any(not one.current for one in census.lost):
        return False
    return len(census.new) == bounds.desired and all(one.settled for one in census.new)


def _failure(census: Census) -> str:
    """The sentence about a new replica that failed for good, if there is one."""
    for one in census.new:
        if one.phase is ReplicaPhase.FAILED:
            return f"{one.title} failed: {trouble_of(one)}"
    return ""


def worst_of(standings: list[Standing]) -> Standing | None:
    """Of replicas that have not settled, the one that explains most."""
    open_ones = [one for one in standings if not one.settled and one.phase in _TROUBLE]
    return min(open_ones, key=lambda one: _TROUBLE.index(one.phase), default=None)


def waiting_for(census: Census, bounds: Bounds) -> str:
    """What has to happen next, in words that change only when that does."""
    worst = worst_of(census.new)
    if worst is not None:
        return f"{worst.title} ({worst.phase}) of revision {worst.record.revision}"
    if census.leaving:
        return f"{len(census.leaving)} old replicas to stop"
    if census.old:
        return f"{len(census.old)} old replicas to be replaced"
    return f"{bounds.desired - len(census.new)} replicas to be created"


def trouble_of(one: Standing) -> str:
    """Why a replica is not well, from what its node said."""
    seen = one.observation
    if seen is None:
        return "no word from its node yet"
    text = seen.message or (seen.last_exit.reason if seen.last_exit else "")
    if not text and seen.last_exit is not None:
        text = f"exit code {seen.last_exit.code}"
    return (text or "no reason given")[:MAX_QUOTED]
