"""A network that exists only in memory: for tests and simulation.

It keeps every promise of ``port.Network`` that can be seen from outside: addresses are
never shared, calls can be repeated, host ports collide. ``MemoryHost`` stands for the
machine and outlives the network object, as the kernel outlives an agent.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache

from cloudless.agent.network.addresses import next_address, range_of
from cloudless.agent.network.limits import DEFAULT_RANGES
from cloudless.agent.network.port import (
    Attachment,
    HostPort,
    HostPortTaken,
    NetworkUnavailable,
    check_attachment,
)


@dataclass
class MemoryHost:
    """The machine: what is attached, which ports its own processes hold, what fails next."""

    attachments: dict[str, Attachment] = field(default_factory=dict)
    #: Ports that processes of the host listen on, with the name of the process.
    listening: dict[HostPort, str] = field(default_factory=dict)
    last_address: int = 0
    #: Number of coming ``attach`` calls that the kernel refuses.
    refuse_attach: int = 0


class MemoryNetwork:
    """``Network`` on a ``MemoryHost``; a second one on the same host adopts what is there."""

    def __init__(
        self,
        host: MemoryHost | None = None,
        *,
        address_range: ipaddress.IPv4Network = DEFAULT_RANGES[0],
        host_address: str = "192.0.2.1",
    ) -> None:
        self.host = host if host is not None else MemoryHost()
        self._range = range_of(str(address_range))
        self._host_address = host_address

    async def attach(
        self,
        attachment_id: str,
        *,
        hostname: str,
        host_ports: tuple[HostPort, ...] = (),
        host_network: bool = False,
    ) -> Attachment:
        check_attachment(attachment_id, hostname, host_ports)
        known = self.host.attachments.get(attachment_id)
        if known is not None:
            return known
        if self.host.refuse_attach:
            self.host.refuse_attach -= 1
            raise NetworkUnavailable("the kernel refused to make a network namespace")
        if host_network:
            made = Attachment(attachment_id, hostname, self._host_address, None, None, None)
        else:
            self._check_free(host_ports)
            taken = {_number(other.address) for other in self.host.attachments.values()}
            self.host.last_address = next_address(self._range, taken, self.host.last_address)
            address = str(ipaddress.IPv4Address(self.host.last_address))
            made = Attachment(
                attachment_id,
                hostname,
                address,
                f"/run/cloudless/memory/netns/{attachment_id}",
                str(self._range[1]),
                "eth0",
                tuple(sorted(host_ports)),
            )
        self.host.attachments[attachment_id] = made
        return made

    async def detach(self, attachment_id: str) -> None:
        self.host.attachments.pop(attachment_id, None)

    async def list(self) -> tuple[Attachment, ...]:
        return tuple(attachment for _, attachment in sorted(self.host.attachments.items()))

    async def collect(self, keep: Iterable[str]) -> tuple[str, ...]:
        gone = tuple(sorted(set(self.host.attachments) - set(keep)))
        for attachment_id in gone:
            del self.host.attachments[attachment_id]
        return gone

    async def close(self) -> None:
        return

    def _check_free(self, host_ports: tuple[HostPort, ...]) -> None:
        for port in host_ports:
            for other in self.host.attachments.values():
                if any(port.collides(theirs) for theirs in other.host_ports):
                    raise HostPortTaken(port, f"attachment {other.id}")
            for theirs, process in self.host.listening.items():
                if port.collides(theirs):
                    raise HostPortTaken(port, process)


@lru_cache(maxsize=4096)
def _number(address: str) -> int:
    return int(ipaddress.IPv4Address(address))
