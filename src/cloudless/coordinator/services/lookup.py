"""Finding workloads, replicas and nodes by what people type: a name or the beginning of an id.

Read-only handlers use it; changes of a workload take its exact name.
"""

from __future__ import annotations

from cloudless.coordinator.services import fields
from cloudless.coordinator.services.writing import not_found
from cloudless.domain.cluster import Cluster
from cloudless.domain.errors import Invalid, NotFound
from cloudless.domain.names import means_replica, ordinal_of
from cloudless.domain.node import NodePhase, NodeRecord
from cloudless.domain.replica import ReplicaRecord
from cloudless.domain.workload import WorkloadRecord

_GONE = frozenset({NodePhase.DISCONNECTED, NodePhase.LOST})


def find_workload(cluster: Cluster, namespace: str, name: str) -> WorkloadRecord:
    """The workload of that name, or the one whose id begins so.

    An id is looked for in all namespaces unless one is given. Raises ``NotFound``, and
    ``Invalid`` when several ids begin so.
    """
    where = fields.namespace_of(namespace)
    wanted = fields.name_of(name)
    record = cluster.workload_named(where, wanted)
    if record is not None:
        return record
    matching = [
        record
        for record in cluster.workloads.values()
        if record.id.startswith(wanted) and (not namespace or record.namespace == namespace)
    ]
    if len(matching) > 1:
        raise _ambiguous("name", wanted, [record.id for record in matching])
    if not matching:
        raise not_found(where, wanted)
    return matching[0]


def find_node(cluster: Cluster, name: str, field: str = "name") -> NodeRecord:
    """The node of that name (a connected one first), or the one whose id begins so."""
    if not name:
        raise Invalid.field(field, "is required")
    wanted = fields.node_name_of(name, field)
    named = [record for record in cluster.nodes.values() if record.name == wanted]
    if named:
        return min(named, key=lambda record: (record.phase in _GONE, record.joined_at))
    matching = [record for record in cluster.nodes.values() if record.id.startswith(wanted)]
    if len(matching) > 1:
        raise _ambiguous(field, wanted, [record.id for record in matching])
    if not matching:
        raise NotFound(f"node {wanted} does not exist", hint="list the nodes")
    return matching[0]


def find_replicas(cluster: Cluster, workload: WorkloadRecord, replica: str) -> list[ReplicaRecord]:
    """The replicas of a workload, by ordinal; of one ordinal or id only, when ``replica`` is given.

    Raises ``NotFound`` when none is so called, ``Invalid`` when several ids begin so.
    """
    everyone = sorted(cluster.replicas_of(workload.id), key=lambda one: (one.ordinal, one.created_at, one.id))
    if not replica:
        return everyone
    if len(replica) > fields.MAX_REPLICA_CHARS or not replica.isascii() or not replica.isalnum():
        raise Invalid.field("replica", "must be an ordinal such as 0, or the beginning of a replica's id")
    wanted = replica.lower()
    found = [one for one in everyone if means_replica(wanted, one.ordinal, one.id)]
    if len(found) > 1 and ordinal_of(wanted) is None:
        raise _ambiguous("replica", wanted, [one.id for one in found])
    if not found:
        raise NotFound(
            f"workload {workload.namespace}/{workload.name} has no replica {wanted}",
            hint="list its replicas",
        )
    return found


def _ambiguous(field: str, wanted: str, ids: list[str]) -> Invalid:
    shown = ", ".join(sorted(ids)[:4])
    return Invalid.field(field, f"{wanted!r} is the beginning of {len(ids)} ids: {shown}")
