"""Notices that an image's tag has come to mean another image on this node.

A replica runs the digest of its revision, whatever the tag means. That the two differ is
part of its observation, so that people hear of it; what follows is theirs to decide.
"""

from __future__ import annotations

from cloudless.agent.node import Node
from cloudless.agent.runtime.port import Runtime
from cloudless.domain.errors import CloudlessError
from cloudless.domain.replica import ReplicaPhase


async def compare_tags(node: Node, runtime: Runtime) -> None:
    """Look at every running replica's tag; what cannot be looked at stays as it was said."""
    for replica_id, replica in tuple(node.replicas.items()):
        assignment, seen = node.assignments.get(replica_id), replica.seen
        if assignment is None or seen.phase is not ReplicaPhase.RUNNING or "@" in assignment.spec.image:
            continue
        try:
            image = await runtime.resolve(assignment.spec.image)
        except CloudlessError:
            continue
        runs = seen.progress.image_digest
        seen.note_tag(image.digest if runs and image.digest != runs else "")
