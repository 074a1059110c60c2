"""The replica that a caller of Exec or Attach means."""

from __future__ import annotations

from cloudless.agent.lookup import find_living
from cloudless.agent.node import Node
from cloudless.agent.replica.life import Replica
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
    chosen = find_living(node.replicas, container_id=container_id, replica=replica)
    if not chosen.container_id:
        raise NotFound(f"replica {name_of(chosen)} does not run")
    return chosen


def name_of(replica: Replica) -> str:
    """As people call it; one that nobody assigned is called by its id."""
    assignment = replica.orders.assignment
    return f"{assignment.name}/{assignment.ordinal}" if assignment is not None else replica.id
