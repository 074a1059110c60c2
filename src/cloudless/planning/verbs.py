"""The verbs that every strategy is written in, and the move that a stepper answers.

A stepper (``rolling``, ``recreate``, ``bluegreen``, ``canary``) looks at a ``Scene`` and
answers a ``Move``; ``carrying`` does what its verbs say and writes the journal. The
verbs: surge, retire, wait_ready, switch, weigh, pause, judge.
"""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from cloudless.domain.rollout import BACK, Rollout, RolloutPhase, Stage, TrafficShare
from cloudless.domain.strategy import RolloutStrategy
from cloudless.planning.bounds import Bounds
from cloudless.planning.census import Census, Standing

Shares = tuple[TrafficShare, ...]


class Surge(NamedTuple):
    """Create replicas; of an older revision when ``revision`` is not 0."""

    births: int
    revision: int = 0


class Retire(NamedTuple):
    """Stop replicas: out of the traffic first, then drained, then stopped."""

    replicas: tuple[Standing, ...]
    why: str = ""


class Switch(NamedTuple):
    """Lead all new connections to one set of replicas, at one instant."""

    shares: Shares
    why: str = ""


class Weigh(NamedTuple):
    """Divide new connections between revisions."""

    shares: Shares
    why: str = ""


class Pause(NamedTuple):
    """Wait until a time, or (None) until somebody promotes."""

    until: datetime.datetime | None
    why: str = ""


class Judge(NamedTuple):
    """Watch the new replicas until a time before they count as healthy."""

    until: datetime.datetime


Verb = Surge | Retire | Switch | Weigh | Pause | Judge


class Move(NamedTuple):
    """What to do now, and where the strategy is after it.

    ``until`` is when a timed wait ends, ``promotion`` that a person is waited for,
    ``done`` that the target is reached. Without verbs the move is wait_ready: ``because``
    says for what, or is left to the one who shows it.
    """

    verbs: tuple[Verb, ...] = ()
    stage: Stage = Stage.SURGE
    step: int = 0
    until: datetime.datetime | None = None
    promotion: bool = False
    done: bool = False
    because: str = ""


class Scene(NamedTuple):
    """What a stepper sees. It remembers nothing: the same scene gives the same move."""

    census: Census
    bounds: Bounds
    strategy: RolloutStrategy
    rollout: Rollout
    now: datetime.datetime
    #: Take no new step: paused by a user, or failed.
    hold: bool = False
    #: By a user, or nobody came back to it: not even what was begun is finished; what is there
    #: is kept alive.
    paused: bool = False
    #: Somebody promoted; past all further steps.
    promoted: bool = False
    full: bool = False
    #: More new replicas have settled than ever before.
    further: bool = False
    #: Every new replica was there when the rollout began: an undo to a set that was kept.
    restored: bool = False

    @property
    def back(self) -> bool:
        """Whether replicas go back to an older revision."""
        return self.rollout.phase in BACK

    @property
    def ended(self) -> bool:
        """Whether the rollout has reached its target."""
        return self.rollout.phase in (RolloutPhase.COMPLETED, RolloutPhase.ROLLED_BACK, RolloutPhase.ABORTED)

    @property
    def desired(self) -> int:
        """Wanted number of replicas."""
        return self.bounds.desired

    @property
    def settled(self) -> int:
        """New replicas that have come as far as they ever will."""
        return sum(one.settled for one in self.census.new)

    @property
    def arrived(self) -> bool:
        """Whether exactly the wanted new replicas are there, all of them settled."""
        return len(self.census.new) == self.desired == self.settled

    def waited(self) -> bool:
        """Whether a timed wait that was begun is over."""
        until = self.rollout.paused_until
        return until is None or self.now >= until


def all_to_new(scene: Scene) -> Shares:
    """All new connections to the new replicas, be they of the target or of an older twin of it."""
    counts = Counter(one.record.revision for one in scene.census.new)
    return divided(counts) or (TrafficShare(revision=scene.rollout.target, percent=100),)


def divided(counts: Mapping[int, int], total: int = 100) -> Shares:
    """``total`` percent divided over revisions in proportion to their replicas.

    >>> [(one.revision, one.percent) for one in divided({3: 2, 4: 1}, 90)]
    [(3, 60), (4, 30)]
    """
    everyone = sum(counts.values())
    if not everyone:
        return ()
    parts = {number: total * count // everyone for number, count in counts.items()}
    left = total - sum(parts.values())
    for number in sorted(parts, key=lambda number: (-(total * counts[number] % everyone), number))[:left]:
        parts[number] += 1
    return tuple(
        TrafficShare(revision=number, percent=percent) for number, percent in sorted(parts.items()) if percent
    )


def bake(scene: Scene) -> Move | None:
    """Watch the new revision for ``bake_time``; None when that is over, or not asked for."""
    wanted = scene.strategy.bake_time
    if scene.back or scene.ended or not wanted:
        return None
    if scene.rollout.stage is not Stage.BAKE:
        until = scene.now + wanted
        return Move((Judge(until),), Stage.BAKE, scene.rollout.step, until)
    if not scene.waited():
        return Move((), Stage.BAKE, scene.rollout.step, scene.rollout.paused_until)
    return None
