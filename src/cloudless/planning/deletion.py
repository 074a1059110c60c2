"""The end of a workload: stop everything, forget what no node holds, then the workload itself."""

from __future__ import annotations

import datetime

from cloudless.domain.cluster import Cluster
from cloudless.domain.event import Event
from cloudless.domain.node import NodePhase
from cloudless.domain.plan import Action, Plan, PutReplica, RemoveReplica, RemoveWorkload
from cloudless.domain.replica import ReplicaRecord
from cloudless.domain.workload import WorkloadRecord
from cloudless.planning.announce import replica_event, workload_event
from cloudless.planning.limits import MAX_REPLICA_CHANGES


def plan_deletion(cluster: Cluster, workload: WorkloadRecord, now: datetime.datetime) -> Plan:
    """The next plan for a workload that is marked as deleted.

    Its replicas get the grace of the request, if that said one; a later request may
    shorten it. The workload goes with its status and revisions once no replica is left.
    """
    plan = _stop_all(cluster, workload.id, workload.delete_grace, now, "the workload is deleted")
    replicas = sum(1 for _ in cluster.replicas_of(workload.id))
    removed = sum(isinstance(action, RemoveReplica) for action in plan.actions)
    if removed < replicas:
        return plan
    text = f"workload {workload.namespace}/{workload.name} deleted: nothing is left of it"
    return Plan(
        actions=(*plan.actions, RemoveWorkload(workload.id, workload.namespace, workload.name)),
        events=(*plan.events, workload_event(workload, now, "WorkloadDeleted", text)),
        because="nothing is left of it",
    )


def plan_orphans(cluster: Cluster, workload_id: str, now: datetime.datetime) -> Plan:
    """Stop replicas whose workload does not exist; there are none unless a store was tampered with."""
    return _stop_all(cluster, workload_id, None, now, "its workload does not exist")


def _stop_all(
    cluster: Cluster,
    workload_id: str,
    grace: datetime.timedelta | None,
    now: datetime.datetime,
    because: str,
) -> Plan:
    actions: list[Action] = []
    events: list[Event] = []
    wake_at = None
    for replica in sorted(cluster.replicas_of(workload_id), key=lambda one: (one.ordinal, one.id)):
        action = _end(cluster, replica, grace, now, because)
        if action is None:
            continue
        if len(actions) == MAX_REPLICA_CHANGES:
            wake_at = now
            break
        actions.append(action)
        if replica.run:
            text = f"{replica.name}/{replica.ordinal}: {because}"
            events.append(replica_event(replica, now, "ReplicaStopped", text))
    return Plan(tuple(actions), tuple(events), wake_at, because if actions else "")


def _end(
    cluster: Cluster,
    replica: ReplicaRecord,
    grace: datetime.timedelta | None,
    now: datetime.datetime,
    because: str,
) -> Action | None:
    node = cluster.nodes.get(replica.node_id)
    if node is None or node.phase is NodePhase.LOST:
        return RemoveReplica(replica)
    if replica.run:
        return PutReplica(replica.replaced(run=False, grace=grace, stopped_at=now, because=because))
    revision = cluster.revision_of(replica)
    granted = (
        replica.grace
        if replica.grace is not None
        else (revision.spec.stop_grace_period if revision else None)
    )
    if grace is not None and granted is not None and grace < granted:
        return PutReplica(replica.replaced(grace=grace))
    return None
