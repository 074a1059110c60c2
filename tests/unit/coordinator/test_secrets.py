"""A pull secret's password goes in, reaches the node, and comes out of no answer."""

from __future__ import annotations

import pytest
from tests.unit.coordinator.world import World

from cloudless import api
from cloudless.api.google.protobuf import FieldMask
from cloudless.domain.errors import Invalid
from cloudless.domain.secrets import HIDDEN

CANARY = "canary-3f9d"


def secret(password: str, username: str = "u") -> api.PullSecret:
    return api.PullSecret(server="registry:5000", username=username, password=password)


def stored(world: World, name: str = "web") -> list[str]:
    record = world.coordinator.cache.cluster.workload_named("default", name)
    assert record is not None
    return [one.password for one in record.spec.pull_secrets]


async def update(
    world: World, secrets: list[api.PullSecret], *paths: str, image: str = "app:2"
) -> api.Workload:
    request = api.UpdateWorkloadRequest(
        name="web",
        spec=api.WorkloadSpec(image="app:2", replicas=1, pull_secrets=secrets),
        update_mask=FieldMask(paths=list(paths)) if paths else None,
    )
    answer = await world.call("update_workload", request)
    return answer.workload  # type: ignore[no-any-return]


async def test_no_answer_holds_the_password(world: World) -> None:
    created = await world.create("web", 1, pull_secrets=[secret(CANARY)])
    await world.until_ready()
    name = {"name": "web"}
    dry = api.CreateWorkloadRequest(
        name="dry",
        dry_run=True,
        spec=api.WorkloadSpec(image="a:1", replicas=1, pull_secrets=[secret(CANARY)]),
    )
    answers = [
        created,
        await world.call("get_workload", api.GetWorkloadRequest(**name)),
        await world.call("list_workloads", api.ListWorkloadsRequest()),
        await world.call("list_revisions", api.ListRevisionsRequest(**name)),
        await world.call("list_replicas", api.ListReplicasRequest(**name)),
        await world.call("list_events", api.ListEventsRequest()),
        await world.call("scale_workload", api.ScaleWorkloadRequest(replicas=2, request_id="r", **name)),
        await world.call("scale_workload", api.ScaleWorkloadRequest(replicas=2, request_id="r", **name)),
        await world.call("create_workload", dry),
        await world.call("delete_workload", api.DeleteWorkloadRequest(**name)),
    ]
    for answer in answers:
        assert CANARY.encode() not in bytes(answer), type(answer).__name__
    assert (await world.get()).spec.pull_secrets == [secret(HIDDEN)]


async def test_the_node_gets_it(world: World) -> None:
    await world.create("web", 1, pull_secrets=[secret(CANARY)])
    await world.until_ready()
    specs = [assignment.spec for assignment in world.agents["n1"].assignments.values()]
    assert [one.password for spec in specs for one in spec.pull_secrets] == [CANARY]


@pytest.mark.parametrize("paths", [(), ("spec",), ("spec.image",), ("spec.image", "spec.pull_secrets")])
async def test_what_is_read_can_be_written_back(world: World, paths: tuple[str, ...]) -> None:
    await world.create("web", 1, pull_secrets=[secret(CANARY)])
    read = (await world.get()).spec
    assert read is not None
    updated = await update(world, read.pull_secrets, *paths)
    assert updated.spec is not None
    assert updated.spec.image == "app:2"
    assert stored(world) == [CANARY]
    again = await update(world, read.pull_secrets)
    assert again.generation == updated.generation, "nothing changed"


async def test_a_new_password_replaces_it(world: World) -> None:
    await world.create("web", 1, pull_secrets=[secret(CANARY)])
    await update(world, [secret("other")])
    assert stored(world) == ["other"]
    await update(world, [secret("")])
    assert stored(world) == [""]


async def test_a_hidden_password_must_stand_for_one(world: World) -> None:
    with pytest.raises(Invalid, match=r"pull_secrets\[0\]"):
        await world.create("web", 1, pull_secrets=[secret(HIDDEN)])
    await world.create("web", 1, pull_secrets=[secret(CANARY)])
    with pytest.raises(Invalid, match=r"pull_secrets\[0\]"):
        await update(world, [secret(HIDDEN, username="another")])
    assert stored(world) == [CANARY]
