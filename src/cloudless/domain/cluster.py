"""The cluster as planners see it: every fact at one revision of the store, indexed.

The coordinator's watch cache owns one and changes it between decisions; planners only
read it and never keep a reference over an ``await``. Tests and dry runs build their
own, or take a ``copy``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from cloudless.domain.node import NodeRecord
from cloudless.domain.replica import Observation, ReplicaRecord
from cloudless.domain.revision import Revision
from cloudless.domain.status import StatusRecord
from cloudless.domain.workload import WorkloadRecord


@dataclass(slots=True)
class Cluster:
    """Indexes over the facts at ``revision``."""

    revision: int = 0
    workloads: dict[str, WorkloadRecord] = field(default_factory=dict)
    nodes: dict[str, NodeRecord] = field(default_factory=dict)
    replicas: dict[str, ReplicaRecord] = field(default_factory=dict)
    observations: dict[str, Observation] = field(default_factory=dict)
    statuses: dict[str, StatusRecord] = field(default_factory=dict)
    revisions: dict[str, dict[int, Revision]] = field(default_factory=dict)
    _ids: dict[tuple[str, str], str] = field(default_factory=dict)
    _by_workload: dict[str, dict[str, ReplicaRecord]] = field(default_factory=dict)
    _by_node: dict[str, dict[str, ReplicaRecord]] = field(default_factory=dict)

    def workload_named(self, namespace: str, name: str) -> WorkloadRecord | None:
        """The workload of that name, also while it is being deleted."""
        found = self._ids.get((namespace, name))
        return self.workloads.get(found) if found else None

    def replicas_of(self, workload_id: str) -> Iterable[ReplicaRecord]:
        """All replica records of a workload, in no particular order."""
        return self._by_workload.get(workload_id, {}).values()

    def replicas_on(self, node_id: str) -> Iterable[ReplicaRecord]:
        """All replica records placed on a node."""
        return self._by_node.get(node_id, {}).values()

    def newest_revision(self, workload_id: str) -> Revision | None:
        """The revision with the highest number."""
        known = self.revisions.get(workload_id)
        return known[max(known)] if known else None

    def revision_of(self, replica: ReplicaRecord) -> Revision | None:
        """The revision that a replica was made from."""
        return self.revisions.get(replica.workload_id, {}).get(replica.revision)

    def workload_ids(self) -> Iterator[str]:
        """Ids of all workloads, oldest key first."""
        return iter(tuple(self.workloads))

    def put_workload(self, record: WorkloadRecord) -> None:
        """Add or replace a workload."""
        self.workloads[record.id] = record
        self._ids[record.namespace, record.name] = record.id

    def drop_workload(self, workload_id: str) -> None:
        """Forget a workload, its status and its revisions."""
        record = self.workloads.pop(workload_id, None)
        if record is not None and self._ids.get((record.namespace, record.name)) == workload_id:
            del self._ids[record.namespace, record.name]

    def put_replica(self, record: ReplicaRecord) -> None:
        """Add or replace a replica's record."""
        old = self.replicas.get(record.id)
        if old is not None and old.node_id != record.node_id:
            self._by_node.get(old.node_id, {}).pop(record.id, None)
        self.replicas[record.id] = record
        self._by_workload.setdefault(record.workload_id, {})[record.id] = record
        if record.node_id:
            self._by_node.setdefault(record.node_id, {})[record.id] = record

    def drop_replica(self, replica_id: str) -> None:
        """Forget a replica's record."""
        record = self.replicas.pop(replica_id, None)
        if record is not None:
            self._by_workload.get(record.workload_id, {}).pop(replica_id, None)
            self._by_node.get(record.node_id, {}).pop(replica_id, None)

    def put_revision(self, revision: Revision) -> None:
        """Add or replace a revision."""
        self.revisions.setdefault(revision.workload_id, {})[revision.number] = revision

    def drop_revision(self, workload_id: str, number: int) -> None:
        """Forget a revision."""
        known = self.revisions.get(workload_id, {})
        known.pop(number, None)
        if not known:
            self.revisions.pop(workload_id, None)

    def copy(self) -> Cluster:
        """An independent copy of the indexes; the records are shared, they are frozen."""
        return Cluster(
            self.revision,
            dict(self.workloads),
            dict(self.nodes),
            dict(self.replicas),
            dict(self.observations),
            dict(self.statuses),
            {key: dict(value) for key, value in self.revisions.items()},
            dict(self._ids),
            {key: dict(value) for key, value in self._by_workload.items()},
            {key: dict(value) for key, value in self._by_node.items()},
        )
