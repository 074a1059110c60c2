"""A node for each replica that has none, or the reasons of all nodes against it.

The replicas of a plan are placed together: each sees what the ones before it reserved.
Without nearness rules one look at all nodes serves them all, because a placement
changes the score of one node only.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator

from cloudless.domain.node import NodeRecord
from cloudless.domain.revision import Revision
from cloudless.domain.status import Refusal
from cloudless.domain.usage import NodeRoom, demand_of
from cloudless.planning.announce import replica_event
from cloudless.planning.census import Standing
from cloudless.planning.draft import Draft
from cloudless.planning.filters import filters_for
from cloudless.planning.limits import MAX_EXPLAINED_REPLICAS, MAX_QUOTED, MAX_REFUSALS
from cloudless.planning.scoring import Score, plain_total, score_of
from cloudless.planning.topology import neighbourhood

Refusals = dict[str, tuple[Refusal, ...]]
_Entry = tuple[float, str, str, NodeRoom]


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
        revision = draft.revisions.get(number)
        if revision is not None:
            refusals.update(_place_all(draft, _Search(ledger, revision), waiting[number], before))
    return refusals


def _place_all(draft: Draft, search: _Search, waiting: list[Standing], before: Refusals) -> Refusals:
    for position, one in enumerate(waiting):
        found = search.best()
        if found is None:
            return _explain(draft, search, waiting[position:], before)
        room, score = found
        where, title = f"placed on {room.name}", one.title
        record = one.record.replaced(node_id=room.id, placed_at=draft.now, score=score.terms, because=where)
        if not draft.change(record):
            break
        search.take(room)
        draft.scores[record.id] = record.score
        text = f"{title} {where} (score {score.total:.2f})"
        draft.events.append(replica_event(record, draft.now, "ReplicaPlaced", text, node=room.name))
        draft.say(f"placed {title} on {room.name}")
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


class _Ledger:
    """What this plan adds to what nodes have reserved."""

    def __init__(self, draft: Draft) -> None:
        self.draft = draft
        self.changed: dict[str, NodeRoom] = {}
        self.own = Counter(one.record.node_id for one in draft.census.staying if one.record.node_id)

    def rooms(self) -> Iterator[NodeRoom]:
        """The room on each node, with what this plan takes."""
        changed, rooms = self.changed, self.draft.cluster.rooms()
        if not changed:
            return rooms
        return (changed.get(room.id, room) for room in rooms)


class _Search:
    """The nodes as replicas of one revision see them."""

    def __init__(self, ledger: _Ledger, revision: Revision) -> None:
        draft = ledger.draft
        self._ledger = ledger
        self._cluster = draft.cluster
        self._demand = demand_of(revision.spec, f"{draft.workload.namespace}/{draft.workload.name}")
        self._filters = filters_for(revision.spec, self._demand)
        self._static = [one.check for one in self._filters if one.static]
        self._allowed: dict[int, bool] = {}
        self._replicas = max(draft.workload.spec.replicas, 1)
        near = neighbourhood(draft.cluster, draft.workload, revision.spec, revision.number, self._eligible)
        self._near = near if near else None
        self._heap: list[_Entry] | None = None

    def best(self) -> tuple[NodeRoom, Score] | None:
        """The room with the highest score, the first by name among equals; None when none fits."""
        if self._heap is None or self._near is not None:
            self._heap = list(self._scored(self._ledger.rooms()))
            heapq.heapify(self._heap)
        if not self._heap:
            return None
        room = self._heap[0][-1]
        return room, score_of(room, self._demand, self._own_share(room.id), self._near)

    def take(self, room: NodeRoom) -> None:
        """Reserve one replica's demand in the room that ``best`` gave."""
        ledger, left = self._ledger, room.with_one_more(self._demand)
        ledger.changed[room.id] = left
        ledger.own[room.id] += 1
        if self._near is not None:
            self._near.take(room.record)
        elif self._heap:
            entry = next(self._scored((left,)), None)
            if entry is None:
                heapq.heappop(self._heap)
            else:
                heapq.heapreplace(self._heap, entry)

    def refusals(self) -> tuple[tuple[Refusal, ...], str]:
        """Why each node was refused, by name, and the first of the security reasons."""
        rooms = list(self._ledger.rooms())
        if not rooms:
            return (Refusal(node="", reason="no node has joined yet"),), ""
        found, insecure = [], ""
        for room in heapq.nsmallest(MAX_REFUSALS, rooms, key=lambda room: (room.name, room.id)):
            reasons, security = self._reasons(room)
            insecure = insecure or (f"{room.record.name} {security}" if security else "")
            found.append(Refusal(node=room.record.name, reason=reasons))
        if len(rooms) > MAX_REFUSALS:
            found.append(Refusal(node="", reason=f"and {len(rooms) - MAX_REFUSALS} more nodes"))
        return tuple(found), insecure

    def _reasons(self, room: NodeRoom) -> tuple[str, str]:
        node, usage = room.record, room.usage
        if not room.ready:
            return self._filters[0].check(node, usage), ""
        said = [(one.check(node, usage), one.security) for one in self._filters]
        reasons = [reason for reason, _ in said if reason]
        security = next((reason for reason, secure in said if reason and secure), "")
        if self._near is not None and (reason := self._near.refusal(node)):
            reasons.append(reason)
        return "; ".join(reasons), security

    def _eligible(self) -> Iterator[NodeRecord]:
        """Ready nodes that the specification allows: the domains that spread counts."""
        return (room.record for room in self._cluster.rooms() if room.ready and self._allows(room))

    def _allows(self, room: NodeRoom) -> bool:
        """Whether the specification allows nodes of this kind; asked once for each kind."""
        allowed = self._allowed.get(room.kind)
        if allowed is None:
            allowed = not any(check(room.record, room.usage) for check in self._static)
            self._allowed[room.kind] = allowed
        return allowed

    def _own_share(self, node_id: str) -> float:
        return self._ledger.own.get(node_id, 0) / self._replicas

    def _scored(self, rooms: Iterable[NodeRoom]) -> Iterator[_Entry]:
        near, demand, own = self._near, self._demand, self._ledger.own
        allowed = self._allowed
        for room in rooms:
            if not room.ready or not room.fits(demand):
                continue
            if not allowed.get(room.kind) and not self._allows(room):
                continue
            share = own[room.id] / self._replicas if room.id in own else 0.0
            if near is None:
                total = plain_total(room, demand, share)
            elif near.refusal(room.record):
                continue
            else:
                total = score_of(room, demand, share, near).total
            yield -round(total, 9), room.name, room.id, room
