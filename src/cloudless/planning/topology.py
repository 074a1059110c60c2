"""Nearness to other replicas: affinity, anti-affinity and spread over nodes, zones, regions.

Each rule is counted once per plan and kept up to date while the plan places replicas,
so that each sees the ones before it. Required rules refuse nodes with a sentence; the
others change the score's terms (``scoring``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from cloudless.domain.cluster import Cluster
from cloudless.domain.node import NodeRecord
from cloudless.domain.placement import AffinityRule, SpreadRule, Topology
from cloudless.domain.replica import ReplicaRecord
from cloudless.domain.selector import parse_selector
from cloudless.domain.workload import WorkloadRecord, WorkloadSpec

Domain = tuple[str, ...]


def domain_of(node: NodeRecord, topology: Topology) -> Domain:
    """What counts as one place: a node, a zone of a region, a region."""
    facts = node.facts
    if topology == "node":
        return (facts.id,)
    return (facts.region, facts.zone) if topology == "zone" else (facts.region,)


@dataclass(slots=True)
class Rule:
    """One affinity rule with the number of matching replicas in each domain."""

    rule: AffinityRule
    #: The replicas that are being placed match the rule themselves.
    own: bool
    counts: Counter[Domain] = field(default_factory=Counter)
    #: Zones and regions with matching replicas.
    zones: set[Domain] = field(default_factory=set)
    regions: set[Domain] = field(default_factory=set)

    def add(self, node: NodeRecord) -> None:
        """Count one matching replica on ``node``."""
        self.counts[domain_of(node, self.rule.topology)] += 1
        self.zones.add(domain_of(node, "zone"))
        self.regions.add(domain_of(node, "region"))

    def distance(self, node: NodeRecord) -> float:
        """How far the nearest match is: 0 in the zone, 0.5 in the region, 1 beyond; 0 without any."""
        if not self.counts or domain_of(node, "zone") in self.zones:
            return 0.0
        return 0.5 if domain_of(node, "region") in self.regions else 1.0

    def near(self, node: NodeRecord) -> bool:
        """Whether matching replicas are in the node's domain."""
        return self.counts[domain_of(node, self.rule.topology)] > 0


@dataclass(slots=True)
class Spread:
    """One spread rule with the replicas of this revision in each domain that may be used."""

    rule: SpreadRule
    counts: Counter[Domain] = field(default_factory=Counter)
    #: Replicas in the emptiest domain; counted when asked for.
    least: int | None = None

    def add(self, domain: Domain) -> None:
        """Count one replica in ``domain``."""
        self.counts[domain] += 1
        self.least = None

    def skew(self, node: NodeRecord) -> int:
        """How far the node's domain would be above the emptiest one, with one more replica."""
        if self.least is None:
            self.least = min(self.counts.values(), default=0)
        return self.counts[domain_of(node, self.rule.topology)] + 1 - self.least

    def share(self, node: NodeRecord) -> float:
        """The part of all replicas that is in the node's domain, 0 to 1."""
        total = self.counts.total()
        return self.counts[domain_of(node, self.rule.topology)] / total if total else 0.0


@dataclass(slots=True)
class Neighbourhood:
    """All rules of one specification, counted."""

    affinity: list[Rule]
    anti_affinity: list[Rule]
    spread: list[Spread]

    def __bool__(self) -> bool:
        return bool(self.affinity or self.anti_affinity or self.spread)

    def refusal(self, node: NodeRecord) -> str:
        """Why a required rule refuses the node; empty when none does."""
        for one in self.affinity:
            nobody = one.own and not one.counts
            if one.rule.required and not one.near(node) and not nobody:
                return f"no replica of {one.rule.selector} is on its {one.rule.topology}"
        for one in self.anti_affinity:
            if one.rule.required and one.near(node):
                return f"a replica of {one.rule.selector} is on its {one.rule.topology}"
        for spread in self.spread:
            if spread.rule.required and spread.skew(node) > spread.rule.max_skew:
                where, most = spread.rule.topology, spread.rule.max_skew
                return (
                    f"its {where} would hold {spread.skew(node)} replicas more than another, {most} allowed"
                )
        return ""

    def take(self, node: NodeRecord) -> None:
        """Count a replica that was placed on ``node``."""
        for one in self.affinity + self.anti_affinity:
            if one.own:
                one.add(node)
        for spread in self.spread:
            spread.add(domain_of(node, spread.rule.topology))


def neighbourhood(
    cluster: Cluster,
    workload: WorkloadRecord,
    spec: WorkloadSpec,
    revision: int,
    eligible: Callable[[], Iterable[NodeRecord]],
) -> Neighbourhood:
    """Count the rules of ``spec``; spread looks at the domains of ``eligible`` nodes only.

    Only replicas of the same revision are spread against each other: the older ones
    are on their way out, and would leave a skew behind.
    """
    placement = spec.placement
    affinity = [_rule(cluster, workload, rule) for rule in placement.affinity]
    anti_affinity = [_rule(cluster, workload, rule) for rule in placement.anti_affinity]
    spread = [Spread(rule) for rule in placement.spread_topology]
    if spread:
        nodes = list(eligible())
        placed = [one for one in cluster.replicas_of(workload.id) if one.revision == revision]
        for one in spread:
            one.counts.update({domain_of(node, one.rule.topology): 0 for node in nodes})
            for node in _nodes_of(cluster, placed):
                one.add(domain_of(node, one.rule.topology))
    return Neighbourhood(affinity, anti_affinity, spread)


def _rule(cluster: Cluster, workload: WorkloadRecord, rule: AffinityRule) -> Rule:
    selector = parse_selector(rule.selector)
    found = Rule(rule, selector.matches(workload.labels))
    for other in cluster.workloads.values():
        if other.namespace == workload.namespace and selector.matches(other.labels):
            for node in _nodes_of(cluster, cluster.replicas_of(other.id)):
                found.add(node)
    return found


def _nodes_of(cluster: Cluster, replicas: Iterable[ReplicaRecord]) -> Iterator[NodeRecord]:
    """The nodes of the replicas that are to run, once for each."""
    for replica in replicas:
        node = cluster.nodes.get(replica.node_id)
        if node is not None and replica.run:
            yield node
