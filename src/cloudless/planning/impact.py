"""Whose plans a change may touch: what the control loop looks at again.

A workload's own records lead to it directly; these are the roads from nodes and from
room that got free.
"""

from __future__ import annotations

from cloudless.domain.cluster import Cluster


def workloads_on(cluster: Cluster, node_id: str) -> set[str]:
    """Ids of the workloads with replicas on a node: touched by a change of its phase."""
    return {replica.workload_id for replica in cluster.replicas_on(node_id)}


def waiting_workloads(cluster: Cluster) -> set[str]:
    """Ids of the workloads with replicas that found no node.

    Touched by any change of any node, and by any replica that is gone or ended.
    """
    return {workload_id for workload_id, status in cluster.statuses.items() if status.refusals}
