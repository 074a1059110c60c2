from __future__ import annotations

import datetime
from typing import Any

import pytest

from cloudless.domain.revision import Revision
from cloudless.domain.workload import WorkloadSpec
from cloudless.planning.changes import MAX_CHANGES, list_changes, revision_changes

START = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
BASE: dict[str, Any] = {"image": "web:1", "env": {"MODE": "a"}}


def spec(**fields: Any) -> WorkloadSpec:
    return WorkloadSpec.model_validate({**BASE, **fields})


@pytest.mark.parametrize(
    ("after", "lines"),
    [
        (spec(), []),
        (spec(replicas=9, rollout={"max_surge": "1"}), []),
        (spec(image="web:2"), ["image: web:1 -> web:2"]),
        (spec(env={"MODE": ""}), ['env.MODE: a -> ""']),
        (spec(env={"MODE": "a", "DB_PASSWORD": "hunter2"}), ["env.DB_PASSWORD changed"]),
        (spec(env={"MODE": "x" * 61}), ["env.MODE changed"]),
        (spec(env={"MODE": "two\nlines"}), ["env.MODE: a -> two lines"]),
        (spec(command=["/bin/app", "-v"]), ["command: none -> /bin/app -v"]),
        (spec(stop_grace_period="1m"), ["stop_grace_period: 30s -> 1m"]),
        (spec(image_pull_policy="Always"), ["image_pull_policy: none -> ALWAYS"]),
        (spec(resources={"limits": {"memory": "64Mi"}}), ["resources.limits.memory: none -> 64Mi"]),
        (spec(resources={"requests": {"cpu": "1.5"}}), ["resources.requests.cpu: none -> 1500m"]),
        (spec(ports=[{"container_port": 80}]), ["ports changed"]),
        (spec(security_context={"privileged": True}), ["security_context.privileged: false -> true"]),
        (
            spec(pull_secrets=[{"server": "r", "username": "u", "password": "p"}]),
            ["pull_secrets changed"],
        ),
    ],
)
def test_a_line_for_each_field(after: WorkloadSpec, lines: list[str]) -> None:
    assert list(list_changes(spec(), after)) == lines


def test_many_fields_are_counted() -> None:
    found = list_changes(spec(env={}), spec(env={f"V{number:03}": "1" for number in range(500)}))
    assert len(found) == MAX_CHANGES + 1
    assert found[-1] == f"and {500 - MAX_CHANGES} more fields"


def revision(number: int, digest: str, image: str = "web:1") -> Revision:
    return Revision(
        workload_id="w",
        number=number,
        template_hash="",
        spec=spec(image=image),
        generation=1,
        image_digest=digest,
        created_at=START,
    )


def test_a_tag_that_moved_is_a_change() -> None:
    one, two = "sha256:" + "1" * 64, "sha256:" + "2" * 64
    moved = "what web:1 means: sha256:111111111111 -> sha256:222222222222"
    assert revision_changes(revision(1, one), revision(2, two)) == (moved,)
    assert revision_changes(revision(1, one), revision(2, one)) == ()
    assert revision_changes(revision(1, one), revision(2, "")) == ()
    assert revision_changes(revision(1, one), revision(2, two, "web:2")) == ("image: web:1 -> web:2",)
