"""Which replicas of this node take part in its published ports, and when that is in force.

A replica's life calls ``open``, ``enter``, ``leave`` and ``close``; these change what is
wanted at once, and one task puts the newest wish in force. What an earlier life of the
agent left in force is taken over, so that traffic goes on until a replica says otherwise.
"""

from __future__ import annotations

import asyncio
import logging

from cloudless.agent.network.port import Network
from cloudless.agent.traffic.limits import INSPECTION_S, RETRY_BASE_S, RETRY_CAP_S
from cloudless.agent.traffic.port import Backend, Endpoint, PortTaken, Services, Traffic, normal
from cloudless.aio.backoff import Backoff
from cloudless.aio.clock import Clock
from cloudless.domain.errors import CloudlessError
from cloudless.domain.ports import Port
from cloudless.domain.replica import Assignment

log = logging.getLogger(__name__)


class Switchboard:
    """``run`` is its task; all else is called by replicas' tasks on the same loop."""

    def __init__(self, traffic: Traffic, network: Network, clock: Clock) -> None:
        self._traffic = traffic
        self._network = network
        self._clock = clock
        #: What each replica takes part in.
        self._members: dict[str, dict[Endpoint, Backend]] = {}
        #: Endpoints that exist, by the replicas that opened them; and whose they are.
        self._opened: dict[str, frozenset[Endpoint]] = {}
        self._owners: dict[Endpoint, str] = {}
        #: Network namespaces of replicas that took part, or may have in an earlier life.
        self._places: dict[str, str] = {}
        self._wish = 0
        self._done = 0
        self._changed = asyncio.Event()
        self._waiting: set[asyncio.Future[None]] = set()

    async def adopt(self) -> None:
        """Take over what is in force; to be called before any replica begins."""
        try:
            services = await self._traffic.read()
            attachments = await self._network.list()
        except CloudlessError as error:
            log.warning("cannot read the published ports", extra={"why": error.message})
            return
        replicas = {one.address: one.id for one in attachments if one.netns_path is not None}
        self._places |= {one.id: one.netns_path for one in attachments if one.netns_path is not None}
        for endpoint, backends in services.items():
            for backend in backends:
                if backend.address in replicas:
                    self._members.setdefault(replicas[backend.address], {})[endpoint] = backend
        if services:
            self._change()  # backends that are gone go

    async def run(self) -> None:
        """Put the newest wish in force, for ever; what the kernel refuses is tried again."""
        backoff = Backoff(base_s=RETRY_BASE_S, cap_s=RETRY_CAP_S)
        while True:
            change = await self._next_change()
            self._changed.clear()
            wish = self._wish
            try:
                if change or await self._traffic.read() != self._services():
                    await self._traffic.switch(self._services())
            except CloudlessError as error:
                log.warning("published ports are not as they should be", extra={"why": error.message})
                await self._clock.sleep(backoff.next())
                self._changed.set()
                continue
            backoff.reset()
            self._done = wish
            for future in self._waiting:
                if not future.done():
                    future.set_result(None)

    async def open(self, assignment: Assignment) -> None:
        """Make the published ports of a replica exist. Raises ``PortTaken``, ``TrafficUnavailable``."""
        wanted = _endpoints(assignment)
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
            for endpoint in _endpoints(assignment)
            if not any(other.meets(endpoint) and whose != owner for other, whose in self._owners.items())
        }
        self._open(assignment, free)

    def enter(self, assignment: Assignment, address: str, netns_path: str | None) -> None:
        """New connections may go to this replica."""
        replica_id = assignment.replica_id
        opened = self._opened.get(replica_id, frozenset())
        backends = {
            endpoint: Backend(address, port.container_port)
            for port in assignment.spec.ports
            if (endpoint := _endpoint_of(port)) in opened and endpoint is not None
        }
        if not backends or netns_path is None:
            return
        self._places[replica_id] = netns_path
        if self._members.get(replica_id) != backends:
            self._members[replica_id] = backends
            self._change()

    def leave(self, replica_id: str) -> None:
        """No new connection may go to this replica; ``settled`` tells when that is true."""
        if self._members.pop(replica_id, None) is not None:
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
        return replica_id in self._places

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

    def _is_in_force(self, endpoint: Endpoint) -> bool:
        return any(endpoint in backends for backends in self._members.values())

    def _services(self) -> Services:
        wanted: dict[Endpoint, list[Backend]] = {endpoint: [] for endpoint in self._owners}
        for backends in self._members.values():
            for endpoint, backend in backends.items():
                wanted.setdefault(endpoint, []).append(backend)
        return normal({endpoint: tuple(backends) for endpoint, backends in wanted.items()})

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

    def _change(self) -> None:
        self._wish += 1
        self._changed.set()


def _endpoints(assignment: Assignment) -> set[Endpoint]:
    found = (_endpoint_of(port) for port in assignment.spec.ports)
    return {endpoint for endpoint in found if endpoint is not None}


def _endpoint_of(port: Port) -> Endpoint | None:
    if not port.publish:
        return None
    return Endpoint(port.publish_address, port.publish, "udp" if port.protocol == "UDP" else "tcp")
