from __future__ import annotations

from typing import Any

import pytest
from tests.unit.planning.world import START, node_record, workload_record

from cloudless.domain.cluster import Cluster
from cloudless.domain.node import NodePhase
from cloudless.domain.plan import Plan
from cloudless.domain.usage import NodeRoom, NodeUsage, demand_of
from cloudless.domain.workload import WorkloadSpec
from cloudless.planning import limits
from cloudless.planning.apply import apply_plan
from cloudless.planning.scoring import plain_total, score_of
from cloudless.planning.status import view_workload
from cloudless.planning.workload import plan_workload

PRIVILEGED = {"security_context": {"privileged": True}}


def cluster_of(*nodes: Any) -> Cluster:
    cluster = Cluster()
    for node in nodes:
        cluster.nodes[node.id] = node
    return cluster


def place(cluster: Cluster, replicas: int = 1, name: str = "web", **spec: Any) -> tuple[Cluster, Plan]:
    """Plan a new workload; the ids of its replicas are name-0, name-1 ..."""
    record = workload_record(replicas, name, **spec)
    cluster.put_workload(record)
    names = iter(f"{name}-{number}" for number in range(1000))
    plan = plan_workload(cluster, record.id, START, lambda: next(names))
    return apply_plan(cluster, plan), plan


def nodes_of(cluster: Cluster, name: str = "web") -> list[str]:
    return sorted(replica.node_id.removesuffix("-id") for replica in cluster.replicas_of(f"{name}-id"))


def refusal(cluster: Cluster, name: str = "web") -> str:
    view = view_workload(cluster, f"{name}-id", START)
    return "; ".join(f"{one.node}: {one.reason}" for one in view.replicas[0].refusals)


@pytest.mark.parametrize(
    ("facts", "spec", "reason"),
    [
        ({}, {"placement": {"regions": ["eu", "us"]}}, "region (none) is not eu or us"),
        ({"zone": "b"}, {"placement": {"zones": ["a"]}}, "zone b is not a"),
        ({}, {"placement": {"node_selector": {"disk": "ssd"}}}, "needs label disk=ssd, has no such label"),
        (
            {"labels": {"disk": "hdd"}},
            {"placement": {"node_selector": {"disk": "ssd"}}},
            "needs label disk=ssd, has hdd",
        ),
        ({"taints": [{"key": "gpu"}]}, {}, "has taint gpu:no_schedule, which is not tolerated"),
        (
            {"taints": [{"key": "gpu", "value": "a", "effect": "no_execute"}]},
            {"placement": {"tolerations": [{"key": "gpu", "value": "b"}]}},
            "has taint gpu=a:no_execute, which is not tolerated",
        ),
        (
            {"capacity": {"memory": "120Mi"}},
            {"resources": {"requests": {"memory": "256Mi"}}},
            "needs memory 256Mi, 120Mi free",
        ),
        (
            {"capacity": {"cpu": "1"}},
            {"resources": {"limits": {"cpu": "1500m"}}},
            "needs CPU 1500m, 1 free",
        ),
        ({}, {"resources": {"requests": {"storage": "1Gi"}}}, "needs storage 1Gi, 0 free"),
        (
            {},
            {"volumes": [{"name": "d", "mount_path": "/d", "empty_dir": {"size_bytes": "2Gi"}}]},
            "needs storage 2Gi, 0 free",
        ),
        ({}, {"runtime_class_name": "gvisor"}, "has no runtime class gvisor"),
        ({}, PRIVILEGED, "does not allow privileged"),
        (
            {"capabilities": {"allow_privileged": True}},
            {"security_context": {"host_network": True, "host_pid": True}},
            "does not allow host_network, host_pid",
        ),
        ({}, {"security_context": {"capabilities_add": ["SYS_ADMIN"]}}, "does not allow capabilities_add"),
        (
            {},
            {"security_context": {"seccomp_profile": {"type": "UNCONFINED"}}},
            "does not allow seccomp_profile",
        ),
        (
            {},
            {"security_context": {"seccomp_profile": {"type": "LOCALHOST", "localhost_profile": "a.json"}}},
            "has no seccomp profile a.json",
        ),
        ({"capabilities": {"seccomp": False}}, {}, "cannot enforce seccomp"),
        ({}, {"security_context": {"apparmor_profile": "web"}}, "cannot enforce AppArmor"),
        (
            {"capabilities": {"host_paths": ["/srv/data"]}},
            {"volumes": [{"name": "d", "mount_path": "/d", "host_path": {"path": "/srv/database"}}]},
            "does not allow the host path /srv/database",
        ),
    ],
)
def test_each_refusal_is_a_sentence(facts: dict[str, Any], spec: dict[str, Any], reason: str) -> None:
    cluster, _ = place(cluster_of(node_record("n1", **facts)), **{"resources": {}, **spec})
    assert refusal(cluster) == f"n1: {reason}"
    assert nodes_of(cluster) == [""]
    assert list(cluster.statuses["web-id"].refusals) == ["web-0"]


@pytest.mark.parametrize(
    ("facts", "spec"),
    [
        (
            {"taints": [{"key": "gpu", "value": "a"}]},
            {"placement": {"tolerations": [{"key": "gpu", "value": "a", "effect": "no_schedule"}]}},
        ),
        ({"taints": [{"key": "gpu"}]}, {"placement": {"tolerations": [{}]}}),
        ({"capabilities": {"allow_privileged": True}}, PRIVILEGED),
        (
            {"capabilities": {"host_paths": ["/srv/data"]}},
            {"volumes": [{"name": "d", "mount_path": "/d", "host_path": {"path": "/srv/data/a"}}]},
        ),
        (
            {"capabilities": {"host_paths": ["/"]}},
            {"volumes": [{"name": "d", "mount_path": "/d", "host_path": {"path": "/etc"}}]},
        ),
        # What is not asked for need not be there.
        ({"capacity": {}}, {"resources": {}}),
    ],
)
def test_what_is_allowed_is_placed(facts: dict[str, Any], spec: dict[str, Any]) -> None:
    cluster, _ = place(cluster_of(node_record("n1", **facts)), **spec)
    assert nodes_of(cluster) == ["n1"]
    assert not cluster.statuses["web-id"].refusals


@pytest.mark.parametrize(
    ("phase", "reason"),
    [
        (NodePhase.DISCONNECTED, "n1: is disconnected"),
        (NodePhase.LOST, "n1: is lost"),
        (NodePhase.NOT_READY, "n1: is not ready: disk full"),
    ],
)
def test_only_ready_nodes_get_work(phase: NodePhase, reason: str) -> None:
    node = node_record("n1", not_ready="disk full").replaced(phase=phase)
    assert refusal(place(cluster_of(node))[0]) == reason


def test_no_node_at_all_is_said() -> None:
    assert "no node has joined yet" in refusal(place(Cluster())[0])


def test_refusals_of_many_nodes_are_counted() -> None:
    cluster, _ = place(cluster_of(*(node_record(f"n{i:02}", capacity={}) for i in range(30))))
    found = view_workload(cluster, "web-id", START).replicas[0].refusals
    assert len(found) == limits.MAX_REFUSALS + 1
    assert found[-1].reason == "and 10 more nodes"


def test_reservations_of_others_count_and_each_sees_the_one_before() -> None:
    cluster = cluster_of(node_record("n1", capacity={"memory": "350Mi"}))
    cluster, _ = place(cluster, 2, "first")
    cluster, plan = place(cluster, 3)
    assert nodes_of(cluster) == ["", "", "n1"]
    assert len([event for event in plan.events if event.reason == "ReplicaUnplaceable"]) == 1
    view = view_workload(cluster, "web-id", START)
    assert [len(one.refusals) for one in view.replicas] == [0, 1, 1]
    assert view.replicas[1].refusals[0].reason == "needs memory 100Mi, 50Mi free"


def test_unplaceable_is_an_event_only_when_the_refusals_change() -> None:
    cluster, plan = place(cluster_of(node_record("n1")), **PRIVILEGED)
    reasons = [event.reason for event in plan.events]
    assert reasons.count("ReplicaUnplaceable") == reasons.count("SecurityRefused") == 1
    assert not plan_workload(cluster, "web-id", START, str).events
    cluster.nodes["n2-id"] = node_record("n2", zone="b")
    again = plan_workload(cluster, "web-id", START, str)
    assert [event.reason for event in again.events] == ["ReplicaUnplaceable", "SecurityRefused"]


@pytest.mark.parametrize(
    ("first", "second", "clash"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "10.0.0.1", False),
        ("0.0.0.0", "10.0.0.1", True),
        ("10.0.0.1", "0.0.0.0", True),
    ],
)
def test_host_ports(first: str, second: str, clash: bool) -> None:
    def port(address: str, protocol: str = "TCP") -> dict[str, Any]:
        return {
            "container_port": 80,
            "host_port": 8080,
            "host_address": address,
            "protocol": protocol,
        }

    cluster, _ = place(cluster_of(node_record("n1")), name="first", ports=[port(first)])
    cluster, _ = place(cluster, ports=[port(second)])
    assert nodes_of(cluster) == ([""] if clash else ["n1"])
    if clash:
        assert refusal(cluster) == f"n1: host port {second}:8080/tcp is taken"
    cluster, _ = place(cluster, name="udp", ports=[port(first, "UDP")])
    assert nodes_of(cluster, "udp") == ["n1"]


def test_two_replicas_with_one_host_port_need_two_nodes() -> None:
    ports = [{"container_port": 80, "host_port": 8080}]
    cluster, _ = place(cluster_of(node_record("n1"), node_record("n2")), 3, ports=ports)
    assert nodes_of(cluster) == ["", "n1", "n2"]


@pytest.mark.parametrize(
    ("first", "second", "reason"),
    [
        ("host_port", "publish", "port 127.0.0.1:8080/tcp cannot be published: a replica's host_port has it"),
        ("publish", "host_port", "host port 127.0.0.1:8080/tcp is taken"),
    ],
)
def test_a_published_port_and_a_host_port_of_another_workload(first: str, second: str, reason: str) -> None:
    def ports(kind: str) -> dict[str, Any]:
        return {"ports": [{"container_port": 80, kind: 8080}]}

    cluster, _ = place(cluster_of(node_record("n1")), name="first", **ports(first))
    cluster, _ = place(cluster, **ports(second))
    assert refusal(cluster) == f"n1: {reason}"


def test_a_published_port_belongs_to_one_workload_and_all_its_replicas() -> None:
    published = {"ports": [{"container_port": 80, "publish": 8088}]}
    cluster, _ = place(cluster_of(node_record("n1")), 2, "first", **published)
    assert nodes_of(cluster, "first") == ["n1", "n1"]
    cluster, _ = place(cluster, **published)
    assert "8088/tcp cannot be published: workload default/first has it" in refusal(cluster)


@pytest.mark.parametrize(
    ("port", "address"),
    [
        ({"publish": 80, "publish_address": "203.0.113.9"}, "203.0.113.9"),
        ({"host_port": 80, "host_address": "203.0.113.9"}, "203.0.113.9"),
        ({"publish": 80, "publish_address": "0.0.0.0"}, ""),
        ({"publish": 80, "publish_address": "127.0.0.2"}, ""),
        ({"publish": 80}, ""),
        ({"publish": 80, "publish_address": "10.0.0.6"}, ""),
    ],
)
def test_a_port_wants_a_node_that_has_its_address(port: dict[str, Any], address: str) -> None:
    here = node_record("n1", capabilities={"addresses": ["10.0.0.5", "10.0.0.6"]})
    cluster, _ = place(cluster_of(here), ports=[{"container_port": 80, **port}])
    if address:
        assert (
            refusal(cluster)
            == f"n1: needs address {address} for port {address}:80/tcp, has 10.0.0.5, 10.0.0.6"
        )
    else:
        assert nodes_of(cluster) == ["n1"]


def test_the_ports_of_a_replica_in_the_hosts_network_are_the_hosts() -> None:
    allowed = node_record("n1", capabilities={"allow_host_namespaces": True})
    shared = {"ports": [{"container_port": 80}], "security_context": {"host_network": True}}
    cluster, _ = place(cluster_of(allowed), 2, **shared)
    assert nodes_of(cluster) == ["", "n1"]


def test_workloads_are_packed_and_replicas_of_one_are_spread() -> None:
    cluster = cluster_of(*(node_record(f"n{i}") for i in range(3)))
    for name in ("a", "b", "c"):
        cluster, _ = place(cluster, 1, name)
    assert {*nodes_of(cluster, "a"), *nodes_of(cluster, "b"), *nodes_of(cluster, "c")} == {"n0"}
    cluster, _ = place(cluster, 3, "d")
    assert nodes_of(cluster, "d") == ["n0", "n1", "n2"]


def test_ties_are_broken_by_name() -> None:
    cluster, _ = place(cluster_of(node_record("b"), node_record("a"), node_record("c")), 2)
    assert nodes_of(cluster) == ["a", "b"]


def test_the_score_is_kept_with_its_terms() -> None:
    cluster, plan = place(cluster_of(node_record("n1")))
    record = next(iter(cluster.replicas_of("web-id")))
    terms = ["locality", "reliability", "cost", "utilization_balance", "network_penalty", "total"]
    assert list(record.score) == terms
    assert plan.scores == {record.id: record.score}


def zones() -> Cluster:
    return cluster_of(*(node_record(f"{zone}{i}", zone=zone) for zone in "abc" for i in range(2)))


def test_required_spread_over_zones() -> None:
    rule = {"placement": {"spread_topology": [{"topology": "zone", "required": True}]}}
    cluster, _ = place(zones(), 6, **rule)
    assert nodes_of(cluster) == ["a0", "a1", "b0", "b1", "c0", "c1"]
    for node in list(cluster.nodes.values()):
        if node.facts.zone != "a":
            cluster.nodes[node.id] = node.replaced(
                facts=node.facts.replaced(capacity=node_record("x", capacity={}).facts.capacity)
            )
    cluster, _ = place(cluster, 3, "other", **rule)
    assert nodes_of(cluster, "other") == ["", "", "a0"]
    assert "its zone would hold 2 replicas more than another, 1 allowed" in refusal_of(cluster, "other", 1)


def refusal_of(cluster: Cluster, name: str, index: int) -> str:
    found = view_workload(cluster, f"{name}-id", START).replicas[index].refusals
    return "; ".join(one.reason for one in found)


def test_wished_spread_only_changes_the_score() -> None:
    rule = {"placement": {"spread_topology": [{"topology": "zone"}]}}
    cluster, _ = place(zones(), 3, **rule)
    assert [name[0] for name in nodes_of(cluster)] == ["a", "b", "c"]
    cluster, _ = place(cluster_of(node_record("n1"), node_record("n2")), 5, **rule)
    assert "" not in nodes_of(cluster)


def test_affinity_and_anti_affinity() -> None:
    near = {"placement": {"affinity": [{"selector": "app=db", "topology": "zone", "required": True}]}}
    cluster, _ = place(zones(), **near)
    assert "no replica of app=db is on its zone" in refusal(cluster)
    cluster, _ = place(zones(), 1, "db", placement={"zones": ["b"]})
    cluster, _ = place(cluster, 2, **near)
    assert [name[0] for name in nodes_of(cluster)] == ["b", "b"]
    far = {"placement": {"anti_affinity": [{"selector": "app=db", "topology": "zone", "required": True}]}}
    cluster, _ = place(cluster, 4, "far", **far)
    assert [name[0] for name in nodes_of(cluster, "far")] == ["a", "a", "c", "c"]


def test_wished_affinity_and_distance() -> None:
    cluster, _ = place(zones(), 1, "db", placement={"zones": ["c"]})
    wish = {"placement": {"affinity": [{"selector": "app=db", "topology": "zone"}]}}
    cluster, _ = place(cluster, 1, **wish)
    assert [name[0] for name in nodes_of(cluster)] == ["c"]
    away = {"placement": {"anti_affinity": [{"selector": "app in (db,web)", "topology": "zone"}]}}
    cluster, _ = place(cluster, 2, "away", **away)
    assert "c" not in {name[0] for name in nodes_of(cluster, "away")}


def test_anti_affinity_to_itself_gives_each_its_own_node() -> None:
    rule = {"placement": {"anti_affinity": [{"selector": "app=web", "required": True}]}}
    cluster, _ = place(cluster_of(node_record("n1"), node_record("n2")), 3, **rule)
    assert nodes_of(cluster) == ["", "n1", "n2"]


def test_affinity_to_itself_lets_the_first_one_in() -> None:
    rule = {"placement": {"affinity": [{"selector": "app=web", "topology": "zone", "required": True}]}}
    cluster, _ = place(zones(), 3, **rule)
    assert len({name[0] for name in nodes_of(cluster)}) == 1


@pytest.mark.parametrize("memory", [0, 10, 400, 900])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_short_way_gives_the_same_score(memory: int, share: float) -> None:
    spec = WorkloadSpec.model_validate(
        {"image": "a:1", "resources": {"requests": {"cpu": "1", "memory": "64Mi"}}}
    )
    room = NodeRoom.of(node_record("n1"), NodeUsage(memory_bytes=memory * 2**20), 0)
    demand = demand_of(spec)
    assert plain_total(room, demand, share) == pytest.approx(score_of(room, demand, share, None).total)
