"""What a node says becomes facts: one transaction for each message, checked first.

A node writes its own record, observations of replicas that are placed on it, and events
about itself; nothing else. Each transaction holds only as long as the node's record
still names this session, so a session that was replaced writes nothing more. Phases move
along the table of the domain only; an old version never replaces a newer one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

from cloudless import api
from cloudless.aio.backoff import Backoff
from cloudless.aio.clock import Clock
from cloudless.coordinator.limits import (
    CATCH_UP_S,
    MAX_REPORT_ITEMS,
    MAX_REPORT_WRITES,
    REPORT_RETRY_BASE_S,
    REPORT_RETRY_CAP_S,
)
from cloudless.coordinator.nodes import Hello
from cloudless.coordinator.state import keys
from cloudless.coordinator.state.cache import WatchCache
from cloudless.coordinator.state.typed import Batch, TypedStore
from cloudless.domain.cluster import Cluster
from cloudless.domain.errors import Conflict, Invalid, Unavailable
from cloudless.domain.event import Event
from cloudless.domain.node import NodeFacts, NodePhase, NodeRecord
from cloudless.domain.replica import TRANSITIONS, Observation, ReplicaPhase
from cloudless.store.port import KeyValue
from cloudless.wire.link import event_from_wire, facts_from_wire, observation_from_wire

log = logging.getLogger(__name__)

Write = Callable[[Batch], None]


def _reachable() -> dict[ReplicaPhase, frozenset[ReplicaPhase]]:
    """Phases that may be seen after each: a node may skip some, it sends only the latest.

    UNKNOWN is the coordinator's own word and no way from one phase to another.
    """
    reach = {phase: set(following) | {phase} for phase, following in TRANSITIONS.items()}
    for middle in ReplicaPhase:
        for phase, following in reach.items():
            if middle in following and ReplicaPhase.UNKNOWN not in (middle, phase):
                following |= reach[middle]
    return {phase: frozenset(found - {ReplicaPhase.UNKNOWN}) for phase, found in reach.items()}


REACHABLE = _reachable()


class Inbox:
    """Stores the messages of one link, in order."""

    def __init__(
        self,
        typed: TypedStore,
        cache: WatchCache,
        hello: Hello,
        clock: Clock,
        new_id: Callable[[], str],
        look_again: Callable[[list[str]], None],
    ) -> None:
        self._typed = typed
        self._cache = cache
        self._hello = hello
        self._clock = clock
        self._new_id = new_id
        self._look_again = look_again

    async def store(self, message: api.SynchronizeResponse) -> None:
        """Return when everything in ``message`` is durable.

        Raises ``Invalid`` for a message that no agent of ours sends, and ``Conflict`` when
        another session speaks for the node by now.
        """
        items = len(message.replicas) + len(message.removed) + len(message.events)
        if items > MAX_REPORT_ITEMS:
            raise Invalid(f"a report of {items} items; at most {MAX_REPORT_ITEMS} are taken")
        events = [event_from_wire(event) for event in message.events]
        observations = [observation_from_wire(seen, self._hello.node_id) for seen in message.replicas]
        facts = None if message.node is None else self._checked(facts_from_wire(message.node))
        pause = Backoff(base_s=REPORT_RETRY_BASE_S, cap_s=REPORT_RETRY_CAP_S)
        stored = False
        while not stored:
            try:
                stored = await self._store(facts, observations, list(message.removed), message.whole, events)
            except Unavailable as error:
                # Repeating is safe: what is stored already is older than nothing and skipped.
                log.warning("report not stored yet", extra={"node": self._hello.node_id, "why": str(error)})
                await self._clock.sleep(pause.next())

    async def _store(
        self,
        facts: NodeFacts | None,
        observations: list[Observation],
        removed: list[str],
        whole: bool,
        events: list[Event],
    ) -> bool:
        """One try, in as many transactions as it takes; False when a compare failed."""
        cluster = self._cache.cluster
        writes = [*self._node(cluster, facts)]
        writes += [write for seen in observations for write in self._observed(cluster, seen)]
        gone = [*removed, *(self._missing(cluster, observations) if whole else ())]
        writes += [write for replica_id in dict.fromkeys(gone) for write in self._gone(cluster, replica_id)]
        writes += [self._event(event) for event in events]
        for start in range(0, len(writes), MAX_REPORT_WRITES):
            batch = self._typed.batch()
            self._compare(batch, keys.node(self._hello.node_id))
            for write in writes[start : start + MAX_REPORT_WRITES]:
                write(batch)
            if not len(batch):
                continue
            result = await self._typed.commit(batch)
            if not result.succeeded:
                await self._catch_up(result.responses)
                return False
            await self._cache.wait_for(result.revision)
        return True

    async def _catch_up(self, responses: tuple[object, ...]) -> None:
        """Wait for the write that was first; end when it says that we are replaced."""
        found = [kv for kv in responses if isinstance(kv, KeyValue)]
        for kv in found:
            if kv.key == keys.node(self._hello.node_id):
                record, _ = self._typed.read(NodeRecord, kv)
                known = self._cache.cluster.nodes.get(record.id)
                ours = known is not None and known.session == self._hello.session
                if ours and record.session != self._hello.session:
                    raise Conflict(f"another session speaks for node {record.id}")
        try:
            await self._cache.wait_for(max((kv.mod_revision for kv in found), default=0), CATCH_UP_S)
        except Unavailable:
            log.debug("the other write has not arrived yet")

    def _checked(self, facts: NodeFacts) -> NodeFacts:
        if (facts.id, facts.name) != (self._hello.node_id, self._hello.node_name):
            raise Invalid(f"node {self._hello.node_id} reports as {facts.id} ({facts.name})")
        return facts

    def _node(self, cluster: Cluster, facts: NodeFacts | None) -> Iterator[Write]:
        """The node's record with its newest facts and this session; phases are planned elsewhere."""
        known = cluster.nodes.get(self._hello.node_id)
        if facts is None and (known is None or known.session != self._hello.session):
            raise Invalid(f"node {self._hello.node_id} reports before it has said what it is")
        if facts is None:
            return
        now = self._clock.now()
        if known is None:
            phase = NodePhase.NOT_READY if facts.not_ready else NodePhase.READY
            record = NodeRecord(
                facts=facts, phase=phase, joined_at=now, changed_at=now, session=self._hello.session
            )
            yield self._event(self._joined(facts))
        else:
            record = known.replaced(facts=facts, session=self._hello.session)
        if record != known:
            yield lambda batch: batch.put(keys.node(record.id), record)

    def _observed(self, cluster: Cluster, seen: Observation) -> Iterator[Write]:
        record = cluster.replicas.get(seen.replica_id)
        if record is None or record.node_id != self._hello.node_id:
            self._look_again([seen.replica_id])  # not (or no longer) this node's: tell it so
            return
        before = cluster.observations.get(seen.replica_id)
        if before is not None and before.node_id == seen.node_id:
            if seen.version <= before.version:
                return
            if seen.phase not in REACHABLE[before.phase]:
                fields = {"replica": seen.replica_id, "from": before.phase.value, "to": seen.phase.value}
                log.warning("observation refused: no such transition", extra=fields)
                return
            seen = seen.replaced(restarts=max(seen.restarts, before.restarts))
        stored = seen.replaced(workload_id=record.workload_id)
        yield lambda batch: batch.put(keys.observation(stored.workload_id, stored.replica_id), stored)

    def _missing(self, cluster: Cluster, observations: list[Observation]) -> list[str]:
        """Replicas that this node was known to hold and does not hold."""
        held = {seen.replica_id for seen in observations}
        return [
            record.id
            for record in cluster.replicas_on(self._hello.node_id)
            if record.id not in held and (not record.run or record.id in cluster.observations)
        ]

    def _gone(self, cluster: Cluster, replica_id: str) -> Iterator[Write]:
        """Nothing is left of a replica: forget it, or what was seen of it if it is to run."""
        record = cluster.replicas.get(replica_id)
        if record is None or record.node_id != self._hello.node_id:
            return
        seen_key = keys.observation(record.workload_id, replica_id)
        if record.run:
            if replica_id in cluster.observations:
                yield lambda batch: batch.delete(seen_key)
            else:
                self._look_again([replica_id])
            return
        key = keys.replica(record.workload_id, replica_id)

        def forget(batch: Batch) -> None:
            self._compare(batch, key)
            batch.delete(key)
            batch.delete(seen_key)

        yield forget

    def _event(self, event: Event) -> Write:
        """An event under the id that its node gave it: said twice, it is stored once."""
        event_id = keys.event_id(
            keys.micros_since_epoch(event.at), (event.id or self._new_id())[:40].replace("/", "-")
        )
        stored = event.replaced(id=event_id, node=self._hello.node_name)
        return lambda batch: batch.put(keys.event(event_id), stored)

    def _joined(self, facts: NodeFacts) -> Event:
        return Event(
            at=self._clock.now(),
            reason="NodeJoined",
            message=f"node {facts.name} joined",
            kind="node",
            name=facts.name,
            node=facts.name,
        )

    def _compare(self, batch: Batch, key: str) -> None:
        batch.expect(key, self._cache.facts.mods.get(key, 0))
        batch.else_read(key)
