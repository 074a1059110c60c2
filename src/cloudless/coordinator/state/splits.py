"""Which revisions of a workload get new connections, and which replicas wait for that. Pure.

The control loop writes shares with a rollout's status. ``Facts`` asks what a new status
changes, the links to nodes (``desired``) what to tell.
"""

from __future__ import annotations

from cloudless.domain.cluster import Cluster
from cloudless.domain.replica import ReplicaRecord
from cloudless.domain.rollout import TrafficShare
from cloudless.domain.status import StatusRecord
from cloudless.domain.strategy import Strategy

#: Strategies under which a new replica that is ready may have to wait for its connections.
_SWITCHING = frozenset({Strategy.BLUE_GREEN, Strategy.CANARY})


def shares_of(status: StatusRecord | None) -> tuple[TrafficShare, ...]:
    """Who gets new connections; every ready replica alike when empty."""
    return status.rollout.shares if status is not None and status.rollout is not None else ()


def target_of(status: StatusRecord | None) -> int:
    """The newest revision that the status speaks of; 0 for none."""
    return status.rollout.target if status is not None and status.rollout is not None else 0


def must_wait(cluster: Cluster, record: ReplicaRecord) -> bool:
    """Whether a node must not hear of this new replica yet.

    A large plan is stored in parts, its replicas before its status. Until the status speaks
    of a replica's revision, nobody knows whether it may get connections.
    """
    if not record.run or record.id in cluster.observations:
        return False
    workload = cluster.workloads.get(record.workload_id)
    if workload is None or workload.spec.rollout.strategy not in _SWITCHING:
        return False
    return record.revision > target_of(cluster.statuses.get(record.workload_id))
