"""Whose logs a request means: workloads by name or label, on which nodes, and what those are asked.

``logstream`` asks it when a stream begins, and again whenever something changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cloudless import api
from cloudless.coordinator.services import fields
from cloudless.coordinator.services.context import Context
from cloudless.coordinator.services.lookup import find_replicas, find_workload
from cloudless.domain.cluster import Cluster
from cloudless.domain.errors import Invalid, NotFound
from cloudless.domain.replica import ReplicaRecord
from cloudless.domain.selector import Selector, selector_of


@dataclass(frozen=True)
class Targets:
    """``workload_id`` or ``selector``; with neither, a workload that is gone, by its name.

    ``missing`` is raised when no node has anything of it either.
    """

    namespace: str
    name: str = ""
    workload_id: str = ""
    selector: Selector | None = None
    #: As nodes are asked: an ordinal, a whole id, or the beginning of one that is gone.
    replica: str = ""
    missing: NotFound | None = None

    @property
    def can_grow(self) -> bool:
        """Whether a followed stream has to wait for more when everything has ended."""
        return self.selector is not None

    def workloads(self, cluster: Cluster) -> frozenset[str]:
        """Ids of the workloads there are now."""
        if self.selector is None:
            return frozenset({self.workload_id} & cluster.workloads.keys())
        return frozenset(
            record.id
            for record in cluster.workloads.values()
            if record.namespace == self.namespace and self.selector.matches(record.labels)
        )

    def replicas(self, cluster: Cluster) -> Iterator[ReplicaRecord]:
        """Records of the replicas that are meant, placed or not."""
        for workload_id in self.workloads(cluster):
            for record in cluster.replicas_of(workload_id):
                if self.replica in ("", record.id, str(record.ordinal)):
                    yield record

    def asked(
        self, request: api.StreamLogsRequest, workload_ids: frozenset[str], *, follow: bool
    ) -> api.ReadLogsRequest:
        """What a node is asked for."""
        by_name = self.workload_id == "" and self.selector is None
        return api.ReadLogsRequest(
            workload_ids=sorted(workload_ids),
            namespace=self.namespace if by_name else "",
            name=self.name if by_name else "",
            replica=self.replica,
            follow=follow,
            tail_lines=request.tail_lines,
            since=request.since,
            until=request.until,
            timestamps=request.timestamps,
            previous=request.previous,
            stream=request.stream,
            include=request.include,
            exclude=request.exclude,
            limit_bytes=request.limit_bytes,
            resume=request.resume,
            current_only=request.current_only,
        )


def find_targets(context: Context, request: api.StreamLogsRequest) -> Targets:
    """What a request means; raises ``Invalid`` and ``NotFound``."""
    if request.container_id:
        raise Invalid.field("container_id", "is for a node's own address; here, name the workload")
    cluster = context.cache.cluster
    if request.label_selector:
        if request.name or request.replica:
            raise Invalid.field("label_selector", "takes the place of a name and a replica")
        selector = selector_of(request.label_selector)
        return Targets(fields.namespace_of(request.namespace), selector=selector)
    try:
        workload = find_workload(cluster, request.namespace, request.name)
    except NotFound as missing:
        space = fields.namespace_of(request.namespace)
        replica = _checked(request.replica)
        return Targets(space, fields.name_of(request.name), replica=replica, missing=missing)
    replica, gone = _checked(request.replica), None
    if replica:
        try:
            found = find_replicas(cluster, workload, replica)
        except NotFound as error:
            gone = error
        else:
            replica = replica if replica == str(found[0].ordinal) else found[0].id
    return Targets(workload.namespace, workload.name, workload.id, replica=replica, missing=gone)


def _checked(replica: str) -> str:
    if len(replica) > fields.MAX_REPLICA_CHARS or not (replica.isascii() and (replica or "x").isalnum()):
        raise Invalid.field("replica", "must be an ordinal such as 0, or the beginning of a replica's id")
    return replica.lower()
