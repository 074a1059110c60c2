from __future__ import annotations

from typing import Any

import pytest
from tests.unit.planning.world import START, workload_record

from cloudless.domain.cluster import Cluster
from cloudless.domain.revision import Revision
from cloudless.domain.workload import WorkloadSpec
from cloudless.planning.revisions import (
    changed_fields,
    describe_change,
    surplus_revisions,
    template_key,
    wanted_revision,
)


def spec(**fields: Any) -> WorkloadSpec:
    return WorkloadSpec.model_validate({"image": "web:1", **fields})


def revision(number: int = 1, **fields: Any) -> Revision:
    made = spec(**fields)
    return Revision(
        workload_id="web-id",
        number=number,
        template_hash=made.template_hash,
        spec=made,
        generation=1,
        created_at=START,
    )


@pytest.mark.parametrize(
    "change",
    [
        {"image": "web:2"},
        {"command": ["a"]},
        {"args": ["a"]},
        {"env": {"A": "1"}},
        {"resources": {"requests": {"cpu": "1"}}},
        {"stop_grace_period": "1s"},
        {"placement": {"zones": ["a"]}},
        {"restart_policy": {"policy": "NEVER"}},
        {"readiness_probe": {"tcp": {"port": 80}}},
        {"security_context": {"run_as_user": 1}},
    ],
)
def test_what_makes_a_revision(change: dict[str, Any]) -> None:
    assert spec(**change).template_hash != spec().template_hash
    assert changed_fields(spec(), spec(**change)) == list(change)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({}, {"replicas": 7}),
        ({}, {"rollout": {"max_surge": "3"}}),
        # Maps have no order, and saying a default is saying nothing.
        ({"env": {"A": "1", "B": "2"}}, {"env": {"B": "2", "A": "1"}}),
        ({}, {"stop_grace_period": "30s", "restart_policy": {"policy": "ALWAYS"}}),
    ],
)
def test_what_makes_none(first: dict[str, Any], second: dict[str, Any]) -> None:
    assert spec(**first).template_hash == spec(**second).template_hash
    assert changed_fields(spec(**first), spec(**second)) == []


def test_a_restart_makes_one() -> None:
    record = workload_record()
    assert template_key(record) != template_key(record.replaced(restart_count=1))


def test_numbers_rise() -> None:
    cluster, record = Cluster(), workload_record()
    assert wanted_revision(cluster, record, START).number == 1
    first = wanted_revision(cluster, record, START)
    cluster.put_revision(first)
    assert wanted_revision(cluster, record, START) is first
    cluster.put_workload(record)
    assert wanted_revision(cluster, workload_record(image="web:2"), START).number == 2


def test_a_change_in_words() -> None:
    assert describe_change(None, revision()) == "revision 1: image web:1"
    assert describe_change(revision(), revision(2, image="web:2", args=["a"])) == (
        "revision 2: image web:1 -> web:2, args"
    )
    assert describe_change(revision(), revision(2, env={"A": "1"})) == "revision 2: env"
    assert describe_change(revision(), revision(2)) == "revision 2: restart with the same specification"


def test_what_is_restored_runs_its_digest_whatever_the_tag_means_now() -> None:
    cluster = Cluster()
    for number, digest in ((1, "sha256:a"), (2, "sha256:b")):
        cluster.put_revision(revision(number).replaced(image_digest=digest))
    pulled = workload_record().replaced(spec=spec(), restart_count=1, pull=True)
    cluster.put_workload(pulled)
    asked = wanted_revision(cluster, pulled, START)
    assert (asked.number, asked.image_digest, asked.pull) == (3, "", True)
    undone = pulled.replaced(pull=False, restores=1)
    restored = wanted_revision(cluster, undone, START)
    assert (restored.image_digest, restored.restores, restored.pull) == ("sha256:a", 1, False)
    assert describe_change(revision(2), restored) == "revision 3: revision 1 again"
    again = wanted_revision(cluster, undone.replaced(restores=0), START)
    assert again.image_digest == "sha256:b", "a restart keeps what runs"


def test_surplus() -> None:
    assert surplus_revisions(range(1, 11), ()) == []
    assert surplus_revisions(range(1, 14), {2}) == [1, 3, 4]  # ten are left, 2 among them
