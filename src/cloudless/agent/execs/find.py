"""The replica that a caller of Exec or Attach means."""

from __future__ import annotations

from cloudless.agent.lookup import find
from cloudless.agent.node import Node
from cloudless.agent.replica.life import Replica
from cloudless.agent.replica.start import container_id_of
from cloudless.domain.errors import Invalid, NotFound


async def find_replica(node: Node, container_id: str, replica: str, name: str, field: str) -> Replica:
    """One that has a container. ``field`` holds the others.

    Raises ``Invalid``, ``NotFound``, and ``Unavailable`` from a node that has just started.
    """
    if name:
        raise Invalid.field(
            f"{field}.name", "a node knows replicas and containers, not workloads: ask the coordinator"
        )
    return await node.found(lambda: _find(node, container_id, replica))


def _find(node: Node, container_id: str, replica: str) -> Replica:
    replicas = node.replicas
    containers = {one.container_id for one in replicas.values() if one.container_id}
    found = find(container_id=container_id, replica=replica, containers=containers, replicas=replicas)
    chosen = replicas[found.replica_id]
    if found.attempt is not None and chosen.container_id != container_id_of(found.replica_id, found.attempt):
        raise NotFound(f"container {container_id} does not run")
    if not chosen.container_id:
        raise NotFound(f"replica {name_of(chosen)} does not run")
    return chosen


def name_of(replica: Replica) -> str:
    """As people call it; one that nobody assigned is called by its id."""
    assignment = replica.orders.assignment
    return f"{assignment.name}/{assignment.ordinal}" if assignment is not None else replica.id
