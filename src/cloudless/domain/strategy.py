"""How a changed specification replaces the old one: strategies and their bounds.

Part of a workload's specification (``WorkloadSpec.rollout``) but never of a revision: the
newest values hold for a rollout that is on. Numbers that depend on the replicas are
given as count or percent and resolved by ``planning``.
"""

from __future__ import annotations

import datetime
import re
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from cloudless.domain.model import Choice, Model
from cloudless.domain.quantity import Duration, format_duration

#: The least and the most that a rollout may wait for a person.
PAUSE_DEADLINES = (datetime.timedelta(seconds=1), datetime.timedelta(days=30))
#: Most steps of a canary.
MAX_STEPS = 20
_COUNT = re.compile(r"\d{1,5}|(?:\d{1,2}|100)%", re.ASCII)


def _count_text(value: Any) -> Any:
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise ValueError("must be a count such as 2, or a percentage from 0% to 100%")


def _check_count(value: str) -> str:
    if value and _COUNT.fullmatch(value) is None:
        raise ValueError(f"{value[:20]!r} must be a count such as 2, or a percentage from 0% to 100%")
    return value


def _check_given(value: str) -> str:
    if not value:
        raise ValueError("must not be empty: give a count such as 2 or a percentage, or leave the field out")
    return value


CountOrPercent = Annotated[str, BeforeValidator(_count_text), AfterValidator(_check_count)]
#: One that has a default: left out it is that, but empty text means nothing.
GivenCount = Annotated[CountOrPercent, AfterValidator(_check_given)]


def resolve_count(text: str, total: int, *, round_up: bool) -> int:
    """Turn "2" or "25%" of ``total`` into a number.

    >>> resolve_count("25%", 10, round_up=True), resolve_count("25%", 10, round_up=False)
    (3, 2)
    """
    if not text.endswith("%"):
        return int(text)
    share = int(text[:-1]) * total
    return -(-share // 100) if round_up else share // 100


class Strategy(Choice):
    """How a new revision replaces the old one."""

    ROLLING_UPDATE = "ROLLING_UPDATE"
    RECREATE = "RECREATE"
    BLUE_GREEN = "BLUE_GREEN"
    CANARY = "CANARY"


class CanaryPause(Model):
    """A wait after a step; without a duration until somebody promotes."""

    duration: Duration | None = None


class CanaryStep(Model):
    """So many new replicas beside all old ones, and their share of new connections."""

    weight: Annotated[int, Field(strict=True, ge=0, le=100)] = 0
    replicas: CountOrPercent = ""
    pause: CanaryPause | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if not self.weight and not self.replicas:
            raise ValueError("needs a weight or replicas; a pause belongs to the step before it")
        if self.replicas.rstrip("%").strip("0") == "" and self.replicas:
            raise ValueError(f"replicas: {self.replicas} is no canary; a step has at least one replica")
        return self

    def count(self, desired: int) -> int:
        """New replicas of this step, at least 1 and at most ``desired``.

        >>> CanaryStep(weight=25).count(10), CanaryStep(weight=50, replicas="1").count(10)
        (3, 1)
        """
        asked = self.replicas or f"{self.weight}%"
        return min(desired, max(1, resolve_count(asked, desired, round_up=True)))


#: What CANARY does when no steps are given.
DEFAULT_STEPS = (CanaryStep(weight=20, pause=CanaryPause()),)
#: Fields that only some strategies give a meaning to.
_MEANINGS = {
    "max_surge": (Strategy.ROLLING_UPDATE, Strategy.CANARY),
    "max_unavailable": (Strategy.ROLLING_UPDATE, Strategy.CANARY),
    "min_available": (Strategy.ROLLING_UPDATE, Strategy.CANARY),
    "pause_duration": (Strategy.ROLLING_UPDATE,),
    "auto_promote": (Strategy.BLUE_GREEN, Strategy.CANARY),
    "scale_down_delay": (Strategy.BLUE_GREEN,),
    "steps": (Strategy.CANARY,),
}


class RolloutStrategy(Model):
    """The bounds that hold while a new revision replaces the old one."""

    strategy: Strategy = Strategy.ROLLING_UPDATE
    max_surge: GivenCount = "25%"
    max_unavailable: GivenCount = "25%"
    min_available: CountOrPercent = ""
    pause_duration: Duration = datetime.timedelta(0)
    min_ready_time: Duration = datetime.timedelta(0)
    progress_deadline: Duration = datetime.timedelta(seconds=600)
    pause_deadline: Duration = Field(
        default=datetime.timedelta(hours=24),
        description="Longest time that a person is waited for, paused or to be promoted; then it fails."
        " From 1s to 720h.",
    )
    drain_time: Duration = Field(
        default=datetime.timedelta(seconds=5),
        description="Longest time that connections to published ports get to end before the stop signal.",
    )
    max_failures: Annotated[int, Field(strict=True, ge=0, le=10_000)] = Field(
        default=2,
        description="Bad ends of new replicas, and repeated failures to start them, that are tolerated.",
    )
    auto_rollback: bool = Field(
        default=True,
        description="A failed rollout goes back to the last revision that was proved healthy.",
    )
    auto_promote: bool = Field(
        default=False, description="BLUE_GREEN and CANARY: go on without being promoted."
    )
    bake_time: Duration = Field(
        default=datetime.timedelta(0),
        description="How long the new revision is watched before it counts as healthy.",
    )
    scale_down_delay: Duration = Field(
        default=datetime.timedelta(seconds=30),
        description="BLUE_GREEN: how long the old replicas are kept after the switch and its bake time.",
    )
    steps: tuple[CanaryStep, ...] = Field(
        default=(),
        max_length=MAX_STEPS,
        description="CANARY: one step of 20 percent that waits to be promoted when empty.",
    )

    def contradiction(self, replicas: int) -> str:
        """What ``min_available`` asks for that so many replicas cannot give; empty when all is well.

        Without any replicas nothing is to be kept available. With all of them kept and none
        beside them no replica could ever be replaced.

        >>> RolloutStrategy(min_available="3").contradiction(2)
        'asks for 3 available replicas of 2'
        >>> RolloutStrategy(min_available="90%", max_surge="0").contradiction(4)
        'keeps all 4 replicas available and max_surge 0 allows no other: none could be replaced'
        """
        if not self.min_available or not replicas:
            return ""
        least = resolve_count(self.min_available, replicas, round_up=True)
        if least > replicas:
            return f"asks for {least} available replicas of {replicas}"
        # A canary's first step is beside all old ones, whatever max_surge is.
        surge = resolve_count(self.max_surge, replicas, round_up=True)
        if self.strategy is Strategy.ROLLING_UPDATE and least == replicas and not surge:
            kept = f"all {replicas} replicas" if replicas > 1 else "the only replica"
            return f"keeps {kept} available and max_surge 0 allows no other: none could be replaced"
        return ""

    @property
    def falling_step(self) -> int | None:
        """Index of the first canary step that would take traffic back from the new revision.

        >>> steps = [CanaryStep(weight=50), CanaryStep(weight=10)]
        >>> RolloutStrategy(strategy="CANARY", steps=steps).falling_step
        1
        """
        highest = 0
        for index, step in enumerate(self.steps):
            if step.weight and step.weight < highest:
                return index
            highest = max(highest, step.weight)
        return None

    def falling_reason(self, index: int) -> str:
        """What is wrong with the weight of the step at ``index``, the one that falls."""
        return (
            f"{self.steps[index].weight} is below the weight of a step before it: "
            "each step gives the new revision as much of the traffic or more"
        )

    @property
    def canary_steps(self) -> tuple[CanaryStep, ...]:
        """The steps that a CANARY takes."""
        return self.steps or DEFAULT_STEPS

    @model_validator(mode="after")
    def _whole(self) -> Self:
        defaults = type(self).model_fields
        for name in sorted(self.model_fields_set & _MEANINGS.keys()):
            if self.strategy not in _MEANINGS[name] and getattr(self, name) != defaults[name].default:
                raise ValueError(f"{name}: has no meaning with {self.strategy}")
        both = self.max_surge.strip("0%") == "" == self.max_unavailable.strip("0%")
        if self.strategy is Strategy.ROLLING_UPDATE and both:
            raise ValueError(
                "max_unavailable: must be above 0 when max_surge is 0: no replica could be replaced"
            )
        if self.progress_deadline <= self.min_ready_time:
            raise ValueError("progress_deadline: must be above min_ready_time")
        least, most = PAUSE_DEADLINES
        if not least <= self.pause_deadline <= most:
            raise ValueError(
                f"pause_deadline: must be from {format_duration(least)} to {format_duration(most)}, "
                f"not {format_duration(self.pause_deadline)}"
            )
        return self
