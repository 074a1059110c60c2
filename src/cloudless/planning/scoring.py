"""The score of a node for a replica: S = w_l*locality + w_r*reliability + w_c*cost
+ w_u*utilization_balance - w_n*network_penalty; the highest score wins.

Every term lies between 0 and 1:

- locality: the part of the affinity rules (by weight) whose replicas are near.
- reliability: 1 minus what the loss of this node or its domain would take: its share of
  the workload's replicas; with rules, the mean of that and the largest of its domain's
  share by each spread rule and the part of the anti-affinity rules (by weight) that it
  goes against.
- cost: how full the node would be, CPU and memory averaged. Full nodes are preferred
  (bin-packing), so that as few nodes as possible are in use.
- utilization_balance: 1 minus the distance between its CPU and memory use, so that
  neither is left over without the other.
- network_penalty: the distance to the replicas that affinity rules name: 0 within the
  zone, 0.5 within the region, 1 beyond.

By default, workloads are packed while the replicas of one workload are spread.
"""

from __future__ import annotations

from typing import NamedTuple

from cloudless.domain.node import NodeRecord
from cloudless.domain.usage import Demand, NodeRoom
from cloudless.planning.topology import Neighbourhood

W_LOCALITY = 2.0
W_RELIABILITY = 2.0
W_COST = 1.0
W_UTILIZATION_BALANCE = 0.25
W_NETWORK_PENALTY = 0.5


class Score(NamedTuple):
    """The terms of one node's score, unweighted."""

    locality: float
    reliability: float
    cost: float
    utilization_balance: float
    network_penalty: float

    @property
    def total(self) -> float:
        """The weighted sum.

        >>> Score(0.0, 1.0, 0.5, 1.0, 0.0).total
        2.75
        """
        return (
            W_LOCALITY * self.locality
            + W_RELIABILITY * self.reliability
            + W_COST * self.cost
            + W_UTILIZATION_BALANCE * self.utilization_balance
            - W_NETWORK_PENALTY * self.network_penalty
        )

    @property
    def terms(self) -> dict[str, float]:
        """All terms and the total by name, rounded for storing and showing."""
        locality, reliability, cost, balance, penalty = self
        return {
            "locality": round(locality, 4) if locality else 0.0,
            "reliability": round(reliability, 4) if reliability else 0.0,
            "cost": round(cost, 4) if cost else 0.0,
            "utilization_balance": round(balance, 4) if balance else 0.0,
            "network_penalty": round(penalty, 4) if penalty else 0.0,
            "total": round(self.total, 4),
        }


def score_of(room: NodeRoom, demand: Demand, own_share: float, near: Neighbourhood | None) -> Score:
    """Score one node; ``own_share`` is the part of the workload's replicas that it holds."""
    usage, node = room.usage, room.record
    cpu = min((usage.cpu_millicores + demand.cpu_millicores) * room.cpu_share, 1.0)
    memory = min((usage.memory_bytes + demand.memory_bytes) * room.memory_share, 1.0)
    cost, balance = (cpu + memory) / 2, 1.0 - abs(cpu - memory)
    if near is None:
        return Score(0.0, 1.0 - own_share, cost, balance, 0.0)
    exposure = (own_share + max(_against(node, near), *(one.share(node) for one in near.spread), 0.0)) / 2
    distance = max((one.distance(node) for one in near.affinity), default=0.0)
    return Score(_locality(node, near), 1.0 - exposure, cost, balance, distance)


def plain_total(room: NodeRoom, demand: Demand, own_share: float) -> float:
    """``score_of(...).total`` without nearness rules, for the search through all nodes."""
    usage = room.usage
    cpu = (usage.cpu_millicores + demand.cpu_millicores) * room.cpu_share
    memory = (usage.memory_bytes + demand.memory_bytes) * room.memory_share
    if cpu > 1.0:
        cpu = 1.0
    if memory > 1.0:
        memory = 1.0
    distance = cpu - memory if cpu > memory else memory - cpu
    return (
        W_RELIABILITY * (1.0 - own_share)
        + W_COST * (cpu + memory) / 2
        + W_UTILIZATION_BALANCE * (1.0 - distance)
    )


def _locality(node: NodeRecord, near: Neighbourhood) -> float:
    total = sum(one.rule.weight for one in near.affinity)
    return sum(one.rule.weight for one in near.affinity if one.near(node)) / total if total else 0.0


def _against(node: NodeRecord, near: Neighbourhood) -> float:
    total = sum(one.rule.weight for one in near.anti_affinity)
    return sum(one.rule.weight for one in near.anti_affinity if one.near(node)) / total if total else 0.0
