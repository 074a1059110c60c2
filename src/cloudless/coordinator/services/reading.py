"""GetWorkload, ListWorkloads, ListReplicas, ListRevisions, GetInfo."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator

import cloudless
from cloudless import api
from cloudless.coordinator.limits import MAX_PAGE_BYTES
from cloudless.coordinator.services import fields
from cloudless.coordinator.services.context import Context
from cloudless.coordinator.services.lookup import find_node, find_workload
from cloudless.coordinator.services.paging import Position
from cloudless.coordinator.state.snapshots import Snapshot
from cloudless.domain.cluster import Cluster
from cloudless.domain.node import NodePhase
from cloudless.domain.selector import selector_of
from cloudless.domain.workload import WorkloadRecord
from cloudless.planning.status import ReplicaView, view_workload
from cloudless.transport.codec import Encoded, concat_repeated, encode
from cloudless.wire.objects import replica_to_wire
from cloudless.wire.rollouts import revision_to_wire


async def get_workload(context: Context, request: api.GetWorkloadRequest) -> api.GetWorkloadResponse:
    """One workload by name or id; raises ``NotFound``."""
    record = find_workload(context.cache.cluster, request.namespace, request.name)
    workload = Encoded(context.views.encoded(record.id), api.Workload)
    return api.GetWorkloadResponse(workload=workload)  # type: ignore[arg-type]


async def snapshot_for(context: Context, position: Position | None) -> Snapshot:
    """What a page is read from: the live facts, or those of the first page."""
    if position is None or position.revision == context.cache.revision:
        return context.snapshots.live()
    return await context.snapshots.at(position.revision)


async def list_workloads(context: Context, request: api.ListWorkloadsRequest) -> Encoded:
    """A page of workloads by namespace and name, all pages of one revision."""
    namespace = fields.any_namespace_of(request.namespace)
    selector = selector_of(request.label_selector)
    size = fields.page_size_of(request.page_size)
    scope = ("ListWorkloads", namespace, request.label_selector)
    position = context.tokens.read(request.page_token, *scope)
    snapshot = await snapshot_for(context, position)
    pages: list[bytes] = []
    last, more, size_bytes = ("", ""), False, 0
    for name in _names_after(snapshot, position, namespace):
        record = snapshot.cluster.workload_named(*name)
        if record is None or not selector.matches(record.labels):
            continue
        if len(pages) >= size or size_bytes > MAX_PAGE_BYTES:
            more = True
            break
        pages.append(context.views.encoded_in(snapshot, record.id))
        size_bytes += len(pages[-1])
        last = name
    tail = api.ListWorkloadsResponse(resource_version=str(snapshot.revision))
    if more:
        context.snapshots.keep(snapshot)
        tail.next_page_token = context.tokens.write(Position(snapshot.revision, last), *scope)
    return concat_repeated(1, pages, api.ListWorkloadsResponse, tail=encode(tail))


def _names_after(snapshot: Snapshot, position: Position | None, namespace: str) -> Iterator[tuple[str, str]]:
    names = snapshot.names
    after = (position.after[0], position.after[1]) if position is not None else (namespace, "")
    for name in names[bisect_right(names, after) :]:
        if namespace and name[0] != namespace:
            return
        yield name


async def list_replicas(context: Context, request: api.ListReplicasRequest) -> api.ListReplicasResponse:
    """A page of replicas by namespace, workload and ordinal."""
    namespace = fields.any_namespace_of(request.namespace)
    name = fields.optional_name_of(request.name)
    size = fields.page_size_of(request.page_size)
    scope = ("ListReplicas", namespace, name, request.node)
    position = context.tokens.read(request.page_token, *scope)
    snapshot = await snapshot_for(context, position)
    node_id = find_node(snapshot.cluster, request.node, "node").id if request.node else ""
    page: list[ReplicaView] = []
    more = False
    for view in _replicas_after(context, snapshot, position, (namespace, name)):
        if node_id and view.record.node_id != node_id:
            continue
        if len(page) >= size:
            more = True
            break
        page.append(view)
    response = api.ListReplicasResponse(replicas=[replica_to_wire(view) for view in page])
    if more:
        context.snapshots.keep(snapshot)
        token = Position(snapshot.revision, _replica_key(page[-1]))
        response.next_page_token = context.tokens.write(token, *scope)
    return response


def _replicas_after(
    context: Context, snapshot: Snapshot, position: Position | None, where: tuple[str, str]
) -> Iterator[ReplicaView]:
    now = context.clock.now()
    for record in _workloads_from(snapshot, position, where):
        views = view_workload(snapshot.cluster, record.id, now).replicas
        for view in sorted(views, key=_replica_key):
            if position is None or _replica_key(view) > position.after:
                yield view


def _workloads_from(
    snapshot: Snapshot, position: Position | None, where: tuple[str, str]
) -> Iterator[WorkloadRecord]:
    namespace, name = where
    if name:
        yield find_workload(snapshot.cluster, namespace, name)
        return
    for key in snapshot.names:
        if (not namespace or key[0] == namespace) and (position is None or key >= position.after[:2]):
            record = snapshot.cluster.workload_named(*key)
            if record is not None:
                yield record


def _replica_key(view: ReplicaView) -> tuple[str, ...]:
    record = view.record
    return record.namespace, record.name, f"{record.ordinal:010d}", record.id


async def list_revisions(context: Context, request: api.ListRevisionsRequest) -> api.ListRevisionsResponse:
    """The revisions of a workload that are kept, newest first."""
    cluster = context.cache.cluster
    record = find_workload(cluster, request.namespace, request.name)
    return api.ListRevisionsResponse(revisions=revisions_of(cluster, record)[::-1])


def revisions_of(cluster: Cluster, record: WorkloadRecord) -> list[api.Revision]:
    """The revisions that are kept, oldest first, each with what it changed."""
    status = cluster.statuses.get(record.id)
    rollout = status.rollout if status is not None else None
    kept = [revision for _, revision in sorted(cluster.revisions.get(record.id, {}).items())]
    return [
        revision_to_wire(one, before, rollout) for before, one in zip([None, *kept[:-1]], kept, strict=True)
    ]


async def get_info(context: Context, request: api.GetInfoRequest) -> api.GetInfoResponse:
    """What this coordinator is."""
    nodes = context.cache.cluster.nodes.values()
    return api.GetInfoResponse(
        version=cloudless.__version__,
        store=context.about.store,
        leader=context.leading(),
        nodes_ready=sum(node.phase is NodePhase.READY for node in nodes),
        nodes=len(nodes),
        started_at=context.about.started_at,
        cluster_id=context.about.cluster_id,
    )
