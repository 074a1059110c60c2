"""GetNode and ListNodes."""

from __future__ import annotations

from cloudless import api
from cloudless.coordinator.services import fields
from cloudless.coordinator.services.context import Context
from cloudless.coordinator.services.lookup import find_node
from cloudless.coordinator.services.paging import Position
from cloudless.coordinator.services.reading import snapshot_for
from cloudless.domain.cluster import Cluster
from cloudless.domain.node import NodeRecord
from cloudless.domain.replica import ENDED
from cloudless.domain.resources import ResourceList
from cloudless.domain.selector import selector_of
from cloudless.wire.objects import node_to_wire


async def get_node(context: Context, request: api.GetNodeRequest) -> api.GetNodeResponse:
    """One node by name or id; raises ``NotFound``."""
    cluster = context.cache.cluster
    return api.GetNodeResponse(node=_shown(context, cluster, find_node(cluster, request.name)))


async def list_nodes(context: Context, request: api.ListNodesRequest) -> api.ListNodesResponse:
    """A page of nodes by name."""
    selector = selector_of(request.label_selector)
    size = fields.page_size_of(request.page_size)
    scope = ("ListNodes", request.label_selector)
    position = context.tokens.read(request.page_token, *scope)
    snapshot = await snapshot_for(context, position)
    cluster = snapshot.cluster
    nodes = [
        record
        for record in sorted(cluster.nodes.values(), key=_key)
        if selector.matches(record.facts.labels) and (position is None or _key(record) > position.after)
    ]
    response = api.ListNodesResponse(nodes=[_shown(context, cluster, record) for record in nodes[:size]])
    if len(nodes) > size:
        context.snapshots.keep(snapshot)
        token = Position(snapshot.revision, _key(nodes[size - 1]))
        response.next_page_token = context.tokens.write(token, *scope)
    return response


def _key(record: NodeRecord) -> tuple[str, ...]:
    return record.name, record.id


def _shown(context: Context, cluster: Cluster, record: NodeRecord) -> api.Node:
    reserved, count = ResourceList(), 0
    for replica in cluster.replicas_on(record.id):
        count += 1
        seen = cluster.observations.get(replica.id)
        revision = cluster.revision_of(replica)
        if revision is not None and (seen is None or seen.phase not in ENDED):
            reserved += revision.spec.resources.reserved
    linked = context.nodes.session_of(record.id) == record.session != ""
    seen_at = context.clock.now() if linked else record.changed_at
    return node_to_wire(record, reserved, count, seen_at)
