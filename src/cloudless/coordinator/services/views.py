"""Workloads as users see them, as encoded bytes that are kept until something changes.

``get``, ``list`` and ``watch`` answer from these bytes; a workload is encoded once after
each change of anything it shows, and again when a count changes by time alone.
"""

from __future__ import annotations

import datetime
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

from cloudless import api
from cloudless.aio.clock import Clock
from cloudless.coordinator.limits import ENCODED_CACHE_BYTES
from cloudless.coordinator.state.cache import WatchCache
from cloudless.coordinator.state.snapshots import Snapshot
from cloudless.domain.cluster import Cluster
from cloudless.planning.status import ReplicaView, view_workload
from cloudless.transport.codec import Encoded, encode
from cloudless.wire.objects import replica_to_wire, workload_to_wire

#: Number of ``api.Workload.resource_version``.
_VERSION_FIELD = 9


class _Replicas:
    """The encoded replicas of one workload: of many, one or two change at a time."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[ReplicaView, Encoded]] = {}
        self._used: dict[str, tuple[ReplicaView, Encoded]] = {}

    def encoded(self, view: ReplicaView) -> Encoded:
        """The ``api.ReplicaStatus`` of a replica."""
        kept = self._kept.get(view.record.id)
        if kept is None or kept[0] != view:
            kept = view, Encoded(encode(replica_to_wire(view)), api.ReplicaStatus)
        self._used[view.record.id] = kept
        return kept[1]

    def forget_others(self) -> None:
        """Drop those that were not asked for since the last time."""
        self._kept, self._used = self._used, {}


class _Kept(NamedTuple):
    touched: int
    valid_until: datetime.datetime | None
    data: bytes
    replicas: _Replicas

    @property
    def size_bytes(self) -> int:
        """Its share of the limit; the replicas' bytes are in ``data`` and once more by themselves."""
        return 2 * len(self.data)


class WorkloadViews:
    """Encoded workloads by id, bounded in bytes; the least used go first."""

    def __init__(self, cache: WatchCache, clock: Clock) -> None:
        self._cache = cache
        self._clock = clock
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._bytes = 0
        self.encodings = 0

    def encoded(self, workload_id: str) -> bytes:
        """The ``api.Workload`` of a workload in the live facts, as bytes."""
        touched = self._cache.facts.touched.get(workload_id, 0)
        kept = self._kept.get(workload_id)
        now = self._clock.now()
        if kept is not None and kept.touched == touched and not _expired(kept, now):
            self._kept.move_to_end(workload_id)
            return kept.data
        replicas = kept.replicas if kept is not None else _Replicas()
        data, valid_until = self._encode(self._cache.cluster, workload_id, now, replicas.encoded)
        replicas.forget_others()
        self._keep(workload_id, _Kept(touched, valid_until, data, replicas))
        return data

    def encoded_in(self, snapshot: Snapshot, workload_id: str) -> bytes:
        """The same for a workload as it was in a snapshot."""
        touched = self._cache.facts.touched.get(workload_id)
        if touched is not None and touched <= snapshot.revision:
            return self.encoded(workload_id)
        return self._encode(snapshot.cluster, workload_id, self._clock.now())[0]

    def encode_without_version(self, cluster: Cluster, workload_id: str) -> bytes:
        """A workload in a cluster as it would be, without its resource version."""
        view = view_workload(cluster, workload_id, self._clock.now())
        message = workload_to_wire(cluster.workloads[workload_id], view)
        message.resource_version = ""
        return encode(message)

    def _encode(
        self,
        cluster: Cluster,
        workload_id: str,
        now: datetime.datetime,
        replica: Callable[[ReplicaView], Any] = replica_to_wire,
    ) -> tuple[bytes, datetime.datetime | None]:
        self.encodings += 1
        view = view_workload(cluster, workload_id, now)
        return encode(workload_to_wire(cluster.workloads[workload_id], view, replica)), view.valid_until

    def _keep(self, workload_id: str, kept: _Kept) -> None:
        old = self._kept.pop(workload_id, None)
        self._kept[workload_id] = kept
        self._bytes += kept.size_bytes - (old.size_bytes if old is not None else 0)
        while self._bytes > ENCODED_CACHE_BYTES:
            _, dropped = self._kept.popitem(last=False)
            self._bytes -= dropped.size_bytes


def with_version(workload: bytes, version: int) -> bytes:
    """An encoded workload with its resource version added.

    >>> with_version(b"", 7)
    b'J\\x017'
    """
    text = str(version).encode()
    return workload + bytes((_VERSION_FIELD << 3 | 2, len(text))) + text


def _expired(kept: _Kept, now: datetime.datetime) -> bool:
    return kept.valid_until is not None and now >= kept.valid_until
