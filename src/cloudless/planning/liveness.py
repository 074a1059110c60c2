"""Which nodes can be given work, which are out of reach, which are given up.

A node whose connection breaks is DISCONNECTED at once: its replicas are believed to run
on, shown as unknown, and not replaced. After a grace it is LOST and they are replaced.
The coordinator's own absence is no fault of a node: after a start, nodes get a moment
to dial in before they count as disconnected, and no grace begins before that start.
"""

from __future__ import annotations

import datetime
from collections.abc import Collection

from cloudless.domain.cluster import Cluster
from cloudless.domain.event import Event
from cloudless.domain.node import NodePhase, NodeRecord
from cloudless.domain.plan import Plan, PutNode
from cloudless.planning.announce import node_event
from cloudless.planning.limits import (
    LOST_GRACE_CAP_S,
    LOST_GRACE_PER_NODE_S,
    LOST_GRACE_S,
    MAX_REPLICA_CHANGES,
    RECONNECT_GRACE_S,
)

_CONNECTED = frozenset({NodePhase.READY, NodePhase.NOT_READY})
_REASONS = {
    NodePhase.READY: "NodeReady",
    NodePhase.NOT_READY: "NodeNotReady",
    NodePhase.DISCONNECTED: "NodeDisconnected",
    NodePhase.LOST: "NodeLost",
}


def lost_grace(nodes: int) -> datetime.timedelta:
    """How long a node of a cluster of ``nodes`` may be out of reach before it is lost.

    >>> lost_grace(1).total_seconds(), lost_grace(1000).total_seconds(), lost_grace(5000).total_seconds()
    (3.0, 10.0, 30.0)
    """
    return datetime.timedelta(seconds=min(max(LOST_GRACE_S, nodes * LOST_GRACE_PER_NODE_S), LOST_GRACE_CAP_S))


def plan_nodes(
    cluster: Cluster,
    live_sessions: Collection[str],
    now: datetime.datetime,
    *,
    since: datetime.datetime | None = None,
) -> Plan:
    """The new phases of all nodes; ``live_sessions`` are the connections that are up now.

    ``since`` is when this coordinator began to accept connections. ``wake_at`` of the
    plan is when time alone changes a phase.
    """
    grace = lost_grace(len(cluster.nodes))
    actions: list[PutNode] = []
    events: list[Event] = []
    wakes: list[datetime.datetime] = []
    for node in sorted(cluster.nodes.values(), key=lambda node: node.id):
        phase, message, wake_at = _judge(node, live_sessions, now, since, grace)
        if wake_at is not None:
            wakes.append(wake_at)
        if (phase, message) == (node.phase, node.message):
            continue
        if len(actions) == MAX_REPLICA_CHANGES:
            wakes.append(now)
            break
        if phase is node.phase:
            actions.append(PutNode(node.replaced(message=message)))
            continue
        actions.append(PutNode(node.replaced(phase=phase, message=message, changed_at=now)))
        text = f"node {node.name} is {phase.lower().replace('_', ' ')}{': ' + message if message else ''}"
        events.append(node_event(node, now, _REASONS[phase], text, warning=phase is not NodePhase.READY))
    because = "; ".join(event.message for event in events[:3])
    return Plan(tuple(actions), tuple(events), min(wakes, default=None), because)


def _judge(
    node: NodeRecord,
    live_sessions: Collection[str],
    now: datetime.datetime,
    since: datetime.datetime | None,
    grace: datetime.timedelta,
) -> tuple[NodePhase, str, datetime.datetime | None]:
    """The phase and message of one node, and when to look again."""
    if node.session and node.session in live_sessions:
        if node.facts.not_ready:
            return NodePhase.NOT_READY, node.facts.not_ready, None
        return NodePhase.READY, "", None
    if node.phase is NodePhase.LOST:
        return node.phase, node.message, None
    if node.phase in _CONNECTED:
        believed_until = since + datetime.timedelta(seconds=RECONNECT_GRACE_S) if since else now
        if now < believed_until:
            return node.phase, node.message, believed_until
        return (
            NodePhase.DISCONNECTED,
            "its connection is broken; its replicas are believed to run on",
            (now + grace),
        )
    lost_at = max(node.changed_at, since or node.changed_at) + grace
    if now < lost_at:
        return node.phase, node.message, lost_at
    return NodePhase.LOST, f"out of reach for {(now - node.changed_at).total_seconds():.1f} s", None
