"""Updates, versions, idempotency keys and dry runs."""

from __future__ import annotations

import asyncio
import datetime

import pytest
from tests.unit.coordinator.world import World

from cloudless import api
from cloudless.api.google import protobuf
from cloudless.domain.errors import AlreadyExists, Conflict, Invalid, NotFound
from cloudless.store.faulty import Fault, FaultAt


def mask(*paths: str) -> protobuf.FieldMask:
    return protobuf.FieldMask(paths=list(paths))


async def update(world: World, **fields: object) -> api.UpdateWorkloadResponse:
    request = api.UpdateWorkloadRequest(name="web", **fields)  # type: ignore[arg-type]
    return await world.call("update_workload", request)  # type: ignore[no-any-return]


# -- updates ---------------------------------------------------------------------------


async def test_an_update_without_a_mask_replaces_the_whole_spec(bare: World) -> None:
    await bare.create("web", 3, env={"A": "1"})
    after = (await update(bare, spec=api.WorkloadSpec(image="nginx:2"))).workload
    assert after is not None
    assert after.spec is not None
    assert (after.spec.image, after.spec.replicas, after.spec.env) == ("nginx:2", 1, {})
    assert after.generation == 2


async def test_a_mask_changes_what_it_names_and_nothing_else(bare: World) -> None:
    limits = api.Resources(limits=api.ResourceList(memory_bytes=2**27, cpu_millicores=500))
    await bare.create("web", 3, env={"A": "1"}, resources=limits, labels={"app": "web"})
    spec = api.WorkloadSpec(
        image="nginx:2", resources=api.Resources(limits=api.ResourceList(memory_bytes=2**28))
    )
    paths = mask("spec.image", "spec.resources.limits.memory_bytes")
    after = (await update(bare, spec=spec, update_mask=paths)).workload
    assert after is not None
    assert after.spec is not None
    assert after.spec.resources is not None
    assert after.spec.resources.limits is not None
    assert after.spec.image == "nginx:2"
    assert after.spec.resources.limits.memory_bytes == 2**28
    assert after.spec.resources.limits.cpu_millicores == 500
    assert (after.spec.replicas, after.spec.env, after.labels) == (3, {"A": "1"}, {"app": "web"})


async def test_a_masked_field_that_is_not_given_goes_back_to_its_default(bare: World) -> None:
    await bare.create("web", 3, env={"A": "1"})
    after = (
        await update(bare, spec=api.WorkloadSpec(), update_mask=mask("spec.env", "spec.replicas"))
    ).workload
    assert after is not None
    assert after.spec is not None
    assert (after.spec.env, after.spec.replicas) == ({}, 1)


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("image", "did you mean spec.image"),
        ("spec.imagee", "did you mean spec.image"),
        ("spec.env.A", "spec.env has no parts"),
        ("spec.ports.name", "spec.ports has no parts"),
        ("spec.resources.limits.memory", "did you mean spec.resources.limits.memory_bytes"),
        ("labels.app", "replaced whole"),
        ("status", "is not a field"),
        ("", "is not a field"),
        ("spec..image", "is not a field"),
    ],
)
async def test_an_unknown_path_is_refused(bare: World, path: str, says: str) -> None:
    await bare.create("web")
    with pytest.raises(Invalid) as refused:
        await update(bare, spec=api.WorkloadSpec(image="nginx:2"), update_mask=mask(path))
    assert refused.value.violations[0].path == "update_mask.paths[0]"
    assert says in f"{refused.value.message} {refused.value.hint}"


async def test_labels_change_without_a_new_generation(bare: World) -> None:
    before = await bare.create("web", labels={"app": "web"}, annotations={"owner": "me"})
    after = (await update(bare, labels={"app": "api"}, update_mask=mask("labels"))).workload
    assert after is not None
    assert (after.labels, after.annotations, after.generation) == ({"app": "api"}, {"owner": "me"}, 1)
    assert after.resource_version != before.resource_version
    cleared = (await update(bare, update_mask=mask("annotations"))).workload
    assert cleared is not None
    assert cleared.annotations == {}


async def test_an_identical_update_changes_nothing(bare: World) -> None:
    before = await bare.create("web", 2, env={"A": "1"})
    spec = api.WorkloadSpec(image="nginx:alpine", replicas=2, env={"A": "1"})
    after = (await update(bare, spec=spec, message="again")).workload
    assert after is not None
    assert (after.generation, after.resource_version) == (1, before.resource_version)
    same = await bare.scale("web", 2)
    assert (same.generation, same.resource_version) == (1, before.resource_version)


async def test_a_stale_version_is_a_conflict(bare: World) -> None:
    first = await bare.create("web", 1)
    await bare.scale("web", 2)
    for call in (
        update(bare, spec=api.WorkloadSpec(image="nginx:2"), resource_version=first.resource_version),
        bare.scale("web", 3, resource_version=first.resource_version),
        bare.delete("web", resource_version=first.resource_version),
    ):
        with pytest.raises(Conflict, match="changed meanwhile"):
            await call
    current = await bare.get()
    scaled = await bare.scale("web", 3, resource_version=current.resource_version)
    assert scaled.generation == 3
    with pytest.raises(Invalid, match="resource_version"):
        await bare.scale("web", 1, resource_version="abc")


async def test_concurrent_changes_without_a_version_are_all_done(bare: World) -> None:
    await bare.create("web", 1)
    await asyncio.gather(
        *(update(bare, labels={"n": str(number)}, update_mask=mask("labels")) for number in range(3)),
        bare.scale("web", 2),
    )
    workload = await bare.get()
    assert workload.spec is not None
    assert (workload.spec.replicas, workload.generation) == (2, 2)


async def test_a_workload_that_does_not_exist(bare: World) -> None:
    for call in (
        update(bare, spec=api.WorkloadSpec(image="nginx:2")),
        bare.scale("web", 1),
        bare.delete("web"),
        bare.get("web"),
    ):
        with pytest.raises(NotFound, match="default/web does not exist"):
            await call


async def test_a_workload_is_found_by_the_beginning_of_its_id(bare: World) -> None:
    created = await bare.create("web")
    await bare.create("other")
    assert (await bare.get(created.id[:6])).name == "web"
    with pytest.raises(NotFound):
        await bare.get(created.id[:6], namespace="elsewhere")


# -- bounds that contradict -----------------------------------------------------------------


async def test_scaling_below_what_must_be_available_names_the_bound(bare: World) -> None:
    await bare.create("web", 4, rollout=api.RolloutStrategy(min_available="3"))
    with pytest.raises(Invalid, match=r"rollout.min_available asks for 3 available replicas of 2") as refused:
        await bare.scale("web", 2)
    assert [violation.path for violation in refused.value.violations] == ["replicas"]
    assert (await bare.get()).generation == 1
    await bare.scale("web", 3)
    await bare.scale("web", 0)
    with pytest.raises(Invalid):
        await bare.scale("web", 1)
    await bare.scale("web", 5)


async def test_scaling_to_where_no_replica_could_be_replaced_is_refused(bare: World) -> None:
    await bare.create("web", 10, rollout=api.RolloutStrategy(min_available="90%", max_surge="0"))
    with pytest.raises(Invalid, match="none could be replaced") as refused:
        await bare.scale("web", 9)
    assert [violation.path for violation in refused.value.violations] == ["replicas"]
    assert "max_surge" in refused.value.hint
    await bare.scale("web", 0)
    await bare.scale("web", 20)


async def test_an_update_that_contradicts_itself_is_refused_and_others_are_not(bare: World) -> None:
    await bare.create("web", 4, rollout=api.RolloutStrategy(min_available="3"))
    for given in (
        {"spec": api.WorkloadSpec(image="a", replicas=2, rollout=api.RolloutStrategy(min_available="3"))},
        {"spec": api.WorkloadSpec(image="", replicas=2), "update_mask": mask("spec.replicas")},
    ):
        with pytest.raises(Invalid) as refused:
            await update(bare, **given)
        assert [violation.path for violation in refused.value.violations] == ["spec.rollout.min_available"]
    percent = api.RolloutStrategy(min_available="100%")
    await update(bare, spec=api.WorkloadSpec(image="a", replicas=2, rollout=percent))
    await update(bare, labels={"a": "b"}, update_mask=mask("labels"))


# -- who asked -----------------------------------------------------------------------------


async def test_who_asked_is_kept_with_the_revision(world: World) -> None:
    async def kept() -> list[tuple[int, str, str]]:
        await world.settle()
        answer = await world.call("list_revisions", api.ListRevisionsRequest(name="web"))
        return [(one.number, one.author, one.message) for one in answer.revisions]

    spec = api.WorkloadSpec(image="a", replicas=2)
    request = api.CreateWorkloadRequest(name="web", spec=spec, author="alice@laptop", message="first")
    await world.call("create_workload", request)
    assert await kept() == [(1, "alice@laptop", "first")]
    image = mask("spec.image")
    await update(world, spec=api.WorkloadSpec(image="b"), update_mask=image, author="bob ü")
    await update(
        world, spec=api.WorkloadSpec(image="", replicas=3), update_mask=mask("spec.replicas"), author="x"
    )
    assert (await kept())[0] == (2, "bob ü", ""), "who scales makes no revision"
    await update(world, spec=api.WorkloadSpec(image="c"), update_mask=image)
    assert (await kept())[0] == (3, "", ""), "nobody has to say"
    for verb, author in ((api.RolloutRequestVerb.UNDO, "carol"), (api.RolloutRequestVerb.RESTART, "ci #5")):
        await world.call("rollout", api.RolloutRequest(name="web", verb=verb, author=author))
        assert (await kept())[0][1] == author


@pytest.mark.parametrize("author", ["a" * 129, "two\nlines", "bell\a", "\x1b[31mred", "a\u202eb"])
async def test_who_asked_is_short_and_printable(world: World, author: str) -> None:
    await world.create("web", 1)
    spec = api.WorkloadSpec(image="a")
    undo = api.RolloutRequest(name="web", verb=api.RolloutRequestVerb.UNDO, author=author)
    for call in (
        world.call("create_workload", api.CreateWorkloadRequest(name="new", spec=spec, author=author)),
        update(world, spec=spec, author=author),
        world.call("rollout", undo),
    ):
        with pytest.raises(Invalid) as refused:
            await call
        assert [violation.path for violation in refused.value.violations] == ["author"]


async def test_verbs_that_make_no_revision_take_no_author(world: World) -> None:
    await world.create("web", 1)
    with pytest.raises(Invalid, match="has no meaning with PAUSE"):
        await world.call(
            "rollout", api.RolloutRequest(name="web", verb=api.RolloutRequestVerb.PAUSE, author="a")
        )


# -- idempotency -----------------------------------------------------------------------


async def test_a_repeated_request_gets_the_first_answer(world: World) -> None:
    first = await world.create("web", 2, request_id="key")
    await world.until_ready("web", 2)
    again = await world.create("web", 2, request_id="key")
    assert again == first, "the first answer, byte for byte, whatever has happened since"
    await world.scale("web", 3, request_id="scale-key")
    await world.scale("web", 1)
    repeated = await world.scale("web", 3, request_id="scale-key")
    assert repeated.generation == 2
    assert repeated.spec is not None
    assert repeated.spec.replicas == 3
    now = (await world.get()).spec
    assert now is not None
    assert now.replicas == 1, "a repetition does nothing twice"


async def test_a_repetition_is_known_after_the_workload_is_gone(world: World) -> None:
    first = await world.create("web", 1, request_id="key")
    await world.delete("web", request_id="delete-key")
    await world.until_gone()
    assert (await world.create("web", 1, request_id="key")).id == first.id
    assert (await world.delete("web", request_id="delete-key")).deleted_at is not None
    with pytest.raises(NotFound):
        await world.get("web")


async def test_a_key_cannot_be_used_for_another_request(bare: World) -> None:
    await bare.create("web", 1, request_id="key")
    for call in (
        bare.create("web", 2, request_id="key"),
        bare.create("other", 1, request_id="key"),
        bare.scale("web", 1, request_id="key"),
    ):
        with pytest.raises(Invalid, match="another request") as refused:
            await call
        assert refused.value.violations[0].path == "request_id"


async def test_maps_in_another_order_are_the_same_request(bare: World) -> None:
    first = await bare.create("web", 1, request_id="key", env={"A": "1", "B": "2"})
    again = await bare.create("web", 1, request_id="key", env={"B": "2", "A": "1"})
    assert first.id == again.id


async def test_two_at_once_with_one_key_make_one(bare: World) -> None:
    one, two = await asyncio.gather(
        bare.create("web", 1, request_id="key"), bare.create("web", 1, request_id="key")
    )
    assert one == two


async def test_a_no_op_is_kept_too(bare: World) -> None:
    before = await bare.create("web", 2)
    first = await bare.scale("web", 2, request_id="key")
    await bare.scale("web", 5)
    again = await bare.scale("web", 2, request_id="key")
    assert again == first
    assert first.resource_version == before.resource_version


async def test_answers_are_forgotten_after_a_day(bare: World) -> None:
    await bare.create("web", 1, request_id="key")
    await bare.pass_time(datetime.timedelta(hours=25).total_seconds())
    with pytest.raises(AlreadyExists):
        await bare.create("web", 1, request_id="key")


async def test_a_write_that_happened_although_the_answer_was_lost(bare: World) -> None:
    await bare.settle()
    bare.faulty.calls.clear()
    bare.faulty.decide = FaultAt(0, Fault.AFTER)
    created = await bare.create("web", 1)
    assert (await bare.get()).id == created.id
    assert (await bare.get()).resource_version == created.resource_version


# -- dry runs --------------------------------------------------------------------------


async def test_a_dry_run_plans_fully_and_changes_nothing(world: World) -> None:
    revision = world.coordinator.cache.revision
    request = api.CreateWorkloadRequest(
        name="web", spec=api.WorkloadSpec(image="nginx:alpine", replicas=2), dry_run=True, request_id="key"
    )
    answer = await world.call("create_workload", request)
    assert [step.node for step in answer.plan if step.replica] == ["n1", "n1"]
    assert all(step.score for step in answer.plan if step.node)
    assert answer.workload.name == "web"
    await world.settle()
    assert world.coordinator.cache.revision == revision
    assert not world.cluster.workloads
    await world.create("web", 1, request_id="key")


async def test_dry_runs_of_changes(world: World) -> None:
    await world.create("web", 1)
    before = await world.until_ready()
    spec = api.WorkloadSpec(image="nginx:2")
    planned = await update(world, spec=spec, dry_run=True)
    assert planned.workload is not None
    assert planned.workload.generation == 2
    assert planned.plan[0].sentence == "revision: revision 2: image nginx:alpine -> nginx:2"
    scaled = await world.call(
        "scale_workload", api.ScaleWorkloadRequest(name="web", replicas=3, dry_run=True)
    )
    assert sum(step.action == "create" for step in scaled.plan) == 2
    deleted = await world.delete("web", dry_run=True)
    assert deleted.deleted_at is not None
    await world.settle()
    after = await world.get()
    assert (after.resource_version, after.deleted_at) == (before.resource_version, None)


async def test_a_dry_run_is_refused_like_the_real_thing(world: World) -> None:
    created = await world.create("web", 1)
    spec = api.WorkloadSpec(image="nginx:2")
    with pytest.raises(AlreadyExists):
        await world.call("create_workload", api.CreateWorkloadRequest(name="web", spec=spec, dry_run=True))
    await world.scale("web", 2)
    with pytest.raises(Conflict):
        await update(world, spec=spec, dry_run=True, resource_version=created.resource_version)
    with pytest.raises(NotFound):
        await world.delete("other", dry_run=True)


async def test_a_dry_run_says_why_nothing_fits(world: World) -> None:
    resources = api.Resources(requests=api.ResourceList(memory_bytes=2**50))
    spec = api.WorkloadSpec(image="nginx:alpine", resources=resources)
    answer = await world.call(
        "create_workload", api.CreateWorkloadRequest(name="web", spec=spec, dry_run=True)
    )
    refused = [step for step in answer.plan if step.refusals]
    assert refused
    assert refused[0].refusals[0].node == "n1"


# -- namespaces ------------------------------------------------------------------------


async def test_changes_in_another_namespace(bare: World) -> None:
    await bare.create("web", 1)
    await bare.create("web", 1, namespace="prod")
    await bare.scale("web", 5, namespace="prod")
    request = api.UpdateWorkloadRequest(
        namespace="prod", name="web", labels={"a": "b"}, update_mask=mask("labels")
    )
    await bare.call("update_workload", request)
    await bare.delete("web", namespace="prod")
    here, there = await bare.get("web"), await bare.get("web", namespace="prod")
    assert here.spec is not None
    assert there.spec is not None
    assert (here.spec.replicas, here.labels, here.deleted_at) == (1, {}, None)
    assert (there.spec.replicas, there.labels) == (5, {"a": "b"})
    assert there.deleted_at is not None


async def test_a_repeated_update_is_done_once(bare: World) -> None:
    await bare.create("web", 1)
    spec = api.WorkloadSpec(image="nginx:2")
    first = await update(bare, spec=spec, request_id="key")
    await update(bare, spec=api.WorkloadSpec(image="nginx:3"))
    again = await update(bare, spec=spec, request_id="key")
    assert again == first
    current = (await bare.get()).spec
    assert current is not None
    assert current.image == "nginx:3"
