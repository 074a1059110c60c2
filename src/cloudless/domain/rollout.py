"""The rollout: a revision on its way, what users ask of it, and its journal.

``Rollout`` is written by the coordinator's control loop only and holds what cannot be
read from the replicas; ``intent`` holds what users asked. Counters in both tell what was
asked and what was taken up, so that nothing is done twice.
"""

from __future__ import annotations

import datetime
import enum

from cloudless.domain.model import Model
from cloudless.domain.replica import ExitStatus
from cloudless.domain.strategy import Strategy


class RolloutPhase(enum.StrEnum):
    """Where a rollout is."""

    PROGRESSING = "PROGRESSING"
    PAUSED = "PAUSED"
    WAITING_PROMOTION = "WAITING_PROMOTION"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    ROLLING_BACK = "ROLLING_BACK"
    ROLLED_BACK = "ROLLED_BACK"
    SUPERSEDED = "SUPERSEDED"
    ABORTED = "ABORTED"


P = RolloutPhase
_ON = frozenset({P.PROGRESSING, P.PAUSED, P.WAITING_PROMOTION})
#: Which phase may follow which within one revision; the diagram in docs is drawn from this table.
#: FAILED leads to COMPLETED when what failed mends itself (a registry that comes back).
ROLLOUT_TRANSITIONS: dict[RolloutPhase, frozenset[RolloutPhase]] = {
    P.PROGRESSING: frozenset(
        {P.PAUSED, P.WAITING_PROMOTION, P.COMPLETED, P.FAILED, P.ROLLING_BACK, P.SUPERSEDED}
    ),
    P.PAUSED: frozenset({P.PROGRESSING, P.WAITING_PROMOTION, P.FAILED, P.ROLLING_BACK, P.SUPERSEDED}),
    P.WAITING_PROMOTION: frozenset({P.PROGRESSING, P.PAUSED, P.FAILED, P.ROLLING_BACK, P.SUPERSEDED}),
    P.COMPLETED: frozenset({P.ROLLING_BACK}),
    P.FAILED: frozenset({P.PROGRESSING, P.COMPLETED, P.ROLLING_BACK, P.ROLLED_BACK, P.ABORTED}),
    P.ROLLING_BACK: frozenset({P.ROLLED_BACK, P.ABORTED, P.FAILED}),
    P.ROLLED_BACK: frozenset({P.PROGRESSING}),
    P.ABORTED: frozenset({P.PROGRESSING}),
    P.SUPERSEDED: frozenset(),
}
#: Phases in which a person is waited for: nothing but ``pause_deadline`` ends them by time.
PERSONAL = frozenset({P.PAUSED, P.WAITING_PROMOTION})
#: Phases in which steps towards the new revision are taken or waited for.
ACTIVE = _ON
#: Phases in which steps are taken, in one direction or the other.
MOVING = _ON | {P.ROLLING_BACK}
#: Phases in which the replicas are those of an older revision, for good or on the way.
BACK = frozenset({P.ROLLING_BACK, P.ROLLED_BACK, P.ABORTED})


class Stage(enum.StrEnum):
    """What a strategy is at.

    SURGE brings new replicas up, PROMOTE waits for a person (a canary is at a step),
    REPLACE is a canary's last part, BAKE watches, RETIRE keeps the old ones for a while.
    """

    SURGE = "surge"
    PROMOTE = "promote"
    REPLACE = "replace"
    BAKE = "bake"
    RETIRE = "retire"


class TrafficShare(Model):
    """A revision's percentage of the new connections to published ports."""

    revision: int
    percent: int


class RolloutFailure(Model):
    """Why a rollout failed, as it was seen at that moment."""

    reason: str
    message: str
    replica: str = ""
    replica_id: str = ""
    node: str = ""
    last_exit: ExitStatus | None = None
    #: How new replicas ended last, those that ended badly: ``web/2: exit code 3``.
    ends: tuple[str, ...] = ()
    #: What a probe got, or why the container could not start.
    detail: str = ""
    log_tail: str = ""
    #: What differs from the revision before, a field each.
    changes: tuple[str, ...] = ()
    at: datetime.datetime
    revision: int


class Rollout(Model):
    """The newest revision on its way; ``progressed_at`` moves with each replica that gets ready."""

    phase: RolloutPhase
    revision: int
    from_revision: int = 0
    strategy: Strategy = Strategy.ROLLING_UPDATE
    because: str = ""
    started_at: datetime.datetime
    progressed_at: datetime.datetime
    ended_at: datetime.datetime | None = None
    #: Replicas of the revision that were ready when progress was last seen.
    ready_seen: int = 0
    #: Nothing further before this time: a pause, the bake time, the delay before scaling down.
    paused_until: datetime.datetime | None = None
    #: Since when a person is waited for; None when nobody is.
    waiting_since: datetime.datetime | None = None
    #: The revision that is gone back to; 0 while going forward.
    back_to: int = 0
    #: A user's abort, not a failure, is the reason for going back.
    aborted: bool = False
    stage: Stage = Stage.SURGE
    #: CANARY: number of steps that are done.
    step: int = 0
    #: Who gets new connections; every ready replica alike when empty.
    shares: tuple[TrafficShare, ...] = ()
    #: Bad ends of new replicas; and how many of them a retry has forgiven to those that it kept.
    failures: int = 0
    forgiven: int = 0
    #: When it was tried again last: what was told to stop by then failed in an earlier try.
    retried_at: datetime.datetime | None = None
    failure: RolloutFailure | None = None
    #: How many of each a user has asked for and this rollout has taken up.
    promotions: int = 0
    aborts: int = 0
    retries: int = 0
    #: Journal entries written so far.
    journal: int = 0

    @property
    def target(self) -> int:
        """The revision that replicas are made from now."""
        return self.back_to or self.revision


class JournalEntry(Model):
    """One decision about a rollout, written once: what was seen, what was decided, why, when."""

    workload_id: str
    revision: int
    sequence: int
    at: datetime.datetime
    verb: str
    seen: str = ""
    decided: str = ""
    because: str = ""
    phase: RolloutPhase
