"""All facts at one revision, as the cache holds them: the cluster and what belongs to it.

``Facts`` applies what the store says, one key at a time, and notes in ``Changes`` where
to look again. It knows the revision of each key, which writers compare with. The cache
is the only one that changes it; nothing here waits.
"""

from __future__ import annotations

import logging
from bisect import insort
from collections.abc import Callable
from typing import cast

from cloudless.coordinator.state.changes import Changes
from cloudless.coordinator.state.codec import Codec, Unreadable
from cloudless.coordinator.state.keys import Kind, parse
from cloudless.coordinator.state.splits import shares_of, target_of
from cloudless.domain.cluster import Cluster
from cloudless.domain.event import Event
from cloudless.domain.model import Model
from cloudless.domain.node import NodeRecord
from cloudless.domain.replica import ENDED, Observation, ReplicaRecord
from cloudless.domain.revision import Revision
from cloudless.domain.status import StatusRecord
from cloudless.domain.workload import WorkloadRecord
from cloudless.store.port import KeyValue

log = logging.getLogger(__name__)

#: Kinds that are read from the store when they are needed, and not kept in memory.
_NOT_KEPT = frozenset({Kind.CLUSTER, Kind.LEADER, Kind.REQUEST, Kind.JOURNAL})
#: What of a revision goes into assignments.
_ASSIGNED = ("spec", "image_digest", "pull")


class Facts:
    """The cluster, the revision of every key, and when each workload changed last."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self.cluster = Cluster()
        #: Key -> revision that wrote it last.
        self.mods: dict[str, int] = {}
        #: Workload id -> revision that changed anything about it last.
        self.touched: dict[str, int] = {}
        #: (namespace, name) of all workloads, in order.
        self.names: list[tuple[str, str]] = []
        #: Keys that hold something this version cannot read.
        self.unreadable: set[str] = set()
        self.event_count = 0
        self._put: dict[Kind, Callable[[Model, tuple[str, ...], Changes, int], None]] = {
            Kind.WORKLOAD: self._put_workload,
            Kind.STATUS: self._put_status,
            Kind.REVISION: self._put_revision,
            Kind.REPLICA: self._put_replica,
            Kind.OBSERVATION: self._put_observation,
            Kind.NODE: self._put_node,
            Kind.EVENT: self._put_event,
        }
        self._drop: dict[Kind, Callable[[tuple[str, ...], Changes], None]] = {
            Kind.WORKLOAD: self._drop_workload,
            Kind.STATUS: self._drop_status,
            Kind.REVISION: self._drop_revision,
            Kind.REPLICA: self._drop_replica,
            Kind.OBSERVATION: self._drop_observation,
            Kind.NODE: self._drop_node,
        }

    def put(self, kv: KeyValue, changes: Changes) -> None:
        """Take over a key that was written."""
        parsed = parse(kv.key)
        if parsed is None or parsed.kind in _NOT_KEPT:
            return
        if parsed.kind is Kind.EVENT and kv.key not in self.mods:
            self.event_count += 1
        self.mods[kv.key] = kv.mod_revision
        try:
            model = self._codec.decode(parsed.kind, kv.key, kv.value)
        except Unreadable as error:
            # The last readable version stays: forgetting an object would stop what runs.
            log.error("unreadable record", extra={"key": kv.key, "why": error.message})  # noqa: TRY400
            self.unreadable.add(kv.key)
            return
        self.unreadable.discard(kv.key)
        self._put[parsed.kind](model, parsed.parts, changes, kv.mod_revision)

    def delete(self, key: str, changes: Changes) -> None:
        """Take over that a key went."""
        parsed = parse(key)
        if self.mods.pop(key, None) is None or parsed is None:
            return
        self.unreadable.discard(key)
        if parsed.kind is Kind.EVENT:
            self.event_count -= 1
        drop = self._drop.get(parsed.kind)
        if drop is not None:
            drop(parsed.parts, changes)

    def settle(self, changes: Changes) -> None:
        """End a batch: the cluster is at its revision now."""
        self.cluster.revision = changes.revision
        for workload_id in changes.workloads:
            if workload_id in self.cluster.workloads:
                self.touched[workload_id] = changes.revision
            else:
                self.touched.pop(workload_id, None)

    # -- what was written --------------------------------------------------------------

    def _put_workload(self, model: Model, parts: tuple[str, ...], changes: Changes, revision: int) -> None:
        record = cast(WorkloadRecord, model).replaced(resource_version=revision)
        before = self.cluster.workloads.get(record.id)
        self._note_labels(record.id, before, changes)
        if before is None:
            insort(self.names, (record.namespace, record.name))
        if before is None or before.labels != record.labels:
            self._reassign(record.id, changes)
            changes.freed = True  # labels are what affinity rules look at
        self.cluster.put_workload(record)
        changes.workloads.add(record.id)

    def _put_status(self, model: Model, parts: tuple[str, ...], changes: Changes, revision: int) -> None:
        before, status = self.cluster.statuses.get(parts[0]), cast(StatusRecord, model)
        self.cluster.statuses[parts[0]] = status
        changes.workloads.add(parts[0])
        switched = shares_of(before) != shares_of(status)
        if not switched and target_of(before) >= target_of(status):
            return
        for record in self.cluster.replicas_of(parts[0]):
            if switched:
                changes.share(record.node_id, parts[0])
            if target_of(before) < record.revision <= target_of(status):
                changes.assign(record.node_id, record.id)  # it may have waited for this

    def _put_revision(self, model: Model, parts: tuple[str, ...], changes: Changes, revision: int) -> None:
        before = self.cluster.revisions.get(parts[0], {}).get(int(parts[1]))
        made = cast(Revision, model)
        self.cluster.put_revision(made)
        changes.workloads.add(parts[0])
        if before is not None and all(getattr(before, name) == getattr(made, name) for name in _ASSIGNED):
            return  # only how its rollout stands: no node needs to hear of it
        for record in self.cluster.replicas_of(parts[0]):
            if record.revision == made.number:
                changes.assign(record.node_id, record.id)

    def _put_replica(self, model: Model, parts: tuple[str, ...], changes: Changes, revision: int) -> None:
        record = cast(ReplicaRecord, model)
        before = self.cluster.replicas.get(record.id)
        if before is not None:
            changes.assign(before.node_id, record.id)
        changes.assign(record.node_id, record.id)
        self.cluster.put_replica(record)
        changes.workloads.add(record.workload_id)

    def _put_observation(self, model: Model, parts: tuple[str, ...], changes: Changes, revision: int) -> None:
        seen = cast(Observation, model)
        self.cluster.put_observation(seen)
        changes.workloads.add(parts[0])
        changes.freed |= seen.phase in ENDED

    def _put_node(self, model: Model, parts: tuple[str, ...], changes: Changes, revision: int) -> None:
        self.cluster.nodes[parts[0]] = cast(NodeRecord, model)
        self._node_changed(parts[0], changes)

    def _put_event(self, model: Model, parts: tuple[str, ...], changes: Changes, revision: int) -> None:
        changes.events.append(cast(Event, model).replaced(id=parts[0]))

    # -- what went ---------------------------------------------------------------------

    def _drop_workload(self, parts: tuple[str, ...], changes: Changes) -> None:
        record = self.cluster.workload_named(parts[0], parts[1])
        if record is not None:
            self._note_labels(record.id, record, changes)
            self.cluster.drop_workload(record.id)
            self.names.remove((record.namespace, record.name))
            changes.deleted[record.id] = record
            changes.workloads.add(record.id)
            changes.freed = True

    def _drop_status(self, parts: tuple[str, ...], changes: Changes) -> None:
        if shares_of(self.cluster.statuses.pop(parts[0], None)):
            for record in self.cluster.replicas_of(parts[0]):
                changes.share(record.node_id, parts[0])
        changes.workloads.add(parts[0])

    def _drop_revision(self, parts: tuple[str, ...], changes: Changes) -> None:
        self.cluster.drop_revision(parts[0], int(parts[1]))
        changes.workloads.add(parts[0])

    def _drop_replica(self, parts: tuple[str, ...], changes: Changes) -> None:
        record = self.cluster.replicas.get(parts[1])
        if record is not None:
            changes.assign(record.node_id, record.id)
            self.cluster.drop_replica(parts[1])
        changes.workloads.add(parts[0])
        changes.freed = True

    def _drop_observation(self, parts: tuple[str, ...], changes: Changes) -> None:
        self.cluster.drop_observation(parts[1])
        changes.workloads.add(parts[0])
        record = self.cluster.replicas.get(parts[1])
        if record is not None:
            # A node that lost a replica it is still to run has to be told again.
            changes.assign(record.node_id, record.id)

    def _drop_node(self, parts: tuple[str, ...], changes: Changes) -> None:
        self.cluster.nodes.pop(parts[0], None)
        self._node_changed(parts[0], changes)

    def _node_changed(self, node_id: str, changes: Changes) -> None:
        changes.nodes.add(node_id)
        changes.workloads.update(record.workload_id for record in self.cluster.replicas_on(node_id))
        changes.freed = True

    def _reassign(self, workload_id: str, changes: Changes) -> None:
        for record in self.cluster.replicas_of(workload_id):
            changes.assign(record.node_id, record.id)

    def _note_labels(self, workload_id: str, before: WorkloadRecord | None, changes: Changes) -> None:
        changes.labels_before.setdefault(workload_id, None if before is None else before.labels)
