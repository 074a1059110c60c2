"""What a node is told: assignments and shares that follow from the facts, as messages.

``Outbox`` belongs to one link. It remembers which replicas of its node changed, never
how, so a slow node gets fewer, newer messages; the first one holds everything. Shares of
new connections go before all else: a switch is the next message, whatever else waits, and no
replica arrives before the shares that leave it out.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from datetime import timedelta

from cloudless import api
from cloudless.coordinator.limits import (
    ASSIGNMENTS_BYTES,
    MAX_KEPT_SPECS,
    MAX_WHOLE_BYTES,
    SPLIT_BYTES,
)
from cloudless.coordinator.state.cache import WatchCache
from cloudless.coordinator.state.changes import Changes
from cloudless.coordinator.state.splits import must_wait, shares_of
from cloudless.domain.cluster import Cluster
from cloudless.domain.errors import Exhausted, Unavailable
from cloudless.domain.replica import Assignment, ReplicaRecord
from cloudless.domain.rollout import TrafficShare
from cloudless.transport.codec import Encoded, encode
from cloudless.wire.link import assignment_to_wire, shares_to_wire
from cloudless.wire.spec import spec_to_wire


def assignment_of(cluster: Cluster, record: ReplicaRecord) -> Assignment | None:
    """What the node of a replica is to do with it; None when nothing is known to run."""
    workload = cluster.workloads.get(record.workload_id)
    revision = cluster.revision_of(record)
    if revision is None and workload is None:
        return None
    spec = revision.spec if revision is not None else workload.spec  # type: ignore[union-attr]
    if workload is not None and workload.spec.rollout != spec.rollout:
        spec = spec.replaced(rollout=workload.spec.rollout)  # no part of the revision: the newest holds
    return Assignment.model_construct(
        replica_id=record.id,
        workload_id=record.workload_id,
        namespace=record.namespace,
        name=record.name,
        ordinal=record.ordinal,
        revision=record.revision,
        spec=spec,
        labels=dict(workload.labels) if workload is not None else {},
        run=record.run,
        grace=record.grace,
        image_digest=revision.image_digest if revision is not None else "",
        pull=revision is not None and revision.pull and not revision.image_digest,
    )


class Outbox:
    """The messages to one node, in order; ``notice`` is the cache's subscriber."""

    def __init__(self, cache: WatchCache, node_id: str, epoch: Callable[[], int]) -> None:
        self._cache = cache
        self._node_id = node_id
        self._epoch = epoch
        self._dirty: dict[str, None] = {}
        #: Workloads whose shares have to be looked at again, and what the node holds of any.
        self._switched: dict[str, None] = {}
        self._told_shares: dict[str, tuple[TrafficShare, ...]] = {}
        self._acknowledged = 0
        self._told_acknowledged = 0
        self._woken = asyncio.Event()
        self._specs: dict[tuple[str, int, timedelta], Encoded] = {}

    def notice(self, changes: Changes) -> None:
        """Remember what concerns this node."""
        changed = changes.assignments.get(self._node_id)
        if changed:
            self.look_again(changed)
        switched = changes.traffic.get(self._node_id)
        if switched:
            self._switched.update(dict.fromkeys(switched))
            self._woken.set()

    def look_again(self, replica_ids: Iterable[str]) -> None:
        """Tell the node of these replicas, whether they changed or not."""
        self._dirty.update(dict.fromkeys(replica_ids))
        self._woken.set()

    def acknowledge(self, sequence: int) -> None:
        """Tell the node that its message was stored."""
        self._acknowledged = max(self._acknowledged, sequence)
        self._woken.set()

    async def messages(self) -> AsyncIterator[api.SynchronizeRequest]:
        """First everything, then what changes; never ends by itself.

        Raises ``Unavailable`` when this process leads no longer.
        """
        yield self._whole()
        while True:
            while self._switched or self._dirty or self._acknowledged > self._told_acknowledged:
                yield self._changed()
            self._woken.clear()
            await self._woken.wait()

    def _whole(self) -> api.SynchronizeRequest:
        self._dirty.clear()
        self._switched.clear()
        self._told_shares.clear()
        message, size_bytes = self._message(), 0
        message.whole = True
        cluster = self._cache.cluster
        for record in cluster.replicas_on(self._node_id):
            if must_wait(cluster, record):
                continue
            self._tell_shares(message, record.workload_id)
            assignment = self._assignment(record)
            if assignment is not None:
                message.assignments.append(assignment)
                size_bytes += len(assignment.spec.data)  # type: ignore[union-attr]
        if size_bytes > MAX_WHOLE_BYTES:
            raise Exhausted(
                f"node {self._node_id} is to run {size_bytes} bytes of specifications; "
                f"one message holds {MAX_WHOLE_BYTES}"
            )
        return message

    def _changed(self) -> api.SynchronizeRequest:
        """The next message of changes; what does not fit stays for the one after."""
        message, size_bytes = self._message(), 0
        cluster = self._cache.cluster
        while self._switched and size_bytes < ASSIGNMENTS_BYTES:
            workload_id = next(iter(self._switched))
            del self._switched[workload_id]
            size_bytes += self._tell_shares(message, workload_id)
        if message.traffic:
            return message  # a switch waits for nothing, not even for the reading of what else there is
        while self._dirty and size_bytes < ASSIGNMENTS_BYTES:
            replica_id = next(iter(self._dirty))
            del self._dirty[replica_id]
            record = cluster.replicas.get(replica_id)
            if record is None or record.node_id != self._node_id:
                message.removed.append(replica_id)
                continue
            if must_wait(cluster, record):
                continue
            size_bytes += self._tell_shares(message, record.workload_id)
            assignment = self._assignment(record)
            if assignment is not None:
                message.assignments.append(assignment)
                size_bytes += len(assignment.spec.data)  # type: ignore[union-attr]
        if message.removed and self._told_shares:
            here = {record.workload_id for record in cluster.replicas_on(self._node_id)}
            for workload_id in self._told_shares.keys() - here:
                self._tell_shares(message, workload_id, gone=True)
        return message

    def _tell_shares(self, message: api.SynchronizeRequest, workload_id: str, *, gone: bool = False) -> int:
        """Add a workload's shares if the node does not hold them; about how many bytes that is.

        ``gone``: nothing of it is left there, the node may forget them.
        """
        shares = () if gone else shares_of(self._cache.cluster.statuses.get(workload_id))
        if shares == self._told_shares.get(workload_id, ()):
            return 0
        message.traffic.append(shares_to_wire(workload_id, shares))
        if shares:
            self._told_shares[workload_id] = shares
        else:
            del self._told_shares[workload_id]
        return SPLIT_BYTES

    def _message(self) -> api.SynchronizeRequest:
        epoch = self._epoch()
        if not epoch:
            raise Unavailable("this coordinator leads no longer")
        self._told_acknowledged = self._acknowledged
        return api.SynchronizeRequest(
            epoch=epoch, revision=self._cache.revision, acknowledged=self._acknowledged
        )

    def _assignment(self, record: ReplicaRecord) -> api.Assignment | None:
        assignment = assignment_of(self._cache.cluster, record)
        if assignment is None:
            return None
        return assignment_to_wire(assignment, self._spec(assignment))

    def _spec(self, assignment: Assignment) -> Encoded:
        """The specification's bytes: the same for all replicas of a revision."""
        key = assignment.workload_id, assignment.revision, assignment.spec.rollout.drain_time
        if key not in self._specs:
            if len(self._specs) >= MAX_KEPT_SPECS:
                self._specs.clear()
            self._specs[key] = Encoded(encode(spec_to_wire(assignment.spec)), api.WorkloadSpec)
        return self._specs[key]
