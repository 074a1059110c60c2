from __future__ import annotations

import pytest
from tests.unit.planning.world import START

from cloudless.domain.replica import ReplicaPhase, ReplicaRecord
from cloudless.domain.rollout import Rollout, RolloutPhase
from cloudless.domain.workload import WorkloadSpec
from cloudless.planning.bounds import Bounds, bounds_of
from cloudless.planning.census import Census, Standing
from cloudless.planning.recreate import step_recreate
from cloudless.planning.rolling import deadlock, replace_some
from cloudless.planning.verbs import Retire, Scene, Surge


def spec(replicas: int, **rollout: str) -> WorkloadSpec:
    return WorkloadSpec.model_validate({"image": "web:1", "replicas": replicas, "rollout": rollout})


def standings(text: str) -> Census:
    """A census from words: ``o`` old, ``n`` new; capital: available; ``x``/``y``: old/new on its way out."""
    found = []
    for ordinal, letter in enumerate(text):
        run, current, well = letter not in "xy", letter in "nNy", letter in "ON"
        record = ReplicaRecord(
            id=f"r{ordinal}",
            workload_id="w",
            namespace="default",
            name="web",
            ordinal=ordinal,
            revision=2 if current else 1,
            node_id="n",
            run=run,
            created_at=START,
        )
        phase = ReplicaPhase.RUNNING if well else ReplicaPhase.STARTING
        found.append(Standing(record, None, None, phase, current, False, well, well, None, well))
    return Census(found)


@pytest.mark.parametrize(
    ("replicas", "rollout", "expected"),
    [
        (4, {}, Bounds(4, 1, 1, 3, 1)),
        (8, {}, Bounds(8, 2, 2, 6, 2)),
        (3, {}, Bounds(3, 1, 0, 3, 1)),
        (1, {}, Bounds(1, 1, 0, 1, 1)),
        (0, {}, Bounds(0, 0, 0, 0, 1)),
        # Both coming to 0 makes one unavailable.
        (3, {"max_surge": "0", "max_unavailable": "10%"}, Bounds(3, 0, 1, 2, 1)),
        # A quarter at a time, even if all may be unavailable.
        (8, {"max_surge": "0", "max_unavailable": "100%"}, Bounds(8, 0, 8, 6, 2)),
        (8, {"max_surge": "100%", "max_unavailable": "0"}, Bounds(8, 8, 0, 8, 2)),
        # min_available is a floor that wins, and no more than what is wanted.
        (4, {"max_unavailable": "2", "min_available": "4"}, Bounds(4, 1, 2, 4, 1)),
        (4, {"min_available": "90%"}, Bounds(4, 1, 1, 4, 1)),
        (2, {"min_available": "9"}, Bounds(2, 1, 0, 2, 1)),
    ],
)
def test_bounds(replicas: int, rollout: dict[str, str], expected: Bounds) -> None:
    assert bounds_of(spec(replicas, **rollout)) == expected


@pytest.mark.parametrize(
    ("state", "bounds", "births", "stops"),
    [
        # surge 1, unavailable 0: one more, then one less
        ("OOO", Bounds(3, 1, 0, 3, 1), 1, []),
        ("OOOn", Bounds(3, 1, 0, 3, 1), 0, []),
        ("OOON", Bounds(3, 1, 0, 3, 1), 0, [0]),
        ("xOON", Bounds(3, 1, 0, 3, 1), 0, []),
        ("OON", Bounds(3, 1, 0, 3, 1), 1, []),
        # surge 0, unavailable 1: one less, then one more
        ("OOO", Bounds(3, 0, 1, 2, 1), 0, [0]),
        ("xOO", Bounds(3, 0, 1, 2, 1), 0, []),
        ("OO", Bounds(3, 0, 1, 2, 1), 1, []),
        ("OOn", Bounds(3, 0, 1, 2, 1), 0, []),
        # both
        ("OOOOOOOO", Bounds(8, 2, 2, 6, 2), 2, [0, 1]),
        ("xxOOOOOOnn", Bounds(8, 2, 2, 6, 2), 0, []),
        # what is not available goes first
        ("OoON", Bounds(3, 1, 0, 3, 1), 0, [1]),
        ("OooN", Bounds(3, 1, 0, 3, 1), 0, [2]),
        # a fault has taken the available ones below the floor: nothing that is available is stopped
        ("OON", Bounds(5, 1, 1, 4, 1), 2, []),
        # terminating ones of the new template hold resources too
        ("OOOy", Bounds(3, 1, 0, 3, 1), 0, []),
        # a newer revision came: the broken one on its way makes room at once
        ("OOOo", Bounds(3, 1, 0, 3, 1), 0, [3]),
        # scaled in from 10 to 4 in the middle: in proportion, and never below the floor
        ("OOOOOONNNN", Bounds(4, 1, 1, 3, 1), 0, [0, 1, 3, 4, 5, 8, 9]),
        ("OOOOOOnnnn", Bounds(4, 1, 1, 3, 1), 0, [3, 4, 5, 8, 9]),
    ],
)
def test_step(state: str, bounds: Bounds, births: int, stops: list[int]) -> None:
    step = replace_some(standings(state), bounds, paused=False, pausing=False)
    assert (step.births, sorted(one.record.ordinal for one in step.stops)) == (births, stops)


@pytest.mark.parametrize(
    ("state", "paused", "births", "stops"),
    [
        # A batch that has begun is finished...
        ("OOON", True, 0, [0]),
        ("OOn", False, 0, []),
        # ... but the next one waits for the pause,
        ("OON", True, 0, []),
        ("OON", False, 1, []),
        # and for the one before to be available.
        ("OOOn", False, 0, []),
    ],
)
def test_pause_between_batches(state: str, paused: bool, births: int, stops: list[int]) -> None:
    step = replace_some(standings(state), Bounds(3, 1, 0, 3, 1), paused=paused, pausing=True)
    assert (step.births, [one.record.ordinal for one in step.stops]) == (births, stops)


def test_what_scaling_in_stops_is_no_longer_waited_for() -> None:
    step = replace_some(standings("OONn"), Bounds(2, 0, 1, 1, 1), paused=False, pausing=True)
    assert sorted(one.record.ordinal for one in step.stops) == [0, 1, 3]


def test_no_room_is_said() -> None:
    tight = Bounds(3, 0, 1, 3, 1)
    assert "leave no room" in deadlock(standings("OOO"), tight)
    assert not deadlock(standings("NNN"), tight)
    assert not deadlock(standings("OOOO"), tight)
    assert not deadlock(standings("OOO"), Bounds(3, 1, 0, 3, 1))


@pytest.mark.parametrize(
    ("state", "births", "stops"),
    [("OOo", 0, 3), ("xxx", 0, 0), ("xxOn", 0, 1), ("", 3, 0), ("n", 2, 0), ("yn", 2, 0)],
)
def test_recreate(state: str, births: int, stops: int) -> None:
    rollout = Rollout(phase=RolloutPhase.PROGRESSING, revision=2, started_at=START, progressed_at=START)
    web = spec(3, strategy="RECREATE")
    move = step_recreate(Scene(standings(state), bounds_of(web), web.rollout, rollout, START))
    born = sum(verb.births for verb in move.verbs if isinstance(verb, Surge))
    stopped = sum(len(verb.replicas) for verb in move.verbs if isinstance(verb, Retire))
    assert (born, stopped) == (births, stops)
