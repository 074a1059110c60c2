"""The life of a workload through the whole coordinator, with a node that does as told."""

from __future__ import annotations

import datetime

import pytest
from tests.unit.coordinator.world import World

from cloudless import api
from cloudless.domain.errors import AlreadyExists, NotFound, PreconditionFailed
from cloudless.domain.replica import ReplicaPhase


async def test_a_workload_runs_and_says_so(world: World) -> None:
    created = await world.create("web", 3)
    assert created.status is not None
    assert (created.generation, created.status.ready_replicas) == (1, 0)
    workload = await world.until_ready("web", 3)
    status = workload.status
    assert status is not None
    assert (status.desired_replicas, status.available_replicas, status.updated_replicas) == (3, 3, 3)
    assert status.observed_generation == workload.generation == 1
    assert {replica.node for replica in status.replicas} == {"n1"}
    assert all(replica.image_digest and replica.container_id for replica in status.replicas)
    assert workload.id == created.id
    assert workload.resource_version == created.resource_version


async def test_nothing_is_running_that_is_not(world: World) -> None:
    world.agents["n1"].start_replicas = False
    await world.create("web", 2)
    await world.until(lambda: len(world.agents["n1"].observed) == 2)
    await world.settle()
    status = (await world.get()).status
    assert status is not None
    assert (status.ready_replicas, status.available_replicas) == (0, 0)
    assert {replica.phase for replica in status.replicas} == {api.ReplicaPhase.STARTING}


async def test_a_workload_without_nodes_waits_and_says_why(bare: World) -> None:
    await bare.create("web", 1)
    await bare.settle()
    status = (await bare.get()).status
    assert status is not None
    assert status.replicas[0].phase == api.ReplicaPhase.PENDING
    placed = next(condition for condition in status.conditions if condition.type == "Placed")
    assert placed.status == "False"
    await bare.join("n1")
    await bare.until_ready()


async def test_room_that_becomes_free_is_given_to_who_waits(world: World) -> None:
    half = api.Resources(requests=api.ResourceList(cpu_millicores=3000))
    await world.create("first", 1, resources=half)
    await world.until_ready("first")
    await world.create("second", 1, resources=half)
    await world.settle()
    waiting = (await world.get("second")).status
    assert waiting is not None
    assert waiting.replicas[0].refusals[0].node == "n1"
    await world.delete("first")
    await world.until_ready("second")


async def test_scale_out_and_in(world: World) -> None:
    await world.create("web", 1)
    await world.until_ready("web", 1)
    scaled = await world.scale("web", 4)
    assert scaled.generation == 2
    await world.until_ready("web", 4)
    await world.scale("web", 0)
    await world.until_ready("web", 0)
    assert not world.agents["n1"].observed
    revisions = await world.call("list_revisions", api.ListRevisionsRequest(name="web"))
    assert [revision.number for revision in revisions.revisions] == [1], "scaling makes no revision"


@pytest.mark.parametrize("strategy", ["RECREATE", "ROLLING_UPDATE"])
async def test_a_new_image_replaces_every_replica(world: World, strategy: str) -> None:
    rollout = api.RolloutStrategy(strategy=api.RolloutStrategyStrategy[strategy])
    await world.create("web", 4, rollout=rollout)
    before = await world.until_ready("web", 4)
    request = api.UpdateWorkloadRequest(
        name="web", spec=api.WorkloadSpec(image="nginx:1.27", replicas=4, rollout=rollout), message="newer"
    )
    await world.call("update_workload", request)
    after = await world.until_ready("web", 4)
    assert before.status is not None
    assert after.status is not None
    old, new = ({replica.id for replica in status.replicas} for status in (before.status, after.status))
    assert not old & new
    assert {replica.revision for replica in after.status.replicas} == {2}
    revisions = await world.call("list_revisions", api.ListRevisionsRequest(name="web"))
    assert [(one.number, one.message) for one in revisions.revisions] == [(2, "newer"), (1, "")]
    told = world.agents["n1"].assignments.values()
    assert {assignment.spec.image for assignment in told if assignment.spec} == {"nginx:1.27"}


async def test_delete_is_recorded_at_once_and_done_when_nothing_is_left(world: World) -> None:
    agent = world.agents["n1"]
    await world.create("web", 2)
    await world.until_ready("web", 2)
    agent.stop_replicas = False
    deleted = await world.delete("web", grace_period=datetime.timedelta(seconds=3))
    assert deleted.deleted_at is not None
    await world.until(lambda: all(not one.run for one in agent.assignments.values()))
    assert {one.grace_period for one in agent.assignments.values()} == {datetime.timedelta(seconds=3)}
    status = (await world.get()).status
    assert status is not None
    assert status.desired_replicas == 0
    with pytest.raises(AlreadyExists, match="being deleted"):
        await world.create("web", 1)
    with pytest.raises(PreconditionFailed, match="being deleted"):
        await world.scale("web", 1)
    for replica_id in list(agent.observed):
        agent.remove(replica_id)
    await world.until_gone()
    with pytest.raises(NotFound):
        await world.get("web")
    again = await world.create("web", 1)
    assert again.id != deleted.id


async def test_deleting_twice_is_fine_and_may_only_hurry(world: World) -> None:
    world.agents["n1"].stop_replicas = False
    await world.create("web", 1)
    await world.until_ready()
    first = await world.delete("web")
    second = await world.delete("web")
    assert second.deleted_at == first.deleted_at
    assert second.resource_version == first.resource_version
    third = await world.delete("web", grace_period=datetime.timedelta(0))
    assert third.deleted_at == first.deleted_at
    agent = world.agents["n1"]
    zero = datetime.timedelta(0)
    await world.until(lambda: {one.grace_period for one in agent.assignments.values()} == {zero})
    fourth = await world.delete("web", grace_period=datetime.timedelta(seconds=60))
    assert fourth.resource_version == third.resource_version


async def test_a_crash_is_shown_with_its_exit(world: World) -> None:
    agent = world.agents["n1"]
    await world.create("web", 1)
    workload = await world.until_ready()
    assert workload.status is not None
    replica_id = workload.status.replicas[0].id
    agent.crash(replica_id, code=3)
    await world.until(lambda: world.cluster.observations[replica_id].phase is ReplicaPhase.BACKING_OFF)
    status = (await world.get()).status
    assert status is not None
    replica = status.replicas[0]
    assert (replica.phase, replica.restarts) == (api.ReplicaPhase.BACKING_OFF, 1)
    assert replica.last_exit is not None
    assert replica.last_exit.code == 3
    assert status.ready_replicas == 0
    agent.run(replica_id)
    after = await world.until_ready()
    assert after.status is not None
    assert after.status.replicas[0].restarts == 1
    assert after.status.replicas[0].last_exit is not None


async def test_min_ready_time_makes_available_by_time_alone(world: World) -> None:
    rollout = api.RolloutStrategy(min_ready_time=datetime.timedelta(seconds=30))
    await world.create("web", 1, rollout=rollout)
    workload = await world.until_ready()
    assert workload.status is not None
    assert workload.status.available_replicas == 0
    await world.pass_time(31)
    status = (await world.get()).status
    assert status is not None
    assert status.available_replicas == 1


async def test_events_tell_the_story_in_order(world: World) -> None:
    await world.create("web", 2)
    await world.until_ready("web", 2)
    await world.delete("web")
    await world.until_gone()
    answer = await world.call("list_events", api.ListEventsRequest(name="web"))
    reasons = [event.reason for event in answer.events]
    assert reasons[0] == "RevisionCreated"
    assert reasons[-1] == "WorkloadDeleted"
    assert reasons.count("ReplicaPlaced") == 2
    times = [event.at for event in answer.events]
    assert times == sorted(times)
    assert answer.events[0].id < answer.events[-1].id
