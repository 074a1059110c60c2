"""A strategy in numbers of replicas: what is wanted, the most, the fewest, how many at a time."""

from __future__ import annotations

import math
from typing import NamedTuple

from cloudless.domain.strategy import Strategy, resolve_count
from cloudless.domain.workload import WorkloadSpec

#: Share of the replicas that is replaced at a time.
BATCH_SHARE = 0.25


class Bounds(NamedTuple):
    """A strategy in numbers of replicas.

    While a rollout is on, replicas that exist (those on their way out too) stay at or
    below ``desired + surge``, and no step takes the available ones below ``floor``.
    """

    desired: int
    surge: int
    unavailable: int
    #: Fewest available replicas that a voluntary step may leave.
    floor: int
    #: Most replicas of the new revision that are on their way at a time.
    batch: int


def bounds_of(spec: WorkloadSpec) -> Bounds:
    """The numbers of ``spec.rollout`` at ``spec.replicas``.

    >>> bounds_of(WorkloadSpec(image="web:1", replicas=8))
    Bounds(desired=8, surge=2, unavailable=2, floor=6, batch=2)
    >>> bounds_of(WorkloadSpec(image="web:1", replicas=3, rollout={"max_surge": "1"})).floor
    3
    >>> bounds_of(WorkloadSpec(image="web:1", replicas=4, rollout={"strategy": "BLUE_GREEN"}))
    Bounds(desired=4, surge=4, unavailable=0, floor=4, batch=4)
    >>> bounds_of(WorkloadSpec(image="web:1", replicas=4, rollout={"strategy": "RECREATE"})).surge
    0
    """
    desired, rollout = spec.replicas, spec.rollout
    if rollout.strategy is Strategy.BLUE_GREEN:
        return Bounds(desired, desired, 0, desired, max(1, desired))
    surge = resolve_count(rollout.max_surge, desired, round_up=True)
    unavailable = min(resolve_count(rollout.max_unavailable, desired, round_up=False), desired)
    if surge == 0 and unavailable == 0:
        unavailable = min(1, desired)
    batch = max(1, min(math.ceil(desired * BATCH_SHARE), unavailable or surge))
    least = resolve_count(rollout.min_available, desired, round_up=True) if rollout.min_available else 0
    floor = max(desired - min(unavailable, batch), min(least, desired))
    if rollout.strategy is Strategy.RECREATE:
        surge = 0  # new ones only when no old one is left
    elif rollout.strategy is Strategy.CANARY:
        surge = max(surge, max(step.count(desired) for step in rollout.canary_steps))
    return Bounds(desired, surge, unavailable, floor, batch)
