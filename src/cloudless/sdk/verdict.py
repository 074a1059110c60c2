"""Is a workload where it should be? The judgement behind every wait, as a pure function.

``waiting`` feeds it each new state; the CLI shows its ``missing``. It believes a status
only when that speaks of the wanted generation and nothing asked for is pending. While a
rollout is on, the coordinator judges: here is only said how it stands.
"""

from __future__ import annotations

import dataclasses
import enum
from dataclasses import dataclass
from typing import Literal

from cloudless import api
from cloudless.sdk.explaining import Explanation, explanation_of, replica_explanation
from cloudless.sdk.failures import NodeReason
from cloudless.sdk.limits import (
    CRASH_PATIENCE_S,
    CRASH_RESTARTS,
    PLACEMENT_PATIENCE_S,
    START_PATIENCE_S,
)
from cloudless.sdk.objects import enum_name

#: "scaled" is "available" without the demand that the newest revision be the one that runs;
#: "promoted" is "available", or the next wait for promotion.
Goal = Literal["available", "placed", "completed", "deleted", "scaled", "promoted", "paused", "rolled_back"]
GOALS: tuple[Goal, ...] = (
    "available",
    "placed",
    "completed",
    "deleted",
    "scaled",
    "promoted",
    "paused",
    "rolled_back",
)
#: Phases that end a rollout, for good or until somebody asks for another try.
FAILED_PHASES = frozenset({"FAILED", "ROLLED_BACK", "ABORTED"})
#: Phases of replicas that are on their way to somewhere.
_MOVING = frozenset({"STARTING", "STOPPING", "BACKING_OFF"})


class Outcome(enum.Enum):
    """What a wait has to do now."""

    WAIT = "wait"
    DONE = "done"
    #: Replicas without a node.
    UNPLACED = "unplaced"
    FAILED = "failed"
    #: Somebody deleted it, or asked for other replicas than we did.
    DELETED = "deleted"
    SUPERSEDED = "superseded"


@dataclass(frozen=True, slots=True)
class Verdict:
    """``missing`` is one sentence: what is waited for, or why it failed."""

    outcome: Outcome
    missing: str = ""
    #: Trouble is an end only when it lasts this long; 0 is at once.
    patience_s: float = 0.0
    #: Of what has failed, also while it is rolled back.
    explanation: Explanation | None = None
    refusals: tuple[NodeReason, ...] = ()


#: How a node's message begins when trying again is in vain.
HOPELESS = ("ImageNotFound", "ImagePullDenied", "ImageInvalid", "InvalidSpec")
DONE = Verdict(Outcome.DONE)
WAITING = Verdict(Outcome.WAIT)


def judge(workload: api.Workload, goal: Goal, generation: int = 0) -> Verdict:
    """Compare ``workload`` with ``goal``; ``generation`` is the oldest one that counts."""
    status = workload.status
    if goal == "deleted":
        left = status.current_replicas if status is not None else 0
        return Verdict(Outcome.WAIT, f"{_count(left, 'replica')} to stop" if left else "its removal")
    if workload.deleted_at is not None:
        return Verdict(Outcome.DELETED, "it is being deleted")
    wanted = max(generation, workload.generation)
    if status is None or status.observed_generation < wanted:
        return Verdict(Outcome.WAIT, f"the coordinator to take up generation {wanted}")
    rollout = status.rollout or api.RolloutStatus()
    if rollout.pending:
        return Verdict(Outcome.WAIT, "the coordinator to take up what was asked")
    by_rollout = _by_rollout(workload, status, rollout, goal)
    return by_rollout if by_rollout is not None else _by_replicas(status, rollout, goal)


def superseded(ours: api.Workload, now: api.Workload, goal: Goal) -> Verdict | None:
    """Whether replicas are made from another specification than ``ours`` by now.

    Known once it is taken up, for then its revision has a number. Who scales waits for a
    number of replicas, whatever they are made from; and whose change makes the same replicas
    (scaling, a strategy, the same file applied twice) has taken nobody's place.
    """
    status = now.status
    if goal in ("scaled", "deleted") or now.generation <= ours.generation or now.deleted_at is not None:
        return None
    if status is None or status.observed_generation < now.generation:
        return None
    if _template(ours) == _template(now):
        return None
    return Verdict(Outcome.SUPERSEDED, f"superseded by revision {status.revision}")


def _template(workload: api.Workload) -> api.WorkloadSpec:
    """What replicas are made from."""
    return dataclasses.replace(workload.spec or api.WorkloadSpec(), replicas=None, rollout=None)


def _by_rollout(
    workload: api.Workload, status: api.WorkloadStatus, rollout: api.RolloutStatus, goal: Goal
) -> Verdict | None:
    """What follows from the rollout's phase alone; None when the replicas have to be looked at."""
    phase = enum_name(rollout.phase)
    if phase == "ROLLING_BACK":
        counts = f"{rollout.new_available}/{status.desired_replicas} available"
        missing = f"the way back to revision {rollout.target_revision} ({counts})"
        return Verdict(Outcome.WAIT, missing, explanation=explanation_of(status))
    if phase in FAILED_PHASES:
        back = phase != "FAILED"
        if goal == "rolled_back" and back:
            return DONE
        if goal == "scaled" and back:
            return None
        told = explanation_of(status)
        end = f" ({told.outcome})" if back else ""
        return Verdict(Outcome.FAILED, f"{told.sentence}{end}", explanation=told)
    if goal == "rolled_back":
        return Verdict(Outcome.WAIT, "the way back to begin")
    if goal == "paused":
        return DONE if phase in ("PAUSED", "COMPLETED") else Verdict(Outcome.WAIT, "the pause")
    if goal == "scaled" and phase in ("PAUSED", "WAITING_PROMOTION"):
        return _scaled(status)
    if phase == "PAUSED":
        return Verdict(Outcome.WAIT, f"somebody to resume it: cloudless rollout resume {name_of(workload)}")
    if phase == "WAITING_PROMOTION":
        if goal == "promoted":
            return DONE
        at = f" (step {rollout.step} of {rollout.steps})" if rollout.step else ""
        return Verdict(
            Outcome.WAIT, f"somebody to promote it{at}: cloudless rollout promote {name_of(workload)}"
        )
    return None


def _by_replicas(status: api.WorkloadStatus, rollout: api.RolloutStatus, goal: Goal) -> Verdict:
    """What follows from the replicas, while nothing is decided about the rollout."""
    progressing = enum_name(rollout.phase) == "PROGRESSING"
    failure = None if progressing else _failure(status, rollout)
    if failure is not None:
        return failure
    unplaced = _unplaced(status)
    if unplaced is not None and not (progressing and rollout.from_revision and _moving(status)):
        return unplaced
    if goal == "placed":
        return DONE if status.current_replicas >= status.desired_replicas else _waiting(status)
    succeeded = sum(enum_name(replica.phase) == "SUCCEEDED" for replica in status.replicas)
    if goal == "completed":
        done = succeeded >= status.desired_replicas
        return DONE if done else Verdict(Outcome.WAIT, f"{status.desired_replicas - succeeded} to succeed")
    if progressing or enum_name(rollout.phase) == "SUPERSEDED":
        return _waiting(status)
    kept = rollout.stage == "retire" and enum_name(rollout.phase) == "COMPLETED"
    available = rollout.new_available if kept else status.available_replicas
    there = available + succeeded >= status.desired_replicas
    newest = goal == "scaled" or status.updated_replicas >= status.desired_replicas
    only = kept or status.current_replicas <= status.desired_replicas
    return DONE if there and newest and only else _waiting(status)


def _scaled(status: api.WorkloadStatus) -> Verdict:
    """Whether scaling is carried out though the rollout waits for somebody, which scaling does not."""
    unplaced = _unplaced(status)
    if unplaced is not None:
        return unplaced
    settled = all(replica.available or enum_name(replica.phase) == "SUCCEEDED" for replica in status.replicas)
    there = len(status.replicas) >= status.desired_replicas
    counts = f"{status.available_replicas}/{status.desired_replicas} available"
    return DONE if settled and there else Verdict(Outcome.WAIT, f"replicas: {counts}")


def name_of(workload: api.Workload) -> str:
    """How a command line names it.

    >>> name_of(api.Workload(name="web", namespace="shop")), name_of(api.Workload(name="web"))
    ('shop/web', 'web')
    """
    space = workload.namespace
    return f"{space}/{workload.name}" if space not in ("", "default") else workload.name


def _moving(status: api.WorkloadStatus) -> bool:
    """Whether replicas are on their way, so that room may come."""
    return any(
        enum_name(replica.phase) in _MOVING
        or (enum_name(replica.phase) == "RUNNING" and not replica.available)
        for replica in status.replicas
    )


def _failure(status: api.WorkloadStatus, rollout: api.RolloutStatus) -> Verdict | None:
    made_from = rollout.target_revision or status.revision
    for replica in status.replicas:
        if replica.revision != made_from:
            continue
        phase = enum_name(replica.phase)
        if phase == "FAILED" or (phase == "BACKING_OFF" and replica.restarts >= CRASH_RESTARTS):
            return _replica_failure(replica, phase)
        if phase == "BACKING_OFF":
            return _replica_failure(replica, phase, _patience_s(replica))
    return None


def _patience_s(replica: api.ReplicaStatus) -> float:
    """How long a replica may back off after its first failure; 0 when trying again is in vain."""
    if replica.last_exit is not None:
        return 0.0 if replica.last_exit.reason == "CannotExecute" else CRASH_PATIENCE_S
    return 0.0 if replica.message.startswith(HOPELESS) else START_PATIENCE_S


def _replica_failure(replica: api.ReplicaStatus, phase: str, patience_s: float = 0.0) -> Verdict:
    name = f"{replica.workload}/{replica.ordinal}"
    why = reason_of(replica) or phase.lower().replace("_", " ")
    again = f" (ended {replica.restarts} times)" if phase == "BACKING_OFF" and replica.restarts > 1 else ""
    again += " (its node goes on trying)" if phase == "BACKING_OFF" else ""
    text = f"{name}: {why}{again}"
    return Verdict(Outcome.FAILED, text, patience_s, replica_explanation(replica, text))


def reason_of(replica: api.ReplicaStatus) -> str:
    """Why a replica is in its phase: its exit, or what its node says."""
    status = replica.last_exit
    if replica.message or status is None or enum_name(replica.phase) in ("RUNNING", "STARTING", "PENDING"):
        return replica.message
    if status.oom_killed:
        return "killed: out of memory (exit code 137)"
    if status.signal:
        return f"ended by signal {status.signal}"
    return status.reason if status.reason.startswith("exit") else f"exit code {status.code}"


def _unplaced(status: api.WorkloadStatus) -> Verdict | None:
    refused = [
        replica for replica in status.replicas if enum_name(replica.phase) == "PENDING" and replica.refusals
    ]
    condition = next(
        (item for item in status.conditions if item.type == "Placed" and item.status == "False"), None
    )
    if condition is None and not refused:
        return None
    text = condition.message if condition is not None else ""
    if not text:
        text = f"no node can take {_count(len(refused), 'replica')}"
    refusals = {
        NodeReason(refusal.node, refusal.reason): None for replica in refused for refusal in replica.refusals
    }
    return Verdict(Outcome.UNPLACED, text, PLACEMENT_PATIENCE_S, refusals=tuple(refusals))


def _waiting(status: api.WorkloadStatus) -> Verdict:
    rollout = status.rollout or api.RolloutStatus()
    if rollout.waits_until is not None and enum_name(rollout.phase) == "PROGRESSING":
        at = f"{rollout.waits_until:%H:%M:%S} UTC"
        baking = rollout.stage == "bake"
        return Verdict(
            Outcome.WAIT,
            f"the new replicas to stay healthy until {at}" if baking else f"the pause until {at}",
        )
    desired, extra = status.desired_replicas, status.current_replicas - status.desired_replicas
    if enum_name(rollout.phase) == "PROGRESSING" and rollout.from_revision:
        counts = f"{rollout.new_available}/{desired} of revision {rollout.revision} available"
        if rollout.old_replicas:
            counts += f", {rollout.old_replicas} old to go"
        elif rollout.new_available >= desired:
            return Verdict(Outcome.WAIT, f"the coordinator to confirm it: {counts}")
        return Verdict(Outcome.WAIT, f"replicas: {counts}")
    counts = f"{status.available_replicas}/{desired} available"
    if status.updated_replicas < desired and status.revision > 1:
        counts += f", {status.updated_replicas} of revision {status.revision}"
    if extra > 0:
        counts += f", {extra} to stop"
    complete = min(status.available_replicas, status.updated_replicas) >= desired and extra <= 0
    return Verdict(Outcome.WAIT, f"{'the coordinator to confirm it' if complete else 'replicas'}: {counts}")


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
