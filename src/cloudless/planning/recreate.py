"""RECREATE: all old replicas gone, then all new ones.

Replicas on lost nodes count as gone: they cannot be waited for. Those on disconnected
nodes are waited for until their nodes are back or lost. A pause does not stop it half
way: new replicas are made for the old ones that were stopped, since half way nothing serves.
"""

from __future__ import annotations

from cloudless.domain.rollout import Stage
from cloudless.planning.verbs import Move, Retire, Scene, Surge, bake


def step_recreate(scene: Scene) -> Move:
    """The next move, from the first stop to the end of the bake time."""
    census = scene.census
    stage = Stage.BAKE if scene.rollout.stage is Stage.BAKE else Stage.SURGE
    if census.old:
        if scene.hold and not any(not one.current for one in census.leaving):
            return Move()
        return Move((Retire(tuple(census.old), "before the new ones are made"),))
    if any(not one.current for one in census.leaving):
        return Move()
    births = scene.desired - len(census.new)
    if births > 0:
        return Move((Surge(births),))
    if scene.arrived:
        return bake(scene) or Move(stage=stage, done=True)
    return Move(stage=stage, until=scene.rollout.paused_until if stage is Stage.BAKE else None)
