"""The outcome of a plan, on a copy of the cluster: for dry runs, rehearsals and tests.

The coordinator writes plans to the store; this says what its cluster will look like
when they are written.
"""

from __future__ import annotations

from cloudless.domain.cluster import Cluster
from cloudless.domain.plan import (
    Plan,
    PutJournal,
    PutNode,
    PutReplica,
    PutRevision,
    PutStatus,
    RemoveReplica,
    RemoveRevision,
    RemoveWorkload,
)


def apply_plan(cluster: Cluster, plan: Plan) -> Cluster:
    """A copy of ``cluster`` with every action of ``plan`` done; ``cluster`` is not touched."""
    changed = cluster.copy()
    apply_in_place(changed, plan)
    return changed


def apply_in_place(cluster: Cluster, plan: Plan) -> None:
    """Do every action of ``plan`` to ``cluster``, which must be the caller's own."""
    for action in plan.actions:
        match action:
            case PutReplica(replica):
                cluster.put_replica(replica)
            case RemoveReplica(replica):
                cluster.drop_observation(replica.id)
                cluster.drop_replica(replica.id)
            case PutRevision(revision):
                cluster.put_revision(revision)
            case RemoveRevision(workload_id, number):
                cluster.drop_revision(workload_id, number)
            case PutStatus(status):
                cluster.statuses[status.workload_id] = status
            case RemoveWorkload(workload_id):
                cluster.drop_workload(workload_id)
                cluster.statuses.pop(workload_id, None)
                for number in list(cluster.revisions.get(workload_id, ())):
                    cluster.drop_revision(workload_id, number)
            case PutNode(node):
                cluster.nodes[node.id] = node
            case PutJournal():
                pass  # journals are not among the facts that plans are made on
