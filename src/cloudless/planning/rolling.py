"""ROLLING_UPDATE: the next step from older replicas to newer ones, within bounds.

``bounds_of`` turns the strategy into numbers, ``step_rolling`` looks at what exists now
and says how many replicas to create and which to stop. It remembers nothing: the same
observed state gives the same step, so it goes on after any crash, change of mind
(a newer revision, another number of replicas) or fault. The bounds hold in every state:
existing replicas, those on their way out included, stay <= desired + surge, and no
step takes the available ones below the floor.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from cloudless.domain.workload import WorkloadSpec, resolve_count
from cloudless.planning.census import Census, Standing, leaving_order

#: Share of the replicas that is replaced at a time.
BATCH_SHARE = 0.25


class Bounds(NamedTuple):
    """A strategy in numbers of replicas."""

    desired: int
    surge: int
    unavailable: int
    #: Fewest available replicas that a voluntary step may leave.
    floor: int
    #: Most replicas of the new revision that are on their way at a time.
    batch: int


class Step(NamedTuple):
    """What to do now: how many replicas to create, which to stop, and why."""

    births: int = 0
    stops: tuple[Standing, ...] = ()
    because: str = ""


def bounds_of(spec: WorkloadSpec) -> Bounds:
    """The numbers of ``spec.rollout`` at ``spec.replicas``.

    >>> bounds_of(WorkloadSpec(image="web:1", replicas=8))
    Bounds(desired=8, surge=2, unavailable=2, floor=6, batch=2)
    >>> bounds_of(WorkloadSpec(image="web:1", replicas=3, rollout={"max_surge": "1"})).floor
    3
    """
    desired, rollout = spec.replicas, spec.rollout
    surge = resolve_count(rollout.max_surge, desired, round_up=True)
    unavailable = min(resolve_count(rollout.max_unavailable, desired, round_up=False), desired)
    if surge == 0 and unavailable == 0:
        unavailable = min(1, desired)
    batch = max(1, min(math.ceil(desired * BATCH_SHARE), unavailable or surge))
    least = resolve_count(rollout.min_available, desired, round_up=True) if rollout.min_available else 0
    floor = max(desired - min(unavailable, batch), min(least, desired))
    return Bounds(desired, surge, unavailable, floor, batch)


def step_rolling(census: Census, bounds: Bounds, *, paused: bool, pausing: bool) -> Step:
    """The next step while replicas of an older template are there.

    ``pausing``: the strategy has a pause between batches, so a batch begins only after
    the one before has settled; ``paused``: that pause is on. Either way, what a batch
    has begun is finished.
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
        budget = min(budget, total - desired)
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
