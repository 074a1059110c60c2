"""What the coordinator is still to be told: the newest of each kind, until it is stored.

The node writes; a session takes. Observations are latest-wins for each replica and are
sent whole on every new connection; ids of replicas that are gone, and events, are sent
again until they are acknowledged.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from cloudless.agent.limits import MAX_REPORTED, MAX_WAITING_EVENTS
from cloudless.domain.event import Event
from cloudless.domain.node import NodeFacts
from cloudless.domain.replica import Observation


@dataclass(frozen=True, slots=True)
class Report:
    """One message. ``whole`` says that ``observations`` are all that this node has."""

    sequence: int
    facts: NodeFacts | None = None
    whole: bool = False
    observations: tuple[Observation, ...] = ()
    removed: tuple[str, ...] = ()
    events: tuple[Event, ...] = ()


@dataclass(eq=False)
class ReportStream:
    """One connection's view: what it has sent, and what waits for its acknowledgement."""

    reports: Reports
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    sequence: int = 0
    facts_sent: NodeFacts | None = None
    whole_sent: bool = False
    dirty: dict[str, None] = field(default_factory=dict)
    removed_in: dict[str, int] = field(default_factory=dict)
    events_in: dict[str, int] = field(default_factory=dict)
    ended: bool = False
    failure: Exception | None = None

    async def next(self) -> Report | None:
        """Wait until there is something to tell; None when the call is over. Raises what ended it."""
        while True:
            if self.ended:
                if self.failure is not None:
                    raise self.failure
                return None
            report = self._take()
            if report is not None:
                return report
            self.changed.clear()
            await self.changed.wait()

    def end(self, failure: Exception | None) -> None:
        """The call is over, because of ``failure`` or properly."""
        if not self.ended:
            self.ended, self.failure = True, failure
            self.changed.set()

    def acknowledged(self, sequence: int) -> None:
        """Everything up to this message is stored."""
        removed = [replica_id for replica_id, sent in self.removed_in.items() if sent <= sequence]
        events = [event_id for event_id, sent in self.events_in.items() if sent <= sequence]
        for replica_id in removed:
            del self.removed_in[replica_id]
        for event_id in events:
            del self.events_in[event_id]
        self.reports.settled(removed, set(events))

    def _take(self) -> Report | None:
        reports = self.reports
        facts = reports.facts if reports.facts is not self.facts_sent else None
        whole = reports.whole_known.is_set() and not self.whole_sent
        observations: tuple[Observation, ...] = ()
        if whole:
            observations = tuple(reports.observations.values())
            self.dirty.clear()
        elif self.whole_sent:
            names = list(self.dirty)[:MAX_REPORTED]
            observations = tuple(reports.observations[name] for name in names if name in reports.observations)
            for name in names:
                del self.dirty[name]
        removed = tuple(name for name in reports.removed if name not in self.removed_in)[:MAX_REPORTED]
        events = tuple(event for event in reports.events if event.id not in self.events_in)[:MAX_REPORTED]
        if not (facts or whole or observations or removed or events):
            return None
        self.sequence += 1
        self.facts_sent = reports.facts
        self.whole_sent = self.whole_sent or whole
        self.removed_in.update(dict.fromkeys(removed, self.sequence))
        self.events_in.update(dict.fromkeys((event.id for event in events), self.sequence))
        return Report(self.sequence, facts, whole, observations, removed, events)


class Reports:
    """``on_settled`` hears of gone replicas that the coordinator knows to be gone."""

    def __init__(self, facts: NodeFacts, on_settled: Callable[[str], None]) -> None:
        self.facts = facts
        self.observations: dict[str, Observation] = {}
        self.removed: dict[str, None] = {}
        self.events: deque[Event] = deque(maxlen=MAX_WAITING_EVENTS)
        #: Whether this node knows what it holds; no whole report is sent before.
        self.whole_known = asyncio.Event()
        self._on_settled = on_settled
        self._streams: set[ReportStream] = set()

    def open(self) -> ReportStream:
        """A new connection: it hears everything once. ``close`` it."""
        stream = ReportStream(self)
        self._streams.add(stream)
        return stream

    def close(self, stream: ReportStream) -> None:
        """The connection is gone."""
        self._streams.discard(stream)

    def observe(self, observation: Observation) -> None:
        """The newest about a replica."""
        self.observations[observation.replica_id] = observation
        for stream in self._streams:
            stream.dirty[observation.replica_id] = None
            stream.changed.set()

    def remove(self, replica_id: str) -> None:
        """Nothing is left of a replica."""
        self.observations.pop(replica_id, None)
        self.removed[replica_id] = None
        for stream in self._streams:
            stream.dirty.pop(replica_id, None)
            stream.removed_in.pop(replica_id, None)  # say it again, whatever was said before
        self._wake()

    def tell(self, event: Event) -> None:
        """Something happened that people may want to know."""
        self.events.append(event)
        self._wake()

    def describe(self, facts: NodeFacts) -> None:
        """The node has changed."""
        if facts != self.facts:
            self.facts = facts
            self._wake()

    def know_whole(self) -> None:
        """From now on, the observations are all that there is."""
        if not self.whole_known.is_set():
            self.whole_known.set()
            self._wake()

    def settled(self, removed: list[str], events: set[str]) -> None:
        """The coordinator has stored these."""
        for replica_id in removed:
            if self.removed.pop(replica_id, False) is None:
                self._on_settled(replica_id)
        if events:
            self.events = deque(
                (event for event in self.events if event.id not in events), maxlen=MAX_WAITING_EVENTS
            )

    def _wake(self) -> None:
        for stream in self._streams:
            stream.changed.set()
