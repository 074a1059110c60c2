from __future__ import annotations

import datetime

import pytest
from tests.unit.planning.world import START, node_record

from cloudless.domain.cluster import Cluster
from cloudless.domain.node import NodePhase, NodeRecord
from cloudless.domain.plan import PutNode
from cloudless.planning.apply import apply_plan
from cloudless.planning.limits import LOST_GRACE_S, RECONNECT_GRACE_S
from cloudless.planning.liveness import lost_grace, plan_nodes

LIVE = {"n1-session"}
GRACE = datetime.timedelta(seconds=LOST_GRACE_S)
RECONNECT = datetime.timedelta(seconds=RECONNECT_GRACE_S)


def cluster_of(*nodes: NodeRecord) -> Cluster:
    cluster = Cluster()
    for node in nodes:
        cluster.nodes[node.id] = node
    return cluster


@pytest.mark.parametrize(
    ("phase", "live", "not_ready", "age_s", "expected", "reason"),
    [
        (NodePhase.READY, True, "", 0, NodePhase.READY, None),
        (NodePhase.READY, True, "disk full", 0, NodePhase.NOT_READY, "NodeNotReady"),
        (NodePhase.NOT_READY, True, "", 0, NodePhase.READY, "NodeReady"),
        (NodePhase.READY, False, "", 0, NodePhase.DISCONNECTED, "NodeDisconnected"),
        (NodePhase.NOT_READY, False, "disk full", 0, NodePhase.DISCONNECTED, "NodeDisconnected"),
        (NodePhase.DISCONNECTED, False, "", 2.9, NodePhase.DISCONNECTED, None),
        (NodePhase.DISCONNECTED, False, "", 3, NodePhase.LOST, "NodeLost"),
        (NodePhase.DISCONNECTED, True, "", 9, NodePhase.READY, "NodeReady"),
        (NodePhase.LOST, False, "", 99, NodePhase.LOST, None),
        (NodePhase.LOST, True, "", 99, NodePhase.READY, "NodeReady"),
        (NodePhase.LOST, True, "no containerd", 99, NodePhase.NOT_READY, "NodeNotReady"),
    ],
)
def test_phases(
    phase: NodePhase, live: bool, not_ready: str, age_s: float, expected: NodePhase, reason: str | None
) -> None:
    node = node_record("n1", not_ready=not_ready).replaced(phase=phase)
    now = START + datetime.timedelta(seconds=age_s)
    plan = plan_nodes(cluster_of(node), LIVE if live else (), now)
    after = apply_plan(cluster_of(node), plan).nodes["n1-id"]
    assert after.phase is expected
    assert [event.reason for event in plan.events] == ([reason] if reason else [])
    if expected is not phase:
        assert after.changed_at == now
    again = plan_nodes(apply_plan(cluster_of(node), plan), LIVE if live else (), now)
    assert not again.actions


def test_time_alone_takes_a_node_from_disconnected_to_lost() -> None:
    cluster = cluster_of(node_record("n1"))
    plan = plan_nodes(cluster, (), START)
    assert plan.wake_at == START + GRACE
    cluster = apply_plan(cluster, plan)
    assert plan_nodes(cluster, (), START).wake_at == START + GRACE
    assert cluster.nodes["n1-id"].message == "its connection is broken; its replicas are believed to run on"
    plan = plan_nodes(cluster, (), START + GRACE)
    (action,) = plan.actions
    assert isinstance(action, PutNode)
    assert action.node.message == "out of reach for 3.0 s"


def test_a_coordinators_own_absence_is_no_fault_of_a_node() -> None:
    later = START + datetime.timedelta(hours=1)
    cluster = cluster_of(node_record("n1"))
    plan = plan_nodes(cluster, (), later, since=later)
    assert not plan.actions
    assert plan.wake_at == later + RECONNECT
    plan = plan_nodes(cluster, (), later + RECONNECT, since=later)
    assert apply_plan(cluster, plan).nodes["n1-id"].phase is NodePhase.DISCONNECTED
    out = cluster_of(node_record("n1").replaced(phase=NodePhase.DISCONNECTED))
    plan = plan_nodes(out, (), later + GRACE / 2, since=later)
    assert not plan.actions
    assert plan.wake_at == later + GRACE
    assert plan_nodes(out, (), later + GRACE, since=later).actions


def test_the_message_of_a_node_that_is_not_ready_follows_its_facts() -> None:
    node = node_record("n1", not_ready="disk full").replaced(
        phase=NodePhase.NOT_READY, message="no containerd"
    )
    plan = plan_nodes(cluster_of(node), LIVE, START)
    assert apply_plan(cluster_of(node), plan).nodes["n1-id"].message == "disk full"
    assert not plan.events


def test_the_grace_grows_with_the_cluster() -> None:
    graces = [lost_grace(nodes).total_seconds() for nodes in (1, 300, 301, 1000, 100_000)]
    assert graces == sorted(graces)
    assert (graces[0], graces[-1]) == (3.0, 30.0)
