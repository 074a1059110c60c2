from __future__ import annotations

from tests.unit.planning.world import SECOND, START, WEB, World

from cloudless.planning.describe import describe_plan, rehearse
from cloudless.planning.workload import plan_workload


def test_a_plan_in_sentences() -> None:
    world = World(replicas=1)
    plan = plan_workload(world.cluster, WEB, START, world.new_id)
    assert [step.sentence for step in describe_plan(world.cluster, plan)] == [
        "create web/0 on n0: revision 1",
        "revision: revision 1: image web:1",
    ]


def test_a_rehearsal_shows_a_rollout_to_its_end_and_touches_nothing() -> None:
    world = World(replicas=2, rollout={"max_surge": "1", "max_unavailable": "0", "min_ready_time": "5s"})
    world.run(15)
    world.change(image="web:2")
    before = dict(world.cluster.replicas)
    steps = rehearse(world.cluster, WEB, world.now, world.new_id)
    assert [step.sentence for step in steps] == [
        "create web/2 on n2: revision 2",
        "revision: revision 2: image web:1 -> web:2",
        "wait 5 s: 2 of 2 available, 1 updated",
        "stop web/0 on n0: replaced by revision 2",
        "create web/0 on n0: revision 2",
        "wait 5 s: 2 of 2 available, 2 updated",
        "stop web/1 on n1: replaced by revision 2",
    ]
    assert world.cluster.replicas == before
    assert steps[2].wait == 5 * SECOND


def test_a_rehearsal_ends_where_no_node_fits() -> None:
    world = World(replicas=1, resources={"requests": {"memory": "10Gi"}})
    (create, _) = rehearse(world.cluster, WEB, START, world.new_id)
    assert create.sentence.startswith("create web/0: no node: n0: needs memory 10Gi, 750Mi free; n1: needs")


def test_a_deletion_in_sentences() -> None:
    world = World(replicas=1)
    world.run(8)
    record = world.cluster.workloads[WEB]
    world.cluster.put_workload(record.replaced(deleted_at=world.now))
    steps = rehearse(world.cluster, WEB, world.now, world.new_id)
    assert [step.sentence for step in steps] == [
        "stop web/0 on n0: the workload is deleted",
        "delete: nothing is left of the workload",
    ]
