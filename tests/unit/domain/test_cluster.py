from __future__ import annotations

from tests.unit.planning.world import START, node_record, workload_record

from cloudless.domain.cluster import Cluster
from cloudless.domain.node import NODE_TRANSITIONS, NodePhase
from cloudless.domain.replica import ENDED, TRANSITIONS, Observation, ReplicaPhase, ReplicaRecord
from cloudless.domain.revision import Revision
from cloudless.domain.rollout import ROLLOUT_TRANSITIONS, RolloutPhase
from cloudless.domain.status import StatusRecord

WORKLOAD = workload_record(2)
NODE = node_record("n1")


def replica(name: str = "r1", node_id: str = NODE.id) -> ReplicaRecord:
    return ReplicaRecord(
        id=name,
        workload_id=WORKLOAD.id,
        namespace="default",
        name="web",
        ordinal=0,
        revision=1,
        node_id=node_id,
        created_at=START,
    )


def revision() -> Revision:
    return Revision(
        workload_id=WORKLOAD.id,
        number=1,
        template_hash="x",
        spec=WORKLOAD.spec,
        generation=1,
        created_at=START,
    )


def full() -> Cluster:
    cluster = Cluster()
    cluster.nodes[NODE.id] = NODE
    cluster.put_workload(WORKLOAD)
    cluster.put_revision(revision())
    cluster.put_replica(replica())
    cluster.statuses[WORKLOAD.id] = StatusRecord(workload_id=WORKLOAD.id, observed_generation=1)
    return cluster


def observed(phase: ReplicaPhase) -> Observation:
    return Observation(replica_id="r1", workload_id=WORKLOAD.id, node_id=NODE.id, phase=phase)


def test_reservations_follow_replicas_and_observations() -> None:
    cluster = full()

    def reserved() -> int:
        (room,) = cluster.rooms()
        assert room.memory_free == NODE.facts.capacity.memory_bytes - cluster.usage_of(NODE.id).memory_bytes
        return cluster.usage_of(NODE.id).memory_bytes // 2**20

    assert reserved() == 100
    cluster.put_replica(replica("r2"))
    assert reserved() == 200
    cluster.put_replica(replica("r2", node_id=""))
    assert reserved() == 100
    cluster.put_observation(observed(ReplicaPhase.RUNNING))
    assert reserved() == 100
    cluster.put_observation(observed(ReplicaPhase.SUCCEEDED))
    assert reserved() == 0
    cluster.drop_observation("r1")
    assert reserved() == 100
    cluster.drop_replica("r1")
    assert reserved() == 0


def test_a_replica_may_arrive_before_its_revision() -> None:
    cluster = Cluster()
    cluster.nodes[NODE.id] = NODE
    cluster.put_replica(replica())
    assert cluster.usage_of(NODE.id).memory_bytes == 0
    cluster.put_revision(revision())
    assert cluster.usage_of(NODE.id).memory_bytes == 100 * 2**20


def test_a_changed_node_has_a_new_room() -> None:
    cluster = full()
    (before,) = cluster.rooms()
    assert before.ready
    cluster.nodes[NODE.id] = NODE.replaced(phase=NodePhase.LOST)
    (after,) = cluster.rooms()
    assert not after.ready
    assert after.kind == before.kind


def test_each_fact_is_dropped_by_itself() -> None:
    cluster = full()
    assert cluster.workload_named("default", "web") == WORKLOAD
    cluster.drop_workload(WORKLOAD.id)
    assert cluster.workload_named("default", "web") is None
    assert cluster.newest_revision(WORKLOAD.id) == revision()
    assert list(cluster.statuses) == [WORKLOAD.id]
    cluster.drop_revision(WORKLOAD.id, 1)
    assert cluster.newest_revision(WORKLOAD.id) is None


def test_a_copy_is_independent() -> None:
    cluster = full()
    cluster.usage_of(NODE.id)
    copy = cluster.copy()
    copy.drop_replica("r1")
    copy.drop_revision(WORKLOAD.id, 1)
    copy.put_workload(WORKLOAD.replaced(generation=9))
    assert cluster.usage_of(NODE.id).replicas == 1
    assert copy.usage_of(NODE.id).replicas == 0
    assert cluster.newest_revision(WORKLOAD.id) == revision()
    assert cluster.workloads[WORKLOAD.id].generation == 1
    assert [one.id for one in cluster.replicas_of(WORKLOAD.id)] == ["r1"]


def test_an_old_status_is_read_without_the_newer_field() -> None:
    assert StatusRecord.model_validate_json('{"workload_id": "w", "observed_generation": 1}').desired == 0


def test_the_tables_cover_every_phase() -> None:
    assert set(TRANSITIONS) == set(ReplicaPhase)
    assert set(NODE_TRANSITIONS) == set(NodePhase)
    assert set(ROLLOUT_TRANSITIONS) == set(RolloutPhase)
    assert all(TRANSITIONS[phase] <= {ReplicaPhase.STOPPING} for phase in ENDED)
