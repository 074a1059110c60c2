"""Where replicas may run, as the user says it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from cloudless.domain.model import Model
from cloudless.domain.names import Labels
from cloudless.domain.selector import SelectorText

Topology = Literal["node", "zone", "region"]
Place = Annotated[
    str, StringConstraints(strict=True, min_length=1, max_length=63, pattern=r"^[A-Za-z0-9._-]+$")
]


class AffinityRule(Model):
    """Nearness to (or distance from) replicas of workloads whose labels match."""

    selector: SelectorText = Field(description="Label selector over workloads, for example app=web.")
    topology: Topology = Field(
        default="node", description="What counts as near: the same node, zone or region."
    )
    required: bool = Field(default=False, description="Refuses nodes instead of changing their score.")
    weight: Annotated[int, Field(strict=True, ge=1, le=100)] = Field(
        default=1, description="Weight in the score."
    )


class Toleration(Model):
    """Lets replicas onto nodes with a matching taint."""

    key: str = Field(default="", description="Key of the taint; empty tolerates every taint.")
    value: str = Field(default="", description="Value of the taint; empty tolerates every value.")
    effect: Literal["", "no_schedule", "no_execute"] = Field(default="", description="Empty means both.")

    def tolerates(self, key: str, value: str, effect: str) -> bool:
        """Whether this lets a replica onto a node with the given taint."""
        return self.key in ("", key) and self.value in ("", value) and self.effect in ("", effect)


class SpreadRule(Model):
    """Keeps replicas of the workload evenly over nodes, zones or regions."""

    topology: Topology = "zone"
    max_skew: Annotated[int, Field(strict=True, ge=1, le=10000)] = Field(
        default=1, description="Largest allowed difference between two domains."
    )
    required: bool = Field(default=False, description="Refuses nodes instead of changing their score.")


class Placement(Model):
    """Filters and wishes for the choice of nodes."""

    regions: tuple[Place, ...] = Field(default=(), max_length=64)
    zones: tuple[Place, ...] = Field(default=(), max_length=64)
    node_selector: Labels = {}
    affinity: tuple[AffinityRule, ...] = Field(default=(), max_length=32)
    anti_affinity: tuple[AffinityRule, ...] = Field(default=(), max_length=32)
    tolerations: tuple[Toleration, ...] = Field(default=(), max_length=64)
    spread_topology: tuple[SpreadRule, ...] = Field(default=(), max_length=3)
