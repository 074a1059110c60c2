"""How long decisions take: ``python benchmarks/planning.py``.

Prints p50 and p95 in milliseconds of planning and viewing a workload of 100 replicas in
several states, and of one placement over 5,000 nodes.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import time
from collections.abc import Callable

from cloudless.domain.cluster import Cluster
from cloudless.domain.node import NodeFacts, NodeRecord
from cloudless.domain.plan import Plan, RemoveReplica
from cloudless.domain.replica import Observation, ReplicaPhase, ReplicaRecord
from cloudless.domain.resources import ResourceList
from cloudless.domain.workload import WorkloadRecord, WorkloadSpec
from cloudless.planning.apply import apply_plan
from cloudless.planning.status import view_workload
from cloudless.planning.workload import plan_workload

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
_NUMBERS = itertools.count()


def new_id() -> str:
    """A fresh id; what ids cost is not what is measured here."""
    return f"id-{next(_NUMBERS)}"


def cluster_of(nodes: int, replicas: int) -> Cluster:
    """``nodes`` ready nodes, and one workload that was just created."""
    cluster = Cluster()
    for number in range(nodes):
        facts = NodeFacts(
            id=f"n{number}",
            name=f"node-{number}",
            zone=f"z{number % 3}",
            capacity=ResourceList(cpu_millicores=64_000, memory_bytes=2**36),
        )
        cluster.nodes[facts.id] = NodeRecord(facts=facts, joined_at=NOW, changed_at=NOW)
    add_workload(cluster, "web", replicas)
    return cluster


def add_workload(cluster: Cluster, name: str, replicas: int) -> None:
    """A workload that asks for a bit of CPU and memory."""
    spec = WorkloadSpec.model_validate(
        {"image": "web:1", "replicas": replicas, "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}}}
    )
    cluster.put_workload(
        WorkloadRecord(id=name, namespace="default", name=name, spec=spec, created_at=NOW, updated_at=NOW)
    )


def settle(cluster: Cluster, name: str) -> Cluster:
    """Plan, and let every placed replica run, until nothing is to be done."""
    while True:
        plan = plan_workload(cluster, name, NOW, new_id)
        if not plan.actions:
            return cluster
        cluster = apply_plan(cluster, plan)
        for record in list(cluster.replicas_of(name)):
            if record.run and record.id not in cluster.observations:
                observe(cluster, record, ready=True)


def observe(cluster: Cluster, record: ReplicaRecord, *, ready: bool) -> None:
    """Its node says that it runs."""
    cluster.put_observation(
        Observation(
            replica_id=record.id,
            workload_id=record.workload_id,
            node_id=record.node_id,
            phase=ReplicaPhase.RUNNING,
            ready=ready,
            image_digest="sha256:1",
            ready_since=NOW if ready else None,
        )
    )


def in_the_middle(cluster: Cluster, name: str) -> Cluster:
    """The first step of an update is done, and one of its new replicas has become ready."""
    cluster = apply_plan(cluster, plan_workload(cluster, name, NOW, new_id))
    for record in list(cluster.replicas_of(name)):
        if not record.run:
            cluster = apply_plan(cluster, Plan(actions=(RemoveReplica(record),)))
        elif record.id not in cluster.observations:
            observe(cluster, record, ready=False)
    cluster = apply_plan(cluster, plan_workload(cluster, name, NOW, new_id))
    newest = max(cluster.replicas_of(name), key=lambda record: (record.revision, record.ordinal))
    observe(cluster, newest, ready=True)
    return cluster


def measure(what: str, once: Callable[[], object], count: int) -> None:
    """Print the quantiles of ``count`` runs."""
    times = []
    for _ in range(count):
        started = time.perf_counter()
        once()
        times.append((time.perf_counter() - started) * 1000)
    times.sort()
    print(f"{what:55} p50 {times[len(times) // 2]:8.3f} ms   p95 {times[int(len(times) * 0.95)]:8.3f} ms")


def main() -> None:
    """Measure all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200)
    count = parser.parse_args().count
    settled = settle(cluster_of(1, 100), "web")
    workload = settled.workloads["web"]
    updating = settled.copy()
    updating.put_workload(
        workload.replaced(spec=workload.spec.replaced(image="web:2"), generation=workload.generation + 1)
    )
    measure("plan, 100 replicas, nothing to do", lambda: plan_workload(settled, "web", NOW, new_id), count)
    measure(
        "plan, 100 replicas, first step of an update",
        lambda: plan_workload(updating, "web", NOW, new_id),
        count,
    )
    middle = in_the_middle(updating, "web")
    assert plan_workload(middle, "web", NOW, new_id).actions
    measure(
        "plan, 100 replicas, a later step: one became ready",
        lambda: plan_workload(middle, "web", NOW, new_id),
        count,
    )
    measure("view, 100 replicas", lambda: view_workload(settled, "web", NOW), count)
    fresh = cluster_of(1, 3)
    measure("plan, 3 new replicas on 1 node", lambda: plan_workload(fresh, "web", NOW, new_id), count)
    fifty = cluster_of(1, 50)
    measure("plan, 50 new replicas on 1 node", lambda: plan_workload(fifty, "web", NOW, new_id), count)
    large = settle(cluster_of(5000, 100), "web")
    add_workload(large, "one", 1)
    measure(
        "plan, 1 new replica over 5,000 nodes", lambda: plan_workload(large, "one", NOW, new_id), count // 4
    )
    add_workload(large, "many", 50)
    measure(
        "plan, 50 new replicas over 5,000 nodes",
        lambda: plan_workload(large, "many", NOW, new_id),
        count // 4,
    )


if __name__ == "__main__":
    main()
