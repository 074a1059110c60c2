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
