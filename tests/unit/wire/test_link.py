"""What a node accepts of an assignment: ids and names that stay below their roots."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudless import api
from cloudless.agent.replica.process import hostname
from cloudless.domain.errors import Invalid
from cloudless.domain.replica import Observation, ReplicaPhase
from cloudless.domain.rollout import TrafficShare
from cloudless.wire import link
from cloudless.wire.link import assignment_from_wire

GOOD: dict[str, Any] = {
    "replica_id": "abcdefgh12345678",
    "workload_id": "abcdefgh12345678",
    "namespace": "default",
    "name": "web",
    "ordinal": 0,
    "revision": 1,
}
HOSTILE = [
    "../../etc",
    "/etc",
    "..",
    ".",
    "a/b",
    "a\0",
    "a\n",
    "a b",
    "-rf",
    "",
    "é",
    "a" * 300,
    "a@b",
    "%2e",
]


def message(**fields: Any) -> api.Assignment:
    return api.Assignment(**{**GOOD, **fields}, spec=api.WorkloadSpec(image="a:1"))


def test_an_ordinary_assignment() -> None:
    digest = "sha256:" + "0" * 64
    assert assignment_from_wire(message(image_digest=digest)).image_digest == digest


@pytest.mark.parametrize("field", ["replica_id", "workload_id", "namespace", "name"])
@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_names_are_refused(field: str, text: str) -> None:
    with pytest.raises(Invalid):
        assignment_from_wire(message(**{field: text}))


@pytest.mark.parametrize(
    "fields", [{"ordinal": -1}, {"revision": -1}, {"image_digest": "sha256:abc"}, {"image_digest": "../x"}]
)
def test_hostile_numbers_and_digests_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        assignment_from_wire(message(**fields))


@given(st.text(max_size=80), st.text(max_size=80))
def test_what_is_accepted_stays_below_its_root(replica_id: str, name: str) -> None:
    try:
        assignment = assignment_from_wire(message(replica_id=replica_id, name=name))
    except Invalid:
        return
    root = pathlib.Path("/var/lib/root")
    assert (root / assignment.replica_id).resolve().parent == root
    assert hostname(assignment).replace("-", "a").isalnum()
    assert hostname(assignment).isascii()


@pytest.mark.parametrize("pull", [True, False])
def test_pull_travels_both_ways(pull: bool) -> None:
    there = assignment_from_wire(message(pull=pull))
    assert there.pull is pull
    assert assignment_from_wire(link.assignment_to_wire(there)) == there


def test_the_tail_of_a_log_travels_both_ways() -> None:
    seen = Observation(replica_id="r", workload_id="w", phase=ReplicaPhase.RUNNING, log_tail="a\nb")
    assert link.observation_from_wire(link.observation_to_wire(seen), "n").log_tail == "a\nb"


@pytest.mark.parametrize("percents", [(), (100,), (95, 5), (0, 100), (30, 30)])
def test_shares_travel_both_ways(percents: tuple[int, ...]) -> None:
    shares = tuple(TrafficShare(revision=n, percent=percent) for n, percent in enumerate(percents, 1))
    there = link.shares_to_wire("w1", shares)
    assert there.workload_id == "w1"
    assert link.shares_from_wire(there) == shares


@pytest.mark.parametrize(
    ("workload_id", "shares"),
    [
        ("", [(1, 100)]),
        ("../w", [(1, 100)]),
        ("w1", [(1, 101)]),
        ("w1", [(1, -1)]),
        ("w1", [(1, 60), (2, 41)]),
        ("w1", [(1, 50), (1, 50)]),
        ("w1", [(0, 100)]),
    ],
)
def test_shares_that_make_no_sense_are_refused(workload_id: str, shares: list[tuple[int, int]]) -> None:
    with pytest.raises(Invalid):
        link.shares_from_wire(
            api.TrafficSplit(
                workload_id=workload_id,
                shares=[api.TrafficShare(revision=revision, percent=percent) for revision, percent in shares],
            )
        )
