"""The three judgements about a workload: Available, Progressing, Placed.

Made from a census by the planner, which stores them, and by the view, which shows them
fresh. ``changed_at`` moves only with status or reason; a stored condition keeps the
message it had when these last changed, so that a message alone writes nothing.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence

from cloudless.domain.replica import ReplicaPhase
from cloudless.domain.rollout import Rollout, RolloutPhase
from cloudless.domain.status import Condition, Refusal
from cloudless.planning.bounds import Bounds
from cloudless.planning.census import Census, Standing
from cloudless.planning.limits import MAX_QUOTED
from cloudless.planning.trouble import counted, trouble_of, worst_of

Refusals = dict[str, tuple[Refusal, ...]]
_Judgement = tuple[str, str, str]
_PROGRESSING = {
    RolloutPhase.PROGRESSING: ("True", "RolloutProgressing"),
    RolloutPhase.PAUSED: ("Unknown", "RolloutPaused"),
    RolloutPhase.WAITING_PROMOTION: ("Unknown", "RolloutWaitsForPromotion"),
    RolloutPhase.FAILED: ("False", "RolloutFailed"),
    RolloutPhase.ROLLING_BACK: ("False", "RolloutGoesBack"),
    RolloutPhase.ROLLED_BACK: ("False", "RolloutRolledBack"),
    RolloutPhase.ABORTED: ("False", "RolloutAborted"),
    RolloutPhase.SUPERSEDED: ("True", "RolloutSuperseded"),
}


def judge_conditions(
    census: Census,
    bounds: Bounds,
    rollout: Rollout | None,
    refusals: Refusals,
    before: Sequence[Condition],
    now: datetime.datetime,
) -> tuple[Condition, ...]:
    """The conditions at ``now``, with fresh messages."""
    found = []
    known = {condition.type: condition for condition in before}
    for kind, (status, reason, message) in (
        ("Available", _available(census, bounds, refusals)),
        ("Progressing", _progressing(rollout)),
        ("Placed", _placed(census, refusals)),
    ):
        old = known.get(kind)
        same = old is not None and (old.status, old.reason) == (status, reason)
        since = old.changed_at if same and old is not None else now
        found.append(Condition(type=kind, status=status, reason=reason, message=message, changed_at=since))
    return tuple(found)


def settled_messages(fresh: Sequence[Condition], before: Sequence[Condition]) -> tuple[Condition, ...]:
    """The conditions to store: the known ones wherever only the message is new."""
    known = {condition.type: condition for condition in before}
    kept = []
    for condition in fresh:
        old = known.get(condition.type)
        same = old is not None and (old.status, old.reason) == (condition.status, condition.reason)
        kept.append(old if same and old is not None else condition)
    return tuple(kept)


def explain(one: Standing, refusals: Refusals) -> str:
    """Why a replica is not ready, in a few words."""
    where = one.node.name if one.node else one.record.node_id
    if one.phase is ReplicaPhase.PENDING:
        return f"no node fits: {_first(one.record.id, refusals)}"
    if one.phase is ReplicaPhase.UNKNOWN:
        return f"node {where} {'is ' + one.node.phase.lower() if one.node else 'is gone'}"
    seen = one.observation
    said = bool(seen and (seen.message or seen.last_exit))
    if one.phase is ReplicaPhase.STARTING and not said:
        return f"starting on {where}"
    if one.phase is ReplicaPhase.RUNNING:
        state = "ready, not yet for min_ready_time" if one.ready else "running, not ready"
        return f"{state}: {seen.message[:MAX_QUOTED]}" if seen and seen.message else state
    return trouble_of(one)


def _first(replica_id: str, refusals: Refusals) -> str:
    """The reasons against one replica; those that are not stored are like the others'."""
    found = refusals.get(replica_id) or next(iter(refusals.values()), ())
    text = "; ".join(
        f"{refusal.node}: {refusal.reason}" if refusal.node else refusal.reason for refusal in found
    )
    return text[:MAX_QUOTED] or "not looked at yet"


def _available(census: Census, bounds: Bounds, refusals: Refusals) -> _Judgement:
    desired = bounds.desired
    if desired == 0:
        return "True", "NoReplicasWanted", "scaled to 0"
    available = sum(one.available for one in census.everyone)
    done = sum(one.phase is ReplicaPhase.SUCCEEDED and one.record.run for one in census.everyone)
    if done >= desired:
        return "False", "Completed", f"{done} of {desired} replicas succeeded"
    floor, text = max(1, bounds.floor), f"{available} of {desired} replicas available"
    if available + done >= floor and available:
        return "True", "MinimumReplicasAvailable", text
    worst = worst_of(census.staying + census.lost)
    why = f": {worst.title}: {explain(worst, refusals)}" if worst else ""
    unknown = sum(one.phase is ReplicaPhase.UNKNOWN and one.record.run for one in census.everyone)
    text = f"{text}, below the floor of {floor}{why}"
    if unknown and available + done + unknown >= floor:
        return "Unknown", "NodeUnreachable", text
    return "False", "MinimumReplicasUnavailable", text


def _progressing(rollout: Rollout | None) -> _Judgement:
    if rollout is None:
        return "Unknown", "NotPlanned", "not planned yet"
    what = f"revision {rollout.revision}"
    if rollout.phase is RolloutPhase.COMPLETED:
        return "True", "RolloutCompleted", f"{what} is rolled out"
    status, reason = _PROGRESSING[rollout.phase]
    return status, reason, f"{what}: {rollout.because}"


def _placed(census: Census, refusals: Refusals) -> _Judgement:
    pending = [one for one in census.staying if not one.record.node_id]
    if not pending:
        return "True", "AllPlaced", "every replica has a node"
    text = f"{counted(len(pending))} without a node: {pending[0].title}: {explain(pending[0], refusals)}"
    return "False", "NoNodeFits", text
