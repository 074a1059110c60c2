from __future__ import annotations

import datetime

import pytest
from tests.unit.planning.world import SECOND, START, WEB, World, workload_record

from cloudless.domain.intent import RolloutIntent
from cloudless.domain.node import NodePhase
from cloudless.domain.plan import PutReplica, RemoveReplica, RemoveWorkload
from cloudless.domain.replica import Observation, ReplicaPhase, ReplicaRecord
from cloudless.domain.revision import KEPT_REVISIONS
from cloudless.domain.rollout import Rollout, RolloutPhase
from cloudless.planning.apply import apply_plan
from cloudless.planning.limits import MAX_REPLICA_CHANGES
from cloudless.planning.workload import plan_workload


def running(replicas: int = 3, nodes: int = 1, **spec: object) -> World:
    """A world in which the first revision is rolled out."""
    world = World(3, nodes, replicas=replicas, **spec)
    world.run(8)
    assert world.converged()
    return world


def reasons(world: World) -> list[str]:
    return [event.reason for plan in world.plans for event in plan.events]


def records(world: World) -> list[ReplicaRecord]:
    return sorted(world.cluster.replicas_of(WEB), key=lambda one: (one.ordinal, one.id))


def observe(world: World, record: ReplicaRecord, phase: ReplicaPhase, **fields: object) -> None:
    old = world.cluster.observations.get(record.id)
    base = old or Observation(replica_id=record.id, workload_id=WEB, node_id=record.node_id, phase=phase)
    since = world.now if fields.get("ready") else None
    given = {"ready": False, "ready_since": since, **fields}
    world.cluster.put_observation(base.replaced(phase=phase, **given))


def test_a_new_workload_is_placed_in_one_plan() -> None:
    world = World(replicas=2)
    world.settle()
    assert [(one.ordinal, one.revision, bool(one.node_id)) for one in records(world)] == [
        (0, 1, True),
        (1, 1, True),
    ]
    assert reasons(world) == ["RevisionCreated", "RolloutStarted", "ReplicaPlaced", "ReplicaPlaced"]
    assert world.view().message == "0 of 2 ready: web/0: starting on n0"
    world.run(8)
    assert world.view().message == "2 of 2 replicas available"
    assert reasons(world)[-1] == "RolloutCompleted"


def test_zero_replicas_are_rolled_out_at_once() -> None:
    world = World(replicas=0)
    world.settle()
    view = world.view()
    assert (view.desired, view.current, view.message) == (0, 0, "scaled to 0")
    assert view.status is not None
    assert view.status.rollout is not None
    assert view.status.rollout.phase is RolloutPhase.COMPLETED


def test_scaling_takes_the_lowest_free_ordinals_and_is_no_revision() -> None:
    world = running(3)
    first = records(world)[0]
    world.change(replicas=5)
    world.run(8)
    assert [one.ordinal for one in records(world)] == [0, 1, 2, 3, 4]
    world.change(replicas=2)
    world.run(8)
    assert [one.ordinal for one in records(world)] == [0, 1]
    assert records(world)[0].id == first.id
    assert reasons(world).count("WorkloadScaled") == 2
    assert reasons(world).count("RevisionCreated") == 1


def test_scaling_in_stops_what_is_not_ready_first() -> None:
    world = running(3)
    oldest = records(world)[0]
    observe(world, oldest, ReplicaPhase.BACKING_OFF)
    world.change(replicas=2)
    world.settle()
    assert [one.ordinal for one in records(world) if not one.run] == [oldest.ordinal]


def test_a_change_taken_back_keeps_the_replicas_that_are_there() -> None:
    world = running(3)
    before = {one.id for one in records(world)}
    world.change(image="bad:1")
    world.run(3)
    assert "RolloutStarted" in reasons(world)
    world.change(image="web:1")
    world.run(8)
    assert {one.id for one in records(world)} == before
    assert world.converged()
    assert reasons(world).count("RolloutSuperseded") == 1
    assert world.cluster.revisions[WEB][3].image_digest == world.cluster.revisions[WEB][1].image_digest


def test_restart_makes_new_replicas_of_the_same_specification() -> None:
    world = running(2)
    before = {one.id for one in records(world)}
    world.do_restart(0)
    world.run(20)
    assert world.converged()
    assert not before & {one.id for one in records(world)}
    assert world.cluster.revisions[WEB][2].spec == world.cluster.revisions[WEB][1].spec


def test_ten_revisions_are_kept_and_those_in_use() -> None:
    world = running(1, rollout={"max_surge": "1"})
    for number in range(14):
        world.change(image=f"bad:{number}")
        world.run(3)
    kept = sorted(world.cluster.revisions[WEB])
    assert kept == [1, *range(17 - KEPT_REVISIONS, 16)], "ten in all"


def test_later_replicas_run_the_digest_of_the_first() -> None:
    world = World(replicas=1)
    world.settle()
    assert world.cluster.revisions[WEB][1].image_digest == ""
    observe(world, records(world)[0], ReplicaPhase.RUNNING, image_digest="sha256:first", ready=True)
    world.settle()
    assert world.cluster.revisions[WEB][1].image_digest == "sha256:first"
    observe(world, records(world)[0], ReplicaPhase.RUNNING, image_digest="sha256:second", ready=True)
    world.settle()
    assert world.cluster.revisions[WEB][1].image_digest == "sha256:first"


@pytest.mark.parametrize("policy", ["NEVER", "ON_FAILURE"])
def test_what_ended_well_is_done(policy: str) -> None:
    world = running(2, restart_policy={"policy": policy})
    for record in records(world):
        observe(world, record, ReplicaPhase.SUCCEEDED)
    world.settle()
    assert [one.run for one in records(world)] == [True, True]
    view = world.view()
    assert view.message == "2 of 2 replicas succeeded"
    assert view.status is not None
    assert [one.reason for one in view.status.conditions if one.type == "Available"] == ["Completed"]
    assert world.cluster.usage_of(records(world)[0].node_id).replicas == 0


def test_a_job_is_rolled_out_when_its_replicas_ended_well() -> None:
    world = World(replicas=1, restart_policy={"policy": "NEVER"})
    world.settle()
    observe(world, records(world)[0], ReplicaPhase.SUCCEEDED)
    world.settle()
    assert reasons(world)[-1] == "RolloutCompleted"


def rollout_of(world: World) -> Rollout:
    rollout = world.cluster.statuses[WEB].rollout
    assert rollout is not None
    return rollout


def test_what_failed_for_good_is_shown_and_not_replaced_until_a_new_revision() -> None:
    world = running(2)
    failed = records(world)[0]
    world.machines[failed.node_id].containers[failed.id].failed = True
    world.run(9)
    assert [one.id for one in records(world)].count(failed.id) == 1
    assert len(records(world)) == 2
    assert world.view().message == "1 of 2 ready: web/0: exit code 1, no retries left"
    world.change(image="web:2")
    world.run(15)
    assert failed.id not in {one.id for one in records(world)}


def test_a_rollout_with_a_failed_replica_goes_back_at_once_and_says_why() -> None:
    world = running(2)
    world.change(image="web:2")
    world.settle()
    new = next(one for one in records(world) if one.revision == 2)
    observe(world, new, ReplicaPhase.FAILED, message="exit code 1: no such file config.yaml")
    world.settle()
    text = "web/2 failed: exit code 1: no such file config.yaml"
    told = next(event for plan in world.plans for event in plan.events if event.reason == "RollbackStarted")
    assert told.message == f"rollout of revision 2 failed: {text}; going back to revision 1"
    assert world.view().message.startswith("revision 2 is taken back, 2 of 2 replicas available")
    world.run(15)
    assert reasons(world)[-1] == "RolloutRolledBack"
    rollout = rollout_of(world)
    assert (rollout.phase, rollout.target) == (RolloutPhase.ROLLED_BACK, 1)
    assert rollout.failure is not None
    assert rollout.failure.changes == ("image: web:1 -> web:2",)
    assert {one.revision for one in records(world)} == {1}
    world.change(image="web:3")
    world.run(15)
    assert world.converged()


def test_no_progress_fails_after_the_deadline_and_recovers() -> None:
    world = running(2, rollout={"progress_deadline": "20s", "auto_rollback": False})
    world.change(image="bad:1")
    world.settle()
    wake = plan_workload(world.cluster, WEB, world.now, str).wake_at
    assert wake == world.now + 20 * SECOND
    world.run(19)
    assert "RolloutFailed" not in reasons(world)
    world.run(1)
    assert reasons(world)[-1] == "RolloutFailed"
    view = world.view()
    assert view.available == 2
    assert "no progress for 20 s: web/2 (backing off)" in view.message
    assert view.message.endswith("not rolled back: auto_rollback is off")
    assert view.status is not None
    assert [c.reason for c in view.status.conditions if c.type == "Progressing"] == ["RolloutFailed"]
    world.run(30)
    assert {one.revision for one in records(world)} == {1, 2}
    for machine in world.machines.values():  # the image is there now
        for container in machine.containers.values():
            container.bad = False
    record = world.cluster.workloads[WEB]
    world.cluster.put_workload(record.replaced(intent=RolloutIntent(revision=2, retries=1)))
    for _ in range(20):
        for machine in world.machines.values():
            for container in machine.containers.values():
                container.bad = False
        world.run(1)
    assert world.converged()
    assert reasons(world)[-1] == "RolloutCompleted"


def test_the_pause_between_batches_is_no_lack_of_progress() -> None:
    world = running(2, rollout={"pause_duration": "60s", "progress_deadline": "30s"})
    world.change(image="web:2")
    world.run(10)
    first = world.now
    status = world.cluster.statuses[WEB]
    assert status.rollout is not None
    assert status.rollout.paused_until is not None
    assert status.rollout.because.startswith("pausing until 00:01:")
    assert [one.revision for one in records(world) if one.run] == [1, 2]
    assert plan_workload(world.cluster, WEB, world.now, str).wake_at == status.rollout.paused_until
    world.run(50)
    assert "RolloutFailed" not in reasons(world)
    assert [one.revision for one in records(world) if one.run] == [1, 2]
    world.run(20)
    assert world.converged()
    assert world.now > first


def test_min_ready_time_counts_and_tells_when_it_ends() -> None:
    world = World(2, 1, replicas=1, rollout={"min_ready_time": "30s"})
    world.run(8)
    view = world.view()
    assert (view.ready, view.available) == (1, 0)
    assert view.valid_until is not None
    assert view.message == "0 of 1 replicas available: web/0: ready, not yet for min_ready_time"
    assert plan_workload(world.cluster, WEB, world.now, str).wake_at == view.valid_until
    world.now = view.valid_until
    assert world.view().available == 1


def test_recreate_waits_until_all_old_ones_are_gone() -> None:
    world = running(3, rollout={"strategy": "RECREATE"})
    world.change(image="web:2")
    world.settle()
    assert [one.run for one in records(world)] == [False] * 3
    while any(one.revision == 1 for one in records(world)):
        assert all(one.revision == 1 for one in records(world))
        world.run(1)
    world.run(8)
    assert world.converged()


def test_a_lost_node_is_replaced_at_once_and_its_return_changes_nothing() -> None:
    world = running(3, nodes=3)
    gone = records(world)[1]
    world.do_cut(int(gone.node_id[1]))
    world.settle()
    phases = [one.phase for one in world.view().replicas]
    assert phases.count(ReplicaPhase.UNKNOWN) == 1
    assert len(records(world)) == 3
    world.run(3)
    assert gone.id not in {one.id for one in records(world)}
    assert [one.ordinal for one in records(world)] == [0, 1, 2]
    world.run(6)
    assert world.view().available == 3
    world.do_mend(int(gone.node_id[1]))
    world.run(6)
    assert world.converged()


def test_the_only_node_comes_back_to_the_same_replicas() -> None:
    world = running(3)
    before = {one.id for one in records(world)}
    world.do_cut(0)
    world.run(20)
    assert world.cluster.nodes["n0-id"].phase is NodePhase.LOST
    assert world.view().message.startswith("0 of 3 ready")
    world.do_mend(0)
    world.run(1)
    assert {one.id for one in records(world)} == before
    assert world.view().available == 3


def test_a_rollout_that_cannot_succeed_does_not_cost_the_old_replicas_of_a_lost_node() -> None:
    world = running(3, nodes=3)
    world.change(image="bad:1")
    world.run(6)
    old = [one for one in records(world) if one.revision == 1]
    world.do_cut(int(old[0].node_id[1]))
    world.run(10)
    serving = [one for one in world.view().replicas if one.available]
    assert [one.record.revision for one in serving] == [1, 1, 1]


@pytest.mark.parametrize("grace", [None, datetime.timedelta(0)])
def test_deletion_stops_all_and_then_forgets_the_workload(grace: datetime.timedelta | None) -> None:
    world = running(2)
    record = world.cluster.workloads[WEB]
    world.cluster.put_workload(record.replaced(deleted_at=world.now, delete_grace=grace))
    world.settle()
    assert [(one.run, one.grace) for one in records(world)] == [(False, grace)] * 2
    assert world.view().message == "being deleted: 2 replicas left"
    assert world.view().desired == 0
    world.run(4)
    assert world.converged()
    assert reasons(world)[-1] == "WorkloadDeleted"
    assert not world.cluster.statuses
    assert not world.cluster.revisions


def test_a_second_deletion_may_shorten_the_grace_but_not_lengthen_it() -> None:
    world = running(1)
    record = world.cluster.workloads[WEB].replaced(deleted_at=world.now)
    for grace, expected in ((None, None), (90, None), (5, 5), (7, 5), (0, 0)):
        wanted = None if grace is None else grace * SECOND
        world.cluster.put_workload(record.replaced(delete_grace=wanted))
        world.settle()
        assert records(world)[0].grace == (None if expected is None else expected * SECOND)


def test_deletion_does_not_wait_for_lost_nodes_nor_for_replicas_without_a_node() -> None:
    world = running(2)
    world.change(replicas=3, resources={"requests": {"memory": "600Mi"}})
    world.settle()
    node = world.cluster.nodes["n0-id"]
    world.cluster.nodes[node.id] = node.replaced(phase=NodePhase.LOST)
    record = world.cluster.workloads[WEB].replaced(deleted_at=world.now)
    world.cluster.put_workload(record)
    plan = plan_workload(world.cluster, WEB, world.now, str)
    kinds = {type(action) for action in plan.actions}
    assert kinds == {RemoveReplica, RemoveWorkload}


def test_replicas_without_a_workload_are_stopped() -> None:
    world = running(2)
    world.cluster.drop_workload(WEB)
    plan = plan_workload(world.cluster, WEB, world.now, str)
    stopped = [action.replica for action in plan.actions if isinstance(action, PutReplica)]
    assert [one.run for one in stopped] == [False, False]
    assert not plan_workload(apply_plan(world.cluster, plan), WEB, world.now, str).actions


def test_large_workloads_are_planned_in_parts() -> None:
    world = World(nodes=1)
    node = world.cluster.nodes["n0-id"]
    world.cluster.nodes[node.id] = node.replaced(
        facts=node.facts.replaced(capacity=node.facts.capacity.replaced(memory_bytes=2**40))
    )
    record = workload_record(130)
    world.cluster.put_workload(record)
    sizes = []
    for _ in range(5):
        plan = plan_workload(world.cluster, WEB, START, world.new_id)
        sizes.append(sum(isinstance(action, PutReplica) for action in plan.actions))
        assert (plan.wake_at == START) is (sizes[-1] == MAX_REPLICA_CHANGES)
        world.cluster = apply_plan(world.cluster, plan)
    assert sizes == [MAX_REPLICA_CHANGES, MAX_REPLICA_CHANGES, 30, 0, 0]
    record = record.replaced(deleted_at=START)
    world.cluster.put_workload(record)
    assert len(plan_workload(world.cluster, WEB, START, world.new_id).actions) == MAX_REPLICA_CHANGES


def test_condition_times_move_only_with_their_meaning() -> None:
    world = World(1, 1, replicas=2)
    world.settle()

    def since(kind: str) -> datetime.datetime:
        status = world.view().status
        assert status is not None
        return next(one.changed_at for one in status.conditions if one.type == kind)

    created = since("Available")
    world.run(8)
    available = since("Available")
    assert available > created
    assert since("Placed") == created
    world.change(replicas=1)
    world.run(5)
    assert since("Available") == available
    message = [c.message for c in world.view().status.conditions if c.type == "Available"]  # type: ignore[union-attr]
    assert message == ["1 of 1 replicas available"]


def test_a_breach_by_a_fault_is_named() -> None:
    world = running(3, nodes=3)
    for record in records(world)[:2]:
        observe(world, record, ReplicaPhase.BACKING_OFF, message="image not found: web:1")
    world.settle()
    assert world.view().message == "1 of 3 ready: web/0: image not found: web:1"
    condition = world.cluster.statuses[WEB].conditions[0]
    assert (condition.status, condition.reason) == ("False", "MinimumReplicasUnavailable")
    assert "1 of 3 replicas available, below the floor of 3" in condition.message


def test_before_it_is_planned_nothing_is_claimed() -> None:
    world = World()
    view = world.view()
    assert (view.status, view.message) == (None, "accepted, not planned yet")
    world.settle()
    world.change(image="web:2")
    assert world.view().message == "accepted, not planned yet"
