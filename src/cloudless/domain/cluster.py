"""The cluster as planners see it: every fact at one revision of the store, indexed.

The coordinator's watch cache owns one and changes it between decisions; planners only
read it and never keep a reference over an ``await``. Tests and dry runs build their
own, or take a ``copy``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from cloudless.domain.node import NodeRecord
from cloudless.domain.replica import ENDED, Observation, ReplicaRecord
from cloudless.domain.revision import Revision
from cloudless.domain.status import StatusRecord
from cloudless.domain.usage import Demand, NodeKind, NodeRoom, NodeUsage, demand_of, kind_of
from cloudless.domain.workload import WorkloadRecord

#: Kinds of nodes remembered; labels that change all the time would otherwise pile up.
MAX_KINDS = 20_000


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
    #: Derived when asked for, forgotten when a fact below it changes.
    _usage: dict[str, NodeUsage] = field(default_factory=dict)
    _rooms: dict[str, NodeRoom] = field(default_factory=dict)
    _kinds: dict[NodeKind, int] = field(default_factory=dict)
    _demands: dict[tuple[str, int], Demand] = field(default_factory=dict)

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

    def usage_of(self, node_id: str) -> NodeUsage:
        """What the replicas on a node take from it. Shared: copy it before adding to it.

        Replicas that are told to stop count until they are gone; replicas that ended
        for good (and are not restarted) do not.
        """
        usage = self._usage.get(node_id)
        if usage is None:
            usage = self._usage[node_id] = NodeUsage()
            for replica in self.replicas_on(node_id):
                seen = self.observations.get(replica.id)
                if seen is None or seen.phase not in ENDED:
                    usage.add(self._demand_of(replica))
        return usage

    def rooms(self) -> Iterator[NodeRoom]:
        """The room that is left on each node, in the order of ``nodes``. Shared: never change one."""
        if len(self._kinds) > MAX_KINDS:
            self._kinds.clear()
            self._rooms.clear()
        known = self._rooms
        for node_id, record in self.nodes.items():
            room = known.get(node_id)
            if room is None or room.record is not record:
                kind = self._kinds.setdefault(kind_of(record), len(self._kinds))
                room = known[node_id] = NodeRoom.of(record, self.usage_of(node_id), kind)
            yield room

    def workload_ids(self) -> Iterator[str]:
        """Ids of all workloads, oldest key first."""
        return iter(tuple(self.workloads))

    def put_workload(self, record: WorkloadRecord) -> None:
        """Add or replace a workload."""
        self.workloads[record.id] = record
        self._ids[record.namespace, record.name] = record.id

    def drop_workload(self, workload_id: str) -> None:
        """Forget a workload; its status and revisions are facts of their own."""
        record = self.workloads.pop(workload_id, None)
        if record is not None and self._ids.get((record.namespace, record.name)) == workload_id:
            del self._ids[record.namespace, record.name]

    def put_replica(self, record: ReplicaRecord) -> None:
        """Add or replace a replica's record."""
        old = self.replicas.get(record.id)
        if old is not None and old.node_id != record.node_id:
            self._by_node.get(old.node_id, {}).pop(record.id, None)
            self._forget_usage(old.node_id)
        self.replicas[record.id] = record
        self._by_workload.setdefault(record.workload_id, {})[record.id] = record
        if record.node_id:
            self._by_node.setdefault(record.node_id, {})[record.id] = record
            self._forget_usage(record.node_id)

    def drop_replica(self, replica_id: str) -> None:
        """Forget a replica's record."""
        record = self.replicas.pop(replica_id, None)
        if record is not None:
            self._by_workload.get(record.workload_id, {}).pop(replica_id, None)
            if not self._by_workload.get(record.workload_id):
                self._by_workload.pop(record.workload_id, None)
            self._by_node.get(record.node_id, {}).pop(replica_id, None)
            self._forget_usage(record.node_id)

    def put_observation(self, seen: Observation) -> None:
        """Add or replace what a node saw of a replica."""
        self.observations[seen.replica_id] = seen
        self._forget_usage_of(seen.replica_id)

    def drop_observation(self, replica_id: str) -> None:
        """Forget what a node saw of a replica."""
        self.observations.pop(replica_id, None)
        self._forget_usage_of(replica_id)

    def put_revision(self, revision: Revision) -> None:
        """Add or replace a revision."""
        known = self.revisions.setdefault(revision.workload_id, {})
        if revision.number not in known:  # replicas may have arrived before their revision
            for replica in self.replicas_of(revision.workload_id):
                self._forget_usage(replica.node_id)
        known[revision.number] = revision

    def drop_revision(self, workload_id: str, number: int) -> None:
        """Forget a revision."""
        known = self.revisions.get(workload_id, {})
        known.pop(number, None)
        self._demands.pop((workload_id, number), None)
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
            dict(self._usage),
            dict(self._rooms),
            dict(self._kinds),
            dict(self._demands),
        )

    def _forget_usage(self, node_id: str) -> None:
        self._usage.pop(node_id, None)
        self._rooms.pop(node_id, None)

    def _forget_usage_of(self, replica_id: str) -> None:
        record = self.replicas.get(replica_id)
        if record is not None:
            self._forget_usage(record.node_id)

    def _demand_of(self, replica: ReplicaRecord) -> Demand:
        key = (replica.workload_id, replica.revision)
        demand = self._demands.get(key)
        if demand is None:
            revision = self.revision_of(replica)
            if revision is None:
                return Demand(0, 0, 0, ())
            demand = self._demands[key] = demand_of(revision.spec, f"{replica.namespace}/{replica.name}")
        return demand
