"""Is a workload where it should be? The judgement behind every wait, as a pure function.

``waiting`` feeds it each new state; the CLI shows its ``missing``. It believes a status
only when that speaks of the wanted generation.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Literal

from cloudless import api
from cloudless.sdk.failures import NodeReason
from cloudless.sdk.limits import (
    CRASH_PATIENCE_S,
    CRASH_RESTARTS,
    LOG_TAIL_LINES,
    PLACEMENT_PATIENCE_S,
    START_PATIENCE_S,
)
from cloudless.sdk.objects import enum_name

Goal = Literal["available", "placed", "completed", "deleted"]
GOALS: tuple[Goal, ...] = ("available", "placed", "completed", "deleted")


class Outcome(enum.Enum):
    """What a wait has to do now."""

    WAIT = "wait"
    DONE = "done"
    #: Replicas without a node.
    UNPLACED = "unplaced"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Verdict:
    """``missing`` is one sentence: what is waited for, or why it failed."""

    outcome: Outcome
    missing: str = ""
    #: Trouble is an end only when it lasts this long; 0 is at once.
    patience_s: float = 0.0
    replica: str = ""
    log_lines: tuple[str, ...] = ()
    refusals: tuple[NodeReason, ...] = ()


#: How a node's message begins when trying again is in vain.
HOPELESS = ("ImageNotFound", "ImagePullDenied", "ImageInvalid", "InvalidSpec")
DONE = Verdict(Outcome.DONE)


def judge(workload: api.Workload, goal: Goal, generation: int = 0) -> Verdict:
    """Compare ``workload`` with ``goal``; ``generation`` is the oldest one that counts."""
    status = workload.status
    if goal == "deleted":
        left = status.current_replicas if status is not None else 0
        return Verdict(Outcome.WAIT, f"{_count(left, 'replica')} to stop" if left else "its removal")
    if workload.deleted_at is not None:
        return Verdict(Outcome.FAILED, "it is being deleted")
    wanted = max(generation, workload.generation)
    if status is None or status.observed_generation < wanted:
        return Verdict(Outcome.WAIT, f"the coordinator to take up generation {wanted}")
    failure = _failure(status)
    if failure is not None:
        return failure
    unplaced = _unplaced(status)
    if unplaced is not None:
        return unplaced
    if goal == "placed":
        return DONE if status.current_replicas >= status.desired_replicas else _waiting(status)
    succeeded = sum(enum_name(replica.phase) == "SUCCEEDED" for replica in status.replicas)
    if goal == "completed":
        done = succeeded >= status.desired_replicas
        return DONE if done else Verdict(Outcome.WAIT, f"{status.desired_replicas - succeeded} to succeed")
    rollout = enum_name(status.rollout.phase) if status.rollout is not None else ""
    there = status.available_replicas + succeeded >= status.desired_replicas
    newest = status.updated_replicas >= status.desired_replicas
    only = status.current_replicas <= status.desired_replicas
    return DONE if there and newest and only and rollout != "PROGRESSING" else _waiting(status)


def _failure(status: api.WorkloadStatus) -> Verdict | None:
    for replica in status.replicas:
        if replica.revision != status.revision:
            continue
        phase = enum_name(replica.phase)
        if phase == "FAILED" or (phase == "BACKING_OFF" and replica.restarts >= CRASH_RESTARTS):
            return _replica_failure(replica, phase)
        if phase == "BACKING_OFF":
            return _replica_failure(replica, phase, _patience_s(replica))
    rollout = status.rollout
    if rollout is not None and enum_name(rollout.phase) == "STALLED":
        return Verdict(Outcome.FAILED, rollout.because or status.message or "the rollout makes no progress")
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
    tail = replica.last_exit.log_tail.splitlines()[-LOG_TAIL_LINES:] if replica.last_exit else []
    return Verdict(Outcome.FAILED, f"{name}: {why}{again}", patience_s, name, tuple(tail))


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
    rollout = status.rollout
    counts = f"replicas: {status.available_replicas}/{status.desired_replicas} available"
    if status.updated_replicas < status.desired_replicas and status.revision > 1:
        counts += f", {status.updated_replicas} of revision {status.revision}"
    extra = status.current_replicas - status.desired_replicas
    if extra > 0:
        counts += f", {extra} to stop"
    # What a rollout waits for is seen from its replicas, and sooner; a pause is not.
    because = rollout.because if rollout is not None and rollout.because.startswith("pausing") else ""
    return Verdict(Outcome.WAIT, f"{counts}; {because}" if because else counts)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
