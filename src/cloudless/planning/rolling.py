"""ROLLING_UPDATE: the next step from older replicas to newer ones, within bounds.

``replace_some`` looks at what exists now and says how many replicas to create and which
to stop; ``step_rolling`` says it in verbs. Nothing is remembered: the same observed state
gives the same step, so it goes on after any crash, change of mind (a newer revision,
another number of replicas, the way back) or fault. The bounds hold in every state:
existing replicas, those on their way out included, stay <= desired + surge, and no
step takes the available ones below the floor.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import NamedTuple

from cloudless.domain.rollout import Stage
from cloudless.planning.bounds import Bounds
from cloudless.planning.census import Census, Standing, leaving_order
from cloudless.planning.verbs import Move, Pause, Retire, Scene, Surge, Verb, bake


class Step(NamedTuple):
    """What to do now: how many replicas to create, which to stop, and why."""

    births: int = 0
    stops: tuple[Standing, ...] = ()
    because: str = ""

    @property
    def verbs(self) -> tuple[Verb, ...]:
        """The same in verbs."""
        surge = (Surge(self.births),) if self.births else ()
        return (*surge, Retire(self.stops)) if self.stops else surge


def step_rolling(scene: Scene) -> Move:
    """The next move of a rolling update, from its first batch to the end of its bake time."""
    census, rollout, strategy = scene.census, scene.rollout, scene.strategy
    stage = Stage.BAKE if rollout.stage is Stage.BAKE else Stage.SURGE
    if not census.replacing:
        if scene.arrived and not any(not one.current for one in census.lost):
            return bake(scene) or Move(stage=stage, done=True)
        return Move(stage=stage, until=rollout.paused_until if stage is Stage.BAKE else None)
    pause = strategy.pause_duration if not scene.back else datetime.timedelta(0)
    between = census.old and scene.settled == len(census.new) < scene.desired
    if pause and between and scene.further and not scene.hold:
        until = scene.now + pause
        return Move((Pause(until, "before the next batch"),), Stage.SURGE, until=until)
    paused = scene.hold or (bool(pause) and not scene.waited())
    step = replace_some(census, scene.bounds, paused=paused, pausing=bool(pause), frozen=scene.paused)
    return Move(step.verbs, Stage.SURGE, until=None if scene.waited() else rollout.paused_until)


def replace_some(
    census: Census, bounds: Bounds, *, paused: bool, pausing: bool, frozen: bool = False
) -> Step:
    """The next step while replicas of an older template are there.

    ``pausing``: the strategy has a pause between batches, so a batch begins only after
    the one before has settled; ``paused``: that pause is on. Either way, what a batch
    has begun is finished. ``frozen``: a user's pause, under which no replica is replaced
    any more; there are as many as are wanted, and no more than may be.
    """
    old, new = census.old, census.new
    desired, room = bounds.desired, bounds.desired + bounds.surge
    stops = _Stops(old + new, bounds.floor)
    _scale_in(stops, old, new, room, desired)
    total = len(old) + len(new) - len(stops.chosen)
    on_the_way = sum(not one.settled and one.record.id not in stops.ids for one in new)
    hold = paused or (pausing and on_the_way > 0)

    births = min(desired - len(new), room - census.existing)
    missing = desired - total
    births = max(0, min(births, missing if hold else max(bounds.batch - on_the_way, missing)))

    budget = total - bounds.floor - on_the_way
    if hold:
        budget = 0 if frozen else min(budget, total - desired)
    budget -= stops.choose(sorted((one for one in old if not one.settled), key=leaving_order), budget)
    stops.choose([one for one in old if one.settled], budget)
    return Step(births, tuple(stops.chosen), _because(births, stops.chosen))


class _Stops:
    """Replicas chosen to stop, none of which takes the available ones below the floor."""

    def __init__(self, staying: Sequence[Standing], floor: int) -> None:
        self.chosen: list[Standing] = []
        self.ids: set[str] = set()
        self._spare = sum(one.settled for one in staying) - floor

    def choose(self, candidates: Sequence[Standing], count: int) -> int:
        """Choose up to ``count`` of ``candidates``, in their order; returns how many."""
        before = len(self.chosen)
        for one in candidates:
            if len(self.chosen) - before >= count:
                break
            if one.record.id in self.ids:
                continue
            if one.settled:
                if self._spare <= 0:
                    continue
                self._spare -= 1
            self.chosen.append(one)
            self.ids.add(one.record.id)
        return len(self.chosen) - before


def _scale_in(
    stops: _Stops, old: Sequence[Standing], new: Sequence[Standing], room: int, desired: int
) -> None:
    """After scaling in mid-rollout: stop what exceeds the bounds, in proportion over old and new."""
    excess = len(old) + len(new) - room
    if excess > 0:
        from_new = excess * len(new) // (len(old) + len(new))
        stops.choose(sorted(new, key=leaving_order), from_new)
        stops.choose(sorted(old, key=leaving_order), excess - from_new)
    surplus = len(new) - desired - sum(one.current for one in stops.chosen)
    if surplus > 0:
        stops.choose(sorted(new, key=leaving_order), surplus)


def _because(births: int, stops: Sequence[Standing]) -> str:
    if not births and not stops:
        return ""
    return f"rolling update: {births} to create, {len(stops)} to stop"


def deadlock(census: Census, bounds: Bounds) -> str:
    """Why no step can ever be taken within the bounds, if so."""
    full = len(census.old) + len(census.new) <= bounds.desired
    if census.old and full and not bounds.surge and bounds.floor >= bounds.desired:
        return (
            f"max_surge 0 and min_available {bounds.floor} of {bounds.desired} leave no room"
            " to replace a replica"
        )
    return ""
