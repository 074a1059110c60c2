"""Why a rollout failed, as data: what ``RolloutFailed`` carries and the command line prints.

``explanation_of`` reads it from a status, ``replica_explanation`` from a replica that
shows the trouble alone. Judges nothing: ``verdict`` decides that something has failed.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import NamedTuple

from cloudless import api
from cloudless.sdk.limits import LOG_TAIL_LINES
from cloudless.sdk.objects import enum_name


class ReasonLine(NamedTuple):
    """One line of a tree of reasons: depth 0 is a root, children follow their parent."""

    depth: int
    text: str
    #: "name/ordinal" when it is about one replica.
    replica: str = ""


@dataclass(frozen=True, slots=True)
class Explanation:
    """All that is known about a failure; what is not known is empty."""

    #: FAILED, ROLLED_BACK or ABORTED; empty when the coordinator has not judged (yet).
    phase: str = ""
    revision: int = 0
    #: The revision that replicas are made from again; 0 when nothing was rolled back.
    rolled_back_to: int = 0
    #: One word for machines, for example "TooManyFailures".
    reason: str = ""
    message: str = ""
    #: What the coordinator says of the rollout now.
    because: str = ""
    #: "name/ordinal" of the replica that says most, and its node.
    replica: str = ""
    node: str = ""
    #: How its container ended: None when it never did.
    exit_code: int | None = None
    signal: int = 0
    oom_killed: bool = False
    #: What its probe got, or why it could not start.
    detail: str = ""
    log_lines: tuple[str, ...] = ()
    #: What differs from the revision before, a field each.
    changes: tuple[str, ...] = ()
    reasons: tuple[ReasonLine, ...] = ()
    at: datetime.datetime | None = None

    @property
    def sentence(self) -> str:
        """What has failed, and why.

        >>> Explanation(revision=4, reason="CannotStart", message="web/0 cannot start").sentence
        'revision 4 failed: web/0 cannot start'
        """
        if self.reason == "Aborted":
            return f"revision {self.revision} was aborted"
        return f"revision {self.revision} failed: {self.message or 'no reason is known'}"

    @property
    def exit_text(self) -> str:
        """How its container ended, in words; empty when it never did.

        >>> Explanation(exit_code=137, oom_killed=True).exit_text, Explanation(exit_code=1).exit_text
        ('killed: out of memory (exit code 137)', 'exit code 1')
        """
        if self.exit_code is None:
            return ""
        if self.oom_killed:
            return "killed: out of memory (exit code 137)"
        return f"ended by signal {self.signal}" if self.signal else f"exit code {self.exit_code}"

    @property
    def outcome(self) -> str:
        """Whether and where it was rolled back to; empty when no rollout has ended.

        >>> Explanation(phase="ROLLED_BACK", rolled_back_to=3).outcome
        'rolled back to revision 3'
        >>> Explanation(phase="FAILED", message="x", because="x; not rolled back: it is the first").outcome
        'not rolled back: it is the first'
        """
        if self.phase == "FAILED":
            told = self.because.removeprefix(self.message).lstrip("; ")
            return told if "back" in told else "not rolled back"
        if not self.rolled_back_to:
            return ""
        how = "back at" if self.phase == "ABORTED" else "rolled back to"
        return f"{how} revision {self.rolled_back_to}"


def explanation_of(status: api.WorkloadStatus) -> Explanation:
    """The explanation that the coordinator gives of the newest revision's failure."""
    rollout = status.rollout or api.RolloutStatus()
    failure = rollout.failure or api.RolloutFailure()
    phase = enum_name(rollout.phase)
    back = rollout.target_revision if phase in ("ROLLED_BACK", "ABORTED") else 0
    ended = failure.last_exit
    tail = failure.log_tail or (ended.log_tail if ended is not None else "")
    return Explanation(
        phase=phase,
        revision=failure.revision or rollout.revision,
        rolled_back_to=back if back != rollout.revision else 0,
        reason=failure.reason,
        message=failure.message or rollout.because,
        because=rollout.because,
        replica=failure.replica,
        node=failure.node,
        exit_code=ended.code if ended is not None else None,
        signal=ended.signal if ended is not None else 0,
        oom_killed=ended.oom_killed if ended is not None else False,
        detail=failure.detail,
        log_lines=_last_lines(tail),
        changes=tuple(failure.changes),
        reasons=tuple(ReasonLine(one.depth, one.text, one.replica) for one in rollout.reasons),
        at=failure.at or rollout.ended_at,
    )


def replica_explanation(replica: api.ReplicaStatus, message: str) -> Explanation:
    """What one replica shows by itself."""
    ended = replica.last_exit
    return Explanation(
        revision=replica.revision,
        message=message,
        replica=f"{replica.workload}/{replica.ordinal}",
        node=replica.node,
        exit_code=ended.code if ended is not None else None,
        signal=ended.signal if ended is not None else 0,
        oom_killed=ended.oom_killed if ended is not None else False,
        log_lines=_last_lines(ended.log_tail if ended is not None else ""),
    )


def _last_lines(text: str) -> tuple[str, ...]:
    return tuple(text.splitlines()[-LOG_TAIL_LINES:])
