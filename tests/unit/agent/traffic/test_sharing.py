"""Shares of revisions become weights of replicas; who stands in when a revision is not there."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudless.agent.traffic.limits import MAX_TOTAL_WEIGHT, MAX_WEIGHT
from cloudless.agent.traffic.sharing import Sharing, share_out
from cloudless.domain.rollout import TrafficShare


def shares(**percents: int) -> list[TrafficShare]:
    """``r1=90, r2=10``."""
    return [TrafficShare(revision=int(name[1:]), percent=percent) for name, percent in percents.items()]


def replicas(**counts: int) -> dict[str, int]:
    return {f"{name}-{number}": int(name[1:]) for name, count in counts.items() for number in range(count)}


def of_revisions(sharing: Sharing, ready: dict[str, int]) -> dict[int, Fraction]:
    """What part of all connections each revision gets."""
    total = sum(sharing.weights.values())
    found: Counter[int] = Counter()
    for replica_id, weight in sharing.weights.items():
        found[ready[replica_id]] += weight
    return {revision: Fraction(weight, total) for revision, weight in found.items()}


def test_without_shares_all_are_alike() -> None:
    assert share_out(replicas(r1=2, r2=1), []).weights == {"r1-0": 1, "r1-1": 1, "r2-0": 1}


@pytest.mark.parametrize(
    ("ready", "told", "parts"),
    [
        (replicas(r1=10, r2=10), shares(r1=100), {1: 1}),
        (replicas(r1=10, r2=10), shares(r1=100, r2=0), {1: 1}),
        (replicas(r1=10, r2=10), shares(r2=100), {2: 1}),
        (replicas(r1=8, r2=2), shares(r1=80, r2=20), {1: Fraction(4, 5), 2: Fraction(1, 5)}),
        (replicas(r1=3, r2=1), shares(r1=95, r2=5), {1: Fraction(19, 20), 2: Fraction(1, 20)}),
        (replicas(r1=7, r2=9900, r3=1), shares(r2=99, r3=1), {2: Fraction(99, 100), 3: Fraction(1, 100)}),
        (replicas(r1=1, r2=1, r3=1), shares(r1=50, r2=30, r4=20), {1: Fraction(5, 8), 2: Fraction(3, 8)}),
    ],
)
def test_each_revision_gets_its_share_however_many_replicas_it_has(
    ready: dict[str, int], told: list[TrafficShare], parts: dict[int, Fraction]
) -> None:
    sharing = share_out(ready, told)
    assert of_revisions(sharing, ready) == parts
    assert sharing.missing == ()


def test_one_percent_of_ten_thousand_replicas() -> None:
    ready = replicas(r1=1, r2=9_999)
    parts = of_revisions(share_out(ready, shares(r1=99, r2=1)), ready)
    assert abs(parts[2] - Fraction(1, 100)) < Fraction(1, 10_000)


def test_who_stands_in() -> None:
    green = shares(r3=100)
    assert share_out(replicas(r1=1, r2=2), green) == Sharing({"r2-0": 1, "r2-1": 1}, (3,), 2)
    assert share_out(replicas(r2=1, r4=1), green) == Sharing({"r2-0": 1}, (3,), 2)
    assert share_out(replicas(r2=1, r3=1), green) == Sharing({"r3-0": 1})


def test_a_newer_revision_never_stands_in() -> None:
    assert share_out(replicas(r3=2), shares(r1=0, r2=100)) == Sharing({}, (2,), 0)
    assert share_out(replicas(r3=2), shares(r1=80, r2=20)) == Sharing({}, (1, 2), 0)
    assert share_out(replicas(r3=2), shares(r3=0)) == Sharing({})


def test_with_nobody_ready_there_is_nothing_to_say() -> None:
    assert share_out({}, shares(r2=100)) == Sharing({})


@given(
    ready=st.dictionaries(st.text(max_size=3), st.integers(1, 5), max_size=40),
    percents=st.dictionaries(st.integers(1, 5), st.integers(0, 100), max_size=4),
)
def test_what_always_holds(ready: dict[str, int], percents: dict[int, int]) -> None:
    told = [TrafficShare(revision=revision, percent=percent) for revision, percent in percents.items()]
    sharing = share_out(ready, told)
    assert sharing.weights.keys() <= ready.keys()
    assert all(1 <= weight <= MAX_WEIGHT for weight in sharing.weights.values())
    assert sum(sharing.weights.values()) <= MAX_TOTAL_WEIGHT
    serving = {ready[replica_id] for replica_id in sharing.weights}
    wanted = {revision for revision, percent in percents.items() if percent}
    here = set(ready.values())
    if not percents:
        assert serving == here
    elif wanted & here:
        assert serving == wanted & here
        assert not sharing.missing
        whole = sum(percents[revision] for revision in serving)
        for revision, part in of_revisions(sharing, ready).items():
            assert part == Fraction(percents[revision], whole)
    else:
        assert len(serving) <= 1
        assert all(revision < max(wanted) for revision in serving)
        assert bool(sharing.missing) == bool(wanted and ready)
