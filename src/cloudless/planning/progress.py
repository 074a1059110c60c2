"""A rollout from its beginning to its end: superseding, users' verbs, failing, going back.

The rollout's record says only what cannot be read from the replicas. Completed once, a
rollout stays completed: what happens to replicas later is no matter of the rollout. A
failed one goes back to the revision that was proved healthy last, if it may and can; going
back fails by its deadline alone and never starts another way back.
"""

from __future__ import annotations

from collections import Counter

from cloudless.domain.rollout import (
    ACTIVE,
    MOVING,
    Rollout,
    RolloutFailure,
    RolloutPhase,
    Stage,
    TrafficShare,
)
from cloudless.domain.status import StatusRecord
from cloudless.domain.strategy import Strategy
from cloudless.planning.bounds import Bounds, bounds_of
from cloudless.planning.census import Standing
from cloudless.planning.draft import Draft
from cloudless.planning.judging import (
    aborted,
    count_failures,
    deadline_of,
    failure_lines,
    judge_rollout,
    person_deadline,
)
from cloudless.planning.limits import MAX_JOURNAL_ENTRIES
from cloudless.planning.revisions import proved_healthy
from cloudless.planning.trouble import counted, waiting_for
from cloudless.planning.verbs import Move, Shares, divided

P = RolloutPhase
#: Strategies that lead traffic; the others leave it with every ready replica.
LEADING = frozenset({Strategy.BLUE_GREEN, Strategy.CANARY})
ENDED = frozenset({P.COMPLETED, P.ROLLED_BACK, P.ABORTED})


def begin_rollout(draft: Draft, before: StatusRecord | None) -> None:
    """Set the draft's rollout: the stored one, or a new one that supersedes it."""
    known, target = before.rollout if before else None, draft.target
    strategy = draft.workload.spec.rollout.strategy
    if known is not None and known.revision == target.number:
        draft.rollout = known if known.strategy is strategy else _restrategized(known, strategy)
        return
    origin = 0
    if known is not None:
        origin = known.target if known.phase in ENDED else known.back_to or known.from_revision
        _supersede(draft, known, target.number)
    intent = draft.workload.intent
    asked = intent if intent.revision == target.number else None
    draft.rollout = Rollout(
        phase=P.PROGRESSING,
        revision=target.number,
        from_revision=origin,
        strategy=strategy,
        started_at=draft.now,
        progressed_at=draft.now,
        shares=_first_shares(draft, known, strategy),
        promotions=asked.promotions if asked else 0,
        aborts=asked.aborts if asked else 0,
        retries=asked.retries if asked else 0,
    )
    text = f"rollout of revision {target.number} started ({strategy})"
    draft.tell("RolloutStarted", text)
    came = f"from revision {origin}" if origin else "no revision before it was completed"
    draft.note("begin", f"revision {target.number}, {strategy}", came)


def _supersede(draft: Draft, known: Rollout, by: int) -> None:
    """Note with the older revision that it never got to its end."""
    if known.phase not in MOVING:
        return
    phase = P.SUPERSEDED if known.phase in ACTIVE else P.FAILED
    draft.rollout = known.replaced(phase=phase)
    text = f"rollout of revision {known.revision} superseded by revision {by}"
    draft.tell("RolloutSuperseded", text)
    draft.note("end", f"superseded by revision {by}")
    draft.revise(known.revision, phase=phase, ended_at=draft.now)


def _restrategized(known: Rollout, strategy: Strategy) -> Rollout:
    """The strategy was changed under way: it begins anew, and who serves goes on serving."""
    if known.phase in ENDED:
        return known.replaced(strategy=strategy)
    shares = known.shares if strategy in LEADING else ()
    return known.replaced(strategy=strategy, stage=Stage.SURGE, step=0, paused_until=None, shares=shares)


def _first_shares(draft: Draft, known: Rollout | None, strategy: Strategy) -> Shares:
    """All traffic stays with the replicas that have it, until the strategy leads it elsewhere.

    These are old ones, and twins of the new revision where a change was taken back.
    """
    if strategy not in LEADING or not draft.census.old:
        return ()
    there = Counter(one.record.revision for one in draft.census.staying)
    served = {share.revision for share in known.shares if share.percent} if known is not None else set()
    served = served & there.keys() or set(there)
    early = known is not None and known.phase in ACTIVE and known.stage in (Stage.SURGE, Stage.PROMOTE)
    proven = served - {known.revision} if early and known is not None else served
    settled = sum(one.settled and one.record.revision in proven for one in draft.census.staying)
    if settled >= bounds_of(draft.workload.spec).floor:
        served = proven  # what was only tried out is not needed to serve
    elif len(served) < len(there):
        served = set(there)  # too few serve: what was held back helps
    return divided({number: count for number, count in there.items() if number in served})


def take_orders(draft: Draft) -> None:
    """Take up what users asked of this rollout: pause, resume, abort, retry."""
    intent = draft.workload.intent
    if intent.revision != draft.rollout.revision:
        return
    if intent.retries > draft.rollout.retries:
        _retry(draft)
    if intent.aborts > draft.rollout.aborts:
        _abort(draft)
    phase = draft.rollout.phase
    if intent.paused and phase in (P.PROGRESSING, P.WAITING_PROMOTION):
        draft.rollout = draft.rollout.replaced(phase=P.PAUSED, waiting_since=draft.now)
        draft.tell("RolloutPaused", f"rollout of revision {intent.revision} paused")
        draft.note("pause", "no further step until resumed", "a user asked for it")
    elif not intent.paused and phase is P.PAUSED:
        draft.rollout = draft.rollout.replaced(
            phase=P.PROGRESSING, progressed_at=draft.now, waiting_since=None
        )
        draft.tell("RolloutResumed", f"rollout of revision {intent.revision} resumed")
        draft.note("resume", "goes on", "a user asked for it")


def _retry(draft: Draft) -> None:
    rollout, intent = draft.rollout, draft.workload.intent
    if rollout.phase not in (P.FAILED, P.ROLLED_BACK, P.ABORTED):
        draft.rollout = rollout.replaced(retries=intent.retries)
        return
    draft.aim(rollout.revision)
    draft.rollout = rollout.replaced(
        phase=P.PROGRESSING,
        back_to=0,
        aborted=False,
        stage=Stage.SURGE,
        step=0,
        failure=None,
        ended_at=None,
        paused_until=None,
        ready_seen=0,
        progressed_at=draft.now,
        failures=0,
        forgiven=0,
        retried_at=draft.now,
        retries=intent.retries,
        promotions=intent.promotions,
        aborts=intent.aborts,
    )
    draft.rollout = draft.rollout.replaced(shares=_first_shares(draft, None, rollout.strategy))
    draft.revise(rollout.revision, phase=None, ended_at=None)
    draft.tell("RolloutRetried", f"rollout of revision {rollout.revision} is tried again")
    draft.note("begin", f"revision {rollout.revision} again", "a user asked for it")
    for one in [one for one in draft.census.new if not one.settled]:
        draft.stop(one, "the rollout is tried again")
    draft.rollout = draft.rollout.replaced(forgiven=count_failures(draft))


def _abort(draft: Draft) -> None:
    rollout, intent = draft.rollout, draft.workload.intent
    draft.rollout = rollout.replaced(aborts=intent.aborts)
    kept = rollout.phase is P.COMPLETED and rollout.stage is Stage.RETIRE
    healthy = proved_healthy(draft.revisions, rollout.revision)
    if healthy is not None and (rollout.phase in ACTIVE or rollout.phase is P.FAILED or kept):
        draft.rollout = draft.rollout.replaced(aborted=True)
        _go_back(draft, aborted(draft), healthy.number)


def judge(draft: Draft, bounds: Bounds) -> bool:
    """Fail the rollout when it has failed, or go back when it may and there is a way back.

    Whether it did.
    """
    rollout = draft.rollout
    if rollout.phase not in MOVING:
        return False
    if not rollout.back_to:
        failures = max(rollout.failures, count_failures(draft))
        if failures != rollout.failures:
            fresh, draft.rollout = failures - rollout.failures, rollout.replaced(failures=failures)
            _note_failures(draft, fresh)
        rollout = draft.rollout
    failure = judge_rollout(draft, bounds)
    if failure is None:
        return False
    healthy = proved_healthy(draft.revisions, rollout.revision)
    if rollout.back_to:
        _fail(draft, failure, f"could not go back to revision {rollout.back_to}: {failure.message}")
    elif draft.workload.spec.rollout.auto_rollback and healthy is not None:
        _go_back(draft, failure, healthy.number)
    else:
        why = "auto_rollback is off" if healthy is not None else "no earlier revision was proved healthy"
        _fail(draft, failure, f"{failure.message}; not rolled back: {why}")
    return True


def _note_failures(draft: Draft, fresh: int) -> None:
    """A line for what has just been counted; a rollout that fails for ever leaves room for its end."""
    rollout, tolerated = draft.rollout, draft.workload.spec.rollout.max_failures
    bad = rollout.failures - rollout.forgiven
    if rollout.journal >= MAX_JOURNAL_ENTRIES // 2:
        return
    count = f"{bad} of {tolerated} tolerated" if bad <= tolerated else f"{bad}, {tolerated} are tolerated"
    draft.note("fail", f"{'; '.join(failure_lines(draft, fresh))}: {count}")


def _fail(draft: Draft, failure: RolloutFailure, text: str) -> None:
    rollout = draft.rollout
    draft.rollout = rollout.replaced(
        phase=P.FAILED,
        failure=rollout.failure or failure,
        because=text,
        ended_at=draft.now,
        waiting_since=None,
    )
    draft.tell("RolloutFailed", f"rollout of revision {rollout.revision} failed: {text}", warning=True)
    draft.note("judge", "failed, stops where it is", text)
    draft.revise(rollout.revision, phase=P.FAILED, ended_at=draft.now)


def _go_back(draft: Draft, failure: RolloutFailure, number: int) -> None:
    """From now on replicas are made from revision ``number``."""
    rollout = draft.rollout
    what = "aborted" if rollout.aborted else "failed"
    draft.rollout = rollout.replaced(
        phase=P.ROLLING_BACK,
        back_to=number,
        failure=failure,
        stage=Stage.SURGE,
        paused_until=None,
        waiting_since=None,
        ended_at=None,
        ready_seen=0,
        progressed_at=draft.now,
    )
    how = failure.message if rollout.aborted else f"failed: {failure.message}"
    text = f"rollout of revision {rollout.revision} {how}; going back to revision {number}"
    draft.tell("RollbackStarted", text, warning=not rollout.aborted)
    why = "a user asked for it" if rollout.aborted else failure.message
    draft.note("judge", f"{what}, back to revision {number}", why)
    draft.aim(number)
    settled = sum(one.settled for one in draft.census.new)
    draft.rollout = draft.rollout.replaced(ready_seen=settled)


def note_progress(draft: Draft, *, scaled: bool) -> bool:
    """Whether more new replicas have settled than ever before; that, like scaling, is progress."""
    rollout = draft.rollout
    settled = sum(one.settled for one in draft.census.new)
    further = settled > rollout.ready_seen
    if further and not rollout.ready_seen and rollout.phase in ACTIVE:
        first = min((one for one in draft.census.new if one.settled), key=_ready_since)
        draft.note("ready", f"{first.title} is the first of revision {first.record.revision} to be available")
        rollout = draft.rollout
    if further or scaled:
        draft.rollout = rollout.replaced(progressed_at=draft.now, ready_seen=max(settled, rollout.ready_seen))
    return further


def _ready_since(one: Standing) -> tuple[float, int]:
    since = one.observation.ready_since if one.observation is not None else None
    return since.timestamp() if since is not None else 0.0, one.record.ordinal


def conclude_rollout(draft: Draft, move: Move, bounds: Bounds) -> bool:
    """Where the rollout is after this plan; adds its events, and the times to look again.

    Whether it has ended with this plan.
    """
    rollout, now = draft.rollout, draft.now
    if rollout.paused_until is not None and rollout.paused_until > now:
        draft.wake(rollout.paused_until)
    if rollout.phase in ENDED:
        tidy(draft)
        return False
    if rollout.phase is P.PAUSED:
        _await_person(draft, "paused by a user until resumed")
        return False
    if move.done and not move.verbs:
        _end(draft, bounds)
        return True
    if rollout.phase is P.FAILED:
        return False
    if move.promotion:
        _await_promotion(draft)
        return False
    phase = P.ROLLING_BACK if rollout.back_to else P.PROGRESSING
    if rollout.paused_until is not None and rollout.paused_until > now:
        at = f"{rollout.paused_until:%H:%M:%S} UTC"
        watch = rollout.stage is Stage.BAKE
        because = f"watching the new replicas until {at}" if watch else f"pausing until {at}"
    else:
        because = f"waiting for {waiting_for(draft.census, bounds)}"
        draft.wake(deadline_of(rollout, draft.workload.spec.rollout.progress_deadline))
    draft.rollout = rollout.replaced(phase=phase, because=because, waiting_since=None)
    return False


def _await_promotion(draft: Draft) -> None:
    rollout = draft.rollout
    if rollout.phase is not P.WAITING_PROMOTION:
        draft.rollout = rollout.replaced(
            phase=P.WAITING_PROMOTION, progressed_at=draft.now, waiting_since=draft.now
        )
        draft.tell("RolloutWaits", f"rollout of revision {rollout.revision} waits to be promoted")
        draft.note("pause", "wait to be promoted")
    _await_person(draft, "waiting to be promoted")


def _await_person(draft: Draft, what: str) -> None:
    """Say until when somebody is waited for, and look again then."""
    if draft.rollout.waiting_since is None:  # it was written by an older version
        draft.rollout = draft.rollout.replaced(waiting_since=draft.now)
    until = person_deadline(draft.rollout, draft.workload.spec.rollout.pause_deadline)
    if until is not None:
        draft.wake(until)
        draft.rollout = draft.rollout.replaced(because=f"{what}, at most until {until:%Y-%m-%d %H:%M:%S} UTC")


def _end(draft: Draft, bounds: Bounds) -> None:
    """The target is reached."""
    rollout, now = draft.rollout, draft.now
    if not rollout.back_to:
        draft.rollout = rollout.replaced(
            phase=P.COMPLETED, because="", failure=None, ended_at=now, waiting_since=None
        )
        draft.tell(
            "RolloutCompleted",
            f"rollout of revision {rollout.revision} completed: {counted(bounds.desired)} updated",
        )
        draft.note("end", "completed", "every wanted replica is of the new revision and available")
        proof = {"healthy_at": now} if bounds.desired else {}  # none of it has run: that proves nothing
        draft.revise(rollout.revision, phase=P.COMPLETED, ended_at=now, **proof)
    else:
        phase, what = (P.ABORTED, "aborted") if rollout.aborted else (P.ROLLED_BACK, "rolled back")
        text = f"revision {rollout.revision} {what}: revision {rollout.back_to} is in its place"
        because = f"revision {rollout.back_to} is in its place"
        if rollout.failure is not None:
            because = f"{because}; {rollout.failure.message}"
        draft.rollout = rollout.replaced(phase=phase, because=because, ended_at=now)
        reason = "RolloutAborted" if rollout.aborted else "RolloutRolledBack"
        draft.tell(reason, text, warning=not rollout.aborted)
        draft.note("end", what, f"revision {rollout.back_to} is in its place")
        draft.revise(rollout.revision, phase=phase, ended_at=now)
    tidy(draft)


def tidy(draft: Draft) -> None:
    """With one set of replicas left, traffic needs no leading."""
    rollout = draft.rollout
    if rollout.phase not in ENDED or draft.census.replacing:
        return
    if rollout.shares or rollout.paused_until is not None or rollout.stage is not Stage.SURGE:
        draft.rollout = rollout.replaced(shares=(), paused_until=None, stage=Stage.SURGE)


def shares_text(shares: tuple[TrafficShare, ...]) -> str:
    """Who gets the traffic, for people: ``90 % revision 1, 10 % revision 2``."""
    return ", ".join(f"{one.percent} % revision {one.revision}" for one in shares) or "every ready replica"
