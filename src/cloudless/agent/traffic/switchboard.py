"""Which replicas of this node take part in its published ports, and when that is in force.

A replica's life calls ``open``, ``enter``, ``leave`` and ``close``, the node ``share``;
these change what is wanted at once, and one task puts the newest wish in force: whatever
was wished at one instant is one switch. What an earlier life of the agent left in force is
taken over, so that traffic goes on until a replica says otherwise. Who is ready is said
here; who of them gets connections is decided in ``sharing``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Literal

from cloudless.agent.network.port import Network
from cloudless.agent.traffic.limits import INSPECTION_S, RETRY_BASE_S, RETRY_CAP_S
from cloudless.agent.traffic.port import Backend, Endpoint, PortTaken, Services, Traffic, normal
from cloudless.agent.traffic.sharing import Sharing, share_out
from cloudless.aio.backoff import Backoff
from cloudless.aio.clock import Clock
from cloudless.domain.errors import CloudlessError
from cloudless.domain.event import Severity
from cloudless.domain.ports import Port
from cloudless.domain.replica import Assignment
from cloudless.domain.rollout import TrafficShare

log = logging.getLogger(__name__)

#: severity, reason, message, a replica of the workload.
Report = Callable[[Severity, str, str, Assignment], None]
#: Who gets new connections, by workload id; every ready replica alike where nothing is said.
Splits = Mapping[str, tuple[TrafficShare, ...]]


class Switchboard:
    """``run`` is its task; all else is called by replicas' tasks on the same loop.

    ``addresses``: where ports are published besides loopback when nothing else is said.
    """

    def __init__(
        self,
        traffic: Traffic,
        network: Network,
        clock: Clock,
        report: Report,
        addresses: tuple[str, ...] = (),
    ) -> None:
        self._traffic = traffic
        self._network = network
        self._clock = clock
        self._report = report
        self._addresses = addresses
        #: What each replica takes part in while it is ready.
        self._members: dict[str, dict[Endpoint, Backend]] = {}
        #: What they are, as far as that is known: not of all that an earlier life left in force.
        self._known: dict[str, Assignment] = {}
        self._splits: dict[str, tuple[TrafficShare, ...]] = {}
        #: Workload id -> revisions that are missing here and who stands in, as it was said last.
        self._told: dict[str, tuple[tuple[int, ...], int]] = {}
        #: Endpoints that exist, by the replicas that opened them; and whose they are.
        self._opened: dict[str, frozenset[Endpoint]] = {}
        self._owners: dict[Endpoint, str] = {}
        #: Network namespaces of replicas that took part, or may have in an earlier life.
        self._places: dict[str, str] = {}
        #: Until what is in force was read: what is known of it, who has spoken, who may stay.
        self._inherited: dict[str, Assignment] | None = {}
        self._spoken: set[str] = set()
        self._kept: frozenset[str] | None = None
        self._wish = 0
        self._done = 0
        self._changed = asyncio.Event()
        self._waiting: set[asyncio.Future[None]] = set()

    async def adopt(self, known: Iterable[Assignment] = (), splits: Splits | None = None) -> None:
        """Take over what is in force; to be called before any replica begins.

        ``known`` and ``splits`` are what the journal says of replicas and shares. A replica
        that is in force and not known keeps what it has until ``keep`` or ``leave`` says more.
        What cannot be read now is read by ``run``, before it changes anything.
        """
        self._splits = dict(splits or {})
        self._inherited = {one.replica_id: one for one in known}
        try:
            await self._take_over()
        except CloudlessError as error:
            log.warning("cannot read the published ports", extra={"why": error.message})
            self._change()

    async def _take_over(self) -> None:
        services = await self._traffic.read()
        attachments = await self._network.list()
        places = {one.id: one.netns_path for one in attachments if one.netns_path is not None}
        # Who has spoken since knows better; who is not kept left.
        gone = self._spoken | (set() if self._kept is None else places.keys() - self._kept)
        replicas = {one.address: one.id for one in attachments if one.id in places.keys() - gone}
        for endpoint, backends in services.items():
            for backend in backends:
                if backend.address in replicas:
                    self._members.setdefault(replicas[backend.address], {})[endpoint] = backend
        inherited = {name: one for name, one in (self._inherited or {}).items() if name in self._members}
        self._known, self._places = inherited | self._known, places | self._places
        self._inherited = None
        self._spoken.clear()
        if services:
            self._change()  # backends that are gone go

    async def run(self) -> None:
        """Put the newest wish in force, for ever; what the kernel refuses is tried again."""
        backoff = Backoff(base_s=RETRY_BASE_S, cap_s=RETRY_CAP_S)
        while True:
            change = await self._next_change()
            self._changed.clear()
            try:
                if self._inherited is not None:
                    await self._take_over()
                if not change and await self._traffic.read() == self._services(self._sharings()):
                    continue
                wish, sharings = self._wish, self._sharings()
                await self._traffic.switch(self._services(sharings))
            except CloudlessError as error:
                log.warning("published ports are not as they should be", extra={"why": error.message})
                await self._clock.sleep(backoff.next())
                self._changed.set()
                continue
            backoff.reset()
            self._done = wish
            self._tell(sharings)
            for future in self._waiting:
                if not future.done():
                    future.set_result(None)

    async def open(self, assignment: Assignment) -> None:
        """Make the published ports of a replica exist. Raises ``PortTaken``, ``TrafficUnavailable``."""
        wanted = self._endpoints(assignment)
        owner = f"{assignment.namespace}/{assignment.name}"
        for endpoint in wanted:
            for other, other_owner in self._owners.items():
                if other.meets(endpoint) and other_owner != owner:
                    raise PortTaken(endpoint, f"workload {other_owner}")
            if endpoint not in self._owners and not self._is_in_force(endpoint):
                holder = await self._traffic.holder(endpoint)
                if holder is not None:
                    raise PortTaken(endpoint, holder)
        self._open(assignment, wanted)

    def resume(self, assignment: Assignment) -> None:
        """The same for a replica that runs already: its ports exist, whoever listens there."""
        owner = f"{assignment.namespace}/{assignment.name}"
        free = {
            endpoint
            for endpoint in self._endpoints(assignment)
            if not any(other.meets(endpoint) and whose != owner for other, whose in self._owners.items())
        }
        self._open(assignment, free)
        if assignment.replica_id in self._members and assignment.replica_id not in self._known:
            self._known[assignment.replica_id] = assignment
            self._change()

    def share(self, splits: Splits) -> None:
        """Share out new connections like this from now on: all workloads at once, in one switch."""
        if splits != self._splits:
            self._splits = dict(splits)
            self._change()

    def enter(self, assignment: Assignment, address: str, netns_path: str | None) -> None:
        """This replica is ready: new connections may go to it, as far as its revision gets any."""
        replica_id = assignment.replica_id
        opened = self._opened.get(replica_id, frozenset())
        backends = {
            endpoint: Backend(address, port.container_port)
            for port in assignment.spec.ports
            for endpoint in _endpoints_of(port, self._addresses)
            if endpoint in opened
        }
        if not backends or netns_path is None:
            return
        self._places[replica_id] = netns_path
        self._speaks_first(replica_id)
        if replica_id not in self._known or self._members.get(replica_id) != backends:
            self._change()
        self._members[replica_id], self._known[replica_id] = backends, assignment

    def leave(self, replica_id: str) -> None:
        """No new connection may go to this replica; ``settled`` tells when that is true."""
        self._known.pop(replica_id, None)
        if self._members.pop(replica_id, None) is not None or self._speaks_first(replica_id):
            self._change()

    def close(self, replica_id: str) -> None:
        """Nothing is left of this replica; ports that only it had are gone."""
        self.leave(replica_id)
        self._places.pop(replica_id, None)
        if self._opened.pop(replica_id, None):
            still = frozenset[Endpoint]().union(*self._opened.values())
            self._owners = {one: owner for one, owner in self._owners.items() if one in still}
            self._change()

    def keep(self, replica_ids: frozenset[str]) -> None:
        """All others left, however they came to take part."""
        self._kept = replica_ids
        for replica_id in self._members.keys() - replica_ids:
            self.leave(replica_id)

    async def settled(self, timeout_s: float) -> bool:
        """Wait until all that was wished so far is in force; False when it takes longer."""
        wish = self._wish
        try:
            async with asyncio.timeout(timeout_s):
                while self._done < wish:
                    await self._next_switch()
        except TimeoutError:
            return False
        return True

    def has_served(self, replica_id: str) -> bool:
        """Whether connections may have gone to this replica."""
        unread = self._inherited is not None and bool(self._opened.get(replica_id))
        return unread or replica_id in self._places

    async def connections(self, assignment: Assignment) -> int:
        """Unfinished TCP connections to the published ports of a replica; 0 when nobody can tell."""
        place = self._places.get(assignment.replica_id)
        ports = frozenset(
            port.container_port for port in assignment.spec.ports if port.publish and port.protocol == "TCP"
        )
        if place is None or not ports:
            return 0
        try:
            return await self._traffic.connections(place, ports)
        except CloudlessError as error:
            log.warning("connections are not waited for", extra={"why": error.message})
            return 0

    def _open(self, assignment: Assignment, endpoints: set[Endpoint]) -> None:
        if self._opened.get(assignment.replica_id, frozenset()) == endpoints:
            return
        self._opened[assignment.replica_id] = frozenset(endpoints)
        owner = f"{assignment.namespace}/{assignment.name}"
        new = endpoints - self._owners.keys()
        self._owners |= dict.fromkeys(new, owner)
        if new:
            self._change()

    def _endpoints(self, assignment: Assignment) -> set[Endpoint]:
        ports = assignment.spec.ports
        return {endpoint for port in ports for endpoint in _endpoints_of(port, self._addresses)}

    def _is_in_force(self, endpoint: Endpoint) -> bool:
        return any(endpoint in backends for backends in self._members.values())

    def _sharings(self) -> dict[str, Sharing]:
        """How each workload's connections are shared out, by workload id."""
        ready: dict[str, dict[str, int]] = {}
        for replica_id, assignment in self._known.items():
            ready.setdefault(assignment.workload_id, {})[replica_id] = assignment.revision
        return {name: share_out(who, self._splits.get(name, ())) for name, who in ready.items()}

    def _services(self, sharings: Mapping[str, Sharing]) -> Services:
        wanted: dict[Endpoint, list[Backend]] = {endpoint: [] for endpoint in self._owners}
        for replica_id, backends in self._members.items():
            known = self._known.get(replica_id)
            weight = sharings[known.workload_id].weights.get(replica_id, 0) if known is not None else None
            for endpoint, backend in backends.items():
                places = wanted.setdefault(endpoint, [])
                if weight is None:
                    places.append(backend)
                elif weight:
                    places.append(replace(backend, weight=weight))
        return normal({endpoint: tuple(backends) for endpoint, backends in wanted.items()})

    def _tell(self, sharings: Mapping[str, Sharing]) -> None:
        """Say when others serve than should, or nobody does, and when that is over."""
        for name in self._told.keys() - sharings.keys():
            del self._told[name]
        for name, sharing in sharings.items():
            now = sharing.missing, sharing.instead
            if now == self._told.get(name, ((), 0)):
                continue
            someone = next((one for one in self._known.values() if one.workload_id == name), None)
            if someone is None:
                continue  # it left while the switch was made
            self._told[name] = now
            if not sharing.missing:
                del self._told[name]
                self._report(Severity.NORMAL, "SharesMet", "new connections go where they should", someone)
                continue
            told = f"no ready replica of revision {' or '.join(map(str, sharing.missing))} on this node: "
            instead = f"go to revision {sharing.instead}" if sharing.instead else "are refused"
            self._report(Severity.WARNING, "SharesNotMet", f"{told}new connections {instead}", someone)

    async def _next_change(self) -> bool:
        """Wait for a wish; False when it is time to look whether somebody else changed things."""
        try:
            async with asyncio.timeout(INSPECTION_S):
                await self._changed.wait()
        except TimeoutError:
            return False
        return True

    async def _next_switch(self) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        try:
            await future
        finally:
            self._waiting.discard(future)

    def _speaks_first(self, replica_id: str) -> bool:
        """Whether it may be in force for all we know: nothing was read yet, and it said nothing yet."""
        if self._inherited is None or replica_id in self._spoken:
            return False
        self._spoken.add(replica_id)
        return True

    def _change(self) -> None:
        self._wish += 1
        self._changed.set()


def _endpoints_of(port: Port, addresses: tuple[str, ...]) -> tuple[Endpoint, ...]:
    protocol: Literal["tcp", "udp"] = "udp" if port.protocol == "UDP" else "tcp"
    return tuple(Endpoint(one, port.publish, protocol) for one in port.publish_addresses(addresses))
