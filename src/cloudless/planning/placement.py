"""A node for each replica that has none, or the reasons of all nodes against it.

The replicas of a plan are placed together: each sees what the ones before it reserved.
Without nearness rules one look at all nodes serves them all, because a placement
changes the score of one node only.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator

from cloudless.domain.node import NodePhase, NodeRecord
from cloudless.domain.revision import Revision
from cloudless.domain.status import Refusal
from cloudless.domain.usage import NodeUsage, demand_of
from cloudless.planning.announce import replica_event
from cloudless.planning.census import Standing
from cloudless.planning.draft import Draft
from cloudless.planning.filters import filters_for
from cloudless.planning.limits import MAX_EXPLAINED_REPLICAS, MAX_QUOTED, MAX_REFUSALS
from cloudless.planning.scoring import Score, score_of
from cloudless.planning.topology import neighbourhood

Refusals = dict[str, tuple[Refusal, ...]]
_Entry = tuple[float, str, str, Score]


def place_pending(draft: Draft, before: Refusals) -> Refusals:
    """Place the replicas that have no node; returns the refusals of those that found none.

    ``before`` are the refusals that were known, so that only changes become events.
    """
    waiting: dict[int, list[Standing]] = {}
    for one in draft.census.staying:
        if not one.record.node_id:
            waiting.setdefault(one.record.revision, []).append(one)
    refusals: Refusals = {}
    ledger = _Ledger(draft)
    for number in sorted(waiting):
        revision = _revision(draft, number)
        if revision is not None:
            refusals.update(_place_all(draft, _Search(ledger, revision), waiting[number], before))
    return refusals


def _place_all(draft: Draft, search: _Search, waiting: list[Standing], before: Refusals) -> Refusals:
    for position, one in enumerate(waiting):
        found = search.best()
        if found is None:
            return _explain(draft, search, waiting[position:], before)
        node, score = found
        record = one.record.replaced(
            node_id=node.id, placed_at=draft.now, score=score.terms, because=f"placed on {node.name}"
        )
        if not draft.change(record):
            break
        search.take(node)
        draft.scores[record.id] = record.score
        text = f"{one.title} placed on {node.name} (score {score.total:.2f})"
        draft.events.append(replica_event(record, draft.now, "ReplicaPlaced", text, node=node.name))
        draft.say(f"placed {one.title} on {node.name}")
    return {}


def _explain(draft: Draft, search: _Search, waiting: list[Standing], before: Refusals) -> Refusals:
    """The refusals of replicas that found no node; one event when they are news."""
    refusals, insecure = search.refusals()
    explained = waiting[:MAX_EXPLAINED_REPLICAS]
    if any(before.get(one.record.id) != refusals for one in explained):
        text = "; ".join(f"{refusal.node}: {refusal.reason}" for refusal in refusals)[:MAX_QUOTED]
        first, more = explained[0], len(waiting) - 1
        who = f"{first.title} and {more} more" if more else first.title
        event = (first.record, draft.now, "ReplicaUnplaceable", f"no node for {who}: {text}")
        draft.events.append(replica_event(*event, warning=True))
        if insecure:
            text = f"{first.title} is kept from running: {insecure}"
            draft.events.append(replica_event(first.record, draft.now, "SecurityRefused", text, warning=True))
        draft.say(f"no node for {who}")
    return {one.record.id: refusals for one in explained}


def _revision(draft: Draft, number: int) -> Revision | None:
    if number == draft.target.number:
        return draft.target
    return draft.cluster.revisions.get(draft.workload.id, {}).get(number)


class _Ledger:
    """What nodes have reserved, with what this plan adds."""

    def __init__(self, draft: Draft) -> None:
        self.draft = draft
        self.changed: dict[str, NodeUsage] = {}
        self.own = Counter(one.record.node_id for one in draft.census.staying if one.record.node_id)

    def usage(self, node_id: str) -> NodeUsage:
        """What is reserved on a node."""
        return self.changed.get(node_id) or self.draft.cluster.usage_of(node_id)


class _Search:
    """The nodes as replicas of one revision see them."""

    def __init__(self, ledger: _Ledger, revision: Revision) -> None:
        draft = ledger.draft
        self._ledger = ledger
        self._cluster = draft.cluster
        self._demand = demand_of(revision.spec)
        self._filters = filters_for(revision.spec, self._demand)
        self._checks = tuple(one.check for one in self._filters)
        self._replicas = max(draft.workload.spec.replicas, 1)
        near = neighbourhood(draft.cluster, draft.workload, revision.spec, revision.number, self._eligible)
        self._near = near if near else None
        self._heap: list[_Entry] | None = None

    def best(self) -> tuple[NodeRecord, Score] | None:
        """The node with the highest score, the first by name among equals; None when none fits."""
        if self._heap is None or self._near is not None:
            self._heap = list(self._scored(self._cluster.nodes.values()))
            heapq.heapify(self._heap)
        if not self._heap:
            return None
        _, _, node_id, score = self._heap[0]
        return self._cluster.nodes[node_id], score

    def take(self, node: NodeRecord) -> None:
        """Reserve one replica's demand on the node that ``best`` gave."""
        ledger = self._ledger
        usage = ledger.usage(node.id).copy()
        usage.add(self._demand)
        ledger.changed[node.id] = usage
        ledger.own[node.id] += 1
        if self._near is not None:
            self._near.take(node)
        elif self._heap:
            heapq.heappop(self._heap)
            for entry in self._scored((node,)):
                heapq.heappush(self._heap, entry)

    def refusals(self) -> tuple[tuple[Refusal, ...], str]:
        """Why each node was refused, by name, and the first of the security reasons."""
        nodes = self._cluster.nodes
        if not nodes:
            return (Refusal(node="", reason="no node has joined yet"),), ""
        found, insecure = [], ""
        for node in heapq.nsmallest(MAX_REFUSALS, nodes.values(), key=lambda node: (node.name, node.id)):
            reasons, security = self._reasons(node)
            insecure = insecure or (f"{node.name} {security}" if security else "")
            found.append(Refusal(node=node.name, reason=reasons))
        if len(nodes) > MAX_REFUSALS:
            found.append(Refusal(node="", reason=f"and {len(nodes) - MAX_REFUSALS} more nodes"))
        return tuple(found), insecure

    def _reasons(self, node: NodeRecord) -> tuple[str, str]:
        usage = self._ledger.usage(node.id)
        if node.phase is not NodePhase.READY:
            return self._checks[0](node, usage), ""
        said = [(one.check(node, usage), one.security) for one in self._filters]
        reasons = [reason for reason, _ in said if reason]
        security = next((reason for reason, secure in said if reason and secure), "")
        if self._near is not None and (reason := self._near.refusal(node)):
            reasons.append(reason)
        return "; ".join(reasons), security

    def _eligible(self) -> Iterator[NodeRecord]:
        """Nodes that the specification allows, were they empty: the domains that spread counts."""
        for node in self._cluster.nodes.values():
            empty = NodeUsage()
            if not any(check(node, empty) for check in self._checks):
                yield node

    def _scored(self, nodes: Iterable[NodeRecord]) -> Iterator[_Entry]:
        near, own, demand, checks = self._near, self._ledger.own, self._demand, self._checks
        for node in nodes:
            usage = self._ledger.usage(node.id)
            for check in checks:
                if check(node, usage):
                    break
            else:
                if near is None or not near.refusal(node):
                    score = score_of(node, usage, demand, own[node.id] / self._replicas, near)
                    yield -round(score.total, 9), node.name, node.id, score
