"""Has a rollout failed, and what explains it best? Pure judgement; ``progress`` acts on it.

A rollout fails when a new replica can never start or ended for good, when more of them
ended badly than ``max_failures``, when nothing got further within ``progress_deadline``,
when its bounds leave no step to take, or when it waited for a person for longer than
``pause_deadline``. While it waits for one its replicas are judged all the same.
"""

from __future__ import annotations

import datetime
import re

from cloudless.domain.quantity import format_duration
from cloudless.domain.replica import ReplicaPhase
from cloudless.domain.revision import Revision
from cloudless.domain.rollout import PERSONAL, Rollout, RolloutFailure, RolloutPhase
from cloudless.domain.strategy import Strategy
from cloudless.planning.bounds import Bounds
from cloudless.planning.census import Standing
from cloudless.planning.changes import revision_changes
from cloudless.planning.conditions import explain
from cloudless.planning.draft import Draft
from cloudless.planning.limits import MAX_EXPLAINED, MAX_LOG_CHARACTERS, MAX_LOG_LINES
from cloudless.planning.rolling import deadlock
from cloudless.planning.trouble import exit_text, trouble_of, waiting_for, worst_of

#: How a node's message ends as long as it goes on trying.
_NEXT_TRY = re.compile(r"; (?:restart [0-9]+|next try) after [0-9.]+ s$")
#: A wait for a person that was too long: nothing goes on by itself after it.
LEFT_ALONE = "PauseDeadlineExceeded"
TOO_MANY = "TooManyFailures"
#: How a node's message begins when trying again is in vain.
HOPELESS = ("ImageNotFound", "ImagePullDenied", "ImageInvalid", "InvalidSpec")


def count_failures(draft: Draft) -> int:
    """Bad ends of replicas of the revision that is rolled out, as far as they can still be seen.

    A start that fails counts from the second one in a row: a registry may blink.
    """
    revision = draft.rollout.revision
    census = draft.census
    candidates = census.everyone if draft.target.number != revision else census.everyone_but_old
    return sum([bad_ends(one) for one in candidates if _is_tried(draft, one, revision)])


def _is_tried(draft: Draft, one: Standing, revision: int) -> bool:
    """Whether a replica is of the revision that is rolled out, and not of an earlier try of it."""
    record, retried_at = one.record, draft.rollout.retried_at
    if record.revision != revision:
        return False
    return record.run or retried_at is None or record.stopped_at is None or record.stopped_at > retried_at


def failure_lines(draft: Draft, count: int) -> list[str]:
    """What the last ``count`` failures were, the latest first: ``web/2 ended with exit code 3``.

    The record knows only how many there were, so these are the replicas that failed last.
    """
    revision = draft.rollout.revision
    bad = [one for one in draft.census.everyone if _is_tried(draft, one, revision) and bad_ends(one)]
    return [_failure_line(one) for one in sorted(bad, key=_failed_last)[: min(count, MAX_EXPLAINED)]]


def _failure_line(one: Standing) -> str:
    seen = one.observation
    if seen is not None and seen.last_exit is not None and seen.failed_starts < 2:
        return f"{one.title} ended with {exit_text(seen.last_exit)}"
    if seen is not None and seen.failed_starts > 1:
        return f"{one.title} could not be started: {_cause(trouble_of(one))}"
    return f"{one.title} ended badly"


def _failed_last(one: Standing) -> tuple[float, str]:
    """Order of replicas by when they failed, the latest first."""
    seen = one.observation
    if seen is None or seen.failed_starts > 1:
        return float("-inf"), one.title
    return -seen.last_exit.finished_at.timestamp() if seen.last_exit is not None else 0.0, one.title


def bad_ends(one: Standing) -> int:
    """Bad ends of one replica."""
    seen = one.observation
    if seen is None:
        return 0
    return max(seen.restarts, int(one.phase is ReplicaPhase.FAILED)) + max(0, seen.failed_starts - 1)


def _ends(draft: Draft, one: Standing | None) -> tuple[str, ...]:
    """How the replicas of the failed revision ended, ``one`` before the others."""
    revision = draft.rollout.revision
    bad = [other for other in draft.census.everyone if _is_tried(draft, other, revision) and bad_ends(other)]
    bad.sort(key=lambda other: (other is not one, other.title))
    return tuple(
        f"{other.title}: {exit_text(other.observation.last_exit)}"
        for other in bad
        if other.observation is not None and other.observation.last_exit is not None
    )[:MAX_EXPLAINED]


def deadline_of(rollout: Rollout, draft_deadline: datetime.timedelta) -> datetime.datetime:
    """When a rollout fails unless it gets further before; pauses do not count."""
    return max(rollout.progressed_at, rollout.paused_until or rollout.progressed_at) + draft_deadline


def person_deadline(rollout: Rollout, pause_deadline: datetime.timedelta) -> datetime.datetime | None:
    """Until when a rollout waits for a person; None when it does not (or has just begun to)."""
    waits = rollout.phase in PERSONAL and rollout.waiting_since is not None
    return rollout.waiting_since + pause_deadline if waits and rollout.waiting_since else None


def judge_rollout(draft: Draft, bounds: Bounds) -> RolloutFailure | None:
    """Why the rollout has failed, if it has. On the way back only the deadline counts."""
    rollout, spec, census = draft.rollout, draft.workload.spec.rollout, draft.census
    if not rollout.back_to:
        hopeless = [one for one in census.new if _is_hopeless(one)]
        if hopeless:
            return _explained(draft, "CannotStart", f"{hopeless[0].title} cannot start", hopeless[0])
        ended = [one for one in census.new if one.phase is ReplicaPhase.FAILED]
        if ended:
            return _explained(draft, "ReplicaFailed", f"{ended[0].title} failed", ended[0])
        bad = rollout.failures - rollout.forgiven
        if bad > spec.max_failures:
            worst = _most_restarts(census.new) or worst_of(census.new)
            times = "time" if bad == 1 else "times"
            text = f"new replicas failed {bad} {times}, {spec.max_failures} are tolerated"
            return _explained(draft, TOO_MANY, text, worst)
        if spec.strategy is Strategy.ROLLING_UPDATE and rollout.phase is not RolloutPhase.PAUSED:
            stuck = deadlock(census, bounds)
            if stuck:
                return _explained(draft, "BoundsConflict", stuck, None)
    if rollout.phase in PERSONAL:
        return _left_alone(draft)
    if draft.now < deadline_of(rollout, spec.progress_deadline):
        return None
    waits = waiting_for(census, bounds)
    text = f"no progress for {spec.progress_deadline.total_seconds():g} s: {waits}"
    return _explained(draft, "ProgressDeadlineExceeded", text, worst_of(census.new))


def _left_alone(draft: Draft) -> RolloutFailure | None:
    """Nobody resumed or promoted it in time."""
    rollout, wait = draft.rollout, draft.workload.spec.rollout.pause_deadline
    until = person_deadline(rollout, wait)
    if until is None or draft.now < until:
        return None
    what = "resumed" if rollout.phase is RolloutPhase.PAUSED else "promoted"
    text = f"nobody {what} it within {format_duration(wait)}"
    return _explained(draft, LEFT_ALONE, text, None)


def aborted(draft: Draft) -> RolloutFailure:
    """The explanation of an abort: somebody asked for it."""
    return _explained(draft, "Aborted", "aborted by a user", None)


def _is_hopeless(one: Standing) -> bool:
    seen = one.observation
    return seen is not None and not one.settled and seen.message.startswith(HOPELESS)


def _most_restarts(standings: list[Standing]) -> Standing | None:
    found = [(_tries(one), one) for one in standings if not one.settled and _tries(one)]
    return max(found, key=lambda pair: pair[0])[1] if found else None


def _tries(one: Standing) -> int:
    seen = one.observation
    return seen.restarts + seen.failed_starts if seen is not None else 0


def _detail(draft: Draft, one: Standing, reason: str) -> str:
    """What is wrong with a replica: what its node says, or what keeps it from having one.

    One that ended too often and is being started again says what it is at, which explains nothing.
    """
    seen = one.observation
    if (
        reason == TOO_MANY
        and seen is not None
        and seen.phase is ReplicaPhase.STARTING
        and seen.last_exit is not None
        and seen.failed_starts < 2
    ):
        return f"ended with {exit_text(seen.last_exit)}"
    if one.record.node_id:
        return _cause(trouble_of(one))
    status = draft.cluster.statuses.get(draft.workload.id)
    return explain(one, status.refusals if status is not None else {})


def _explained(draft: Draft, reason: str, text: str, one: Standing | None) -> RolloutFailure:
    """The failure with everything that can be known of it at this moment."""
    rollout = draft.rollout
    failed = draft.revisions.get(rollout.revision)
    before = draft.revisions.get(rollout.from_revision) or _one_before(draft)
    changes = revision_changes(before, failed) if before is not None and failed is not None else ()
    seen = one.observation if one is not None else None
    detail = _detail(draft, one, reason) if one is not None and not one.settled else ""
    last_exit = seen.last_exit if seen is not None else None
    log_tail = (last_exit.log_tail if last_exit is not None else "") or (seen.log_tail if seen else "")
    return RolloutFailure(
        reason=reason,
        message=f"{text}: {detail}" if detail and detail not in text else text,
        replica=one.title if one is not None else "",
        replica_id=one.record.id if one is not None else "",
        node=one.node.name if one is not None and one.node is not None else "",
        last_exit=last_exit,
        ends=_ends(draft, one),
        detail=detail,
        log_tail=_last_lines(log_tail),
        changes=changes,
        at=draft.now,
        revision=rollout.revision,
    )


def _one_before(draft: Draft) -> Revision | None:
    """The revision before the one that failed, where no earlier one was ever rolled out."""
    numbers = [number for number in draft.revisions if number < draft.rollout.revision]
    return draft.revisions[max(numbers)] if numbers else None


def _cause(trouble: str) -> str:
    """Without what the node would have done next: nobody waits for that any more.

    >>> _cause("ended with exit code 3; restart 2 after 0.2 s")
    'ended with exit code 3'
    """
    return _NEXT_TRY.sub("", trouble)


def _last_lines(text: str) -> str:
    """At most ``MAX_LOG_LINES`` lines and ``MAX_LOG_CHARACTERS`` characters from the end.

    >>> _last_lines("a" * 5000)[:2], len(_last_lines("a" * 5000)), _last_lines("one")
    ('aa', 4096, 'one')
    """
    return "\n".join(text.rstrip("\n").split("\n")[-MAX_LOG_LINES:])[-MAX_LOG_CHARACTERS:]
