"""The cluster as it was at a revision: what further pages of a list are read from.

The first page comes from the live facts; when there are more, a copy is kept for a while.
A copy that was dropped meanwhile (or was made by another coordinator) is built again from
the store's history; when that is gone too, the caller has to list again.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from cloudless.coordinator.limits import KEPT_SNAPSHOTS
from cloudless.coordinator.state import keys
from cloudless.coordinator.state.cache import WatchCache
from cloudless.coordinator.state.changes import Changes
from cloudless.coordinator.state.facts import Facts
from cloudless.coordinator.state.typed import TypedStore
from cloudless.domain.cluster import Cluster


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A cluster and the names of its workloads in order."""

    cluster: Cluster
    names: list[tuple[str, str]]

    @property
    def revision(self) -> int:
        """The store's revision that this is a picture of."""
        return self.cluster.revision


class Snapshots:
    """The newest copies, by revision."""

    def __init__(self, cache: WatchCache, typed: TypedStore) -> None:
        self._cache = cache
        self._typed = typed
        self._kept: OrderedDict[int, Snapshot] = OrderedDict()

    def live(self) -> Snapshot:
        """The facts as they are; only until the caller's next ``await``."""
        return Snapshot(self._cache.cluster, self._cache.facts.names)

    def keep(self, snapshot: Snapshot) -> None:
        """Make sure that ``at`` finds this revision for a while."""
        if snapshot.revision not in self._kept:
            copy = Snapshot(snapshot.cluster.copy(), list(snapshot.names))
            self._kept[snapshot.revision] = copy
            if len(self._kept) > KEPT_SNAPSHOTS:
                self._kept.popitem(last=False)

    async def at(self, revision: int) -> Snapshot:
        """The cluster at ``revision``; raises ``OutOfRange`` when it is no longer known."""
        kept = self._kept.get(revision)
        if kept is not None:
            self._kept.move_to_end(revision)
            return kept
        facts, changes = Facts(self._typed.codec), Changes(revision)
        for prefix in keys.CACHED:
            if prefix != keys.EVENTS:
                for kv in (await self._typed.range(prefix, revision=revision)).items:
                    facts.put(kv, changes)
        facts.settle(changes)
        snapshot = Snapshot(facts.cluster, facts.names)
        self.keep(snapshot)
        return snapshot


def part_of(cluster: Cluster, workload_id: str) -> Cluster:
    """A small cluster that holds one workload, for looking at it as it would be.

    The nodes are shared, everything else is copied; put the changed record into it.
    """
    part = Cluster(cluster.revision, nodes=cluster.nodes)
    record = cluster.workloads.get(workload_id)
    if record is not None:
        part.put_workload(record)
    for replica in cluster.replicas_of(workload_id):
        part.put_replica(replica)
        seen = cluster.observations.get(replica.id)
        if seen is not None:
            part.observations[replica.id] = seen
    status = cluster.statuses.get(workload_id)
    if status is not None:
        part.statuses[workload_id] = status
    part.revisions[workload_id] = dict(cluster.revisions.get(workload_id, {}))
    return part
