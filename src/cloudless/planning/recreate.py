"""RECREATE: all old replicas gone, then all new ones.

Replicas on lost nodes count as gone: they cannot be waited for. Those on disconnected
nodes are waited for until their nodes are back or lost.
"""

from __future__ import annotations

from cloudless.planning.census import Census
from cloudless.planning.rolling import Step


def step_recreate(census: Census, desired: int) -> Step:
    """The next step while replicas of an older template are there."""
    if census.old:
        return Step(stops=tuple(census.old), because=f"recreate: {len(census.old)} old replicas to stop")
    if any(not one.current for one in census.leaving):
        return Step()
    return Step(births=max(0, desired - len(census.new)))
