"""What the agent asks of a network, whoever provides it.

``Network`` is implemented by ``kernel.KernelNetwork`` (real namespaces) and by
``memory.MemoryNetwork`` (tests and simulation); both pass the same contract suite.
Every call may be repeated, also after the process was killed in the middle of one.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Protocol

from cloudless.agent.network.limits import MAX_HOST_PORTS, MAX_ID_LENGTH
from cloudless.domain.errors import Fatal, Invalid, PreconditionFailed, Unavailable

#: A host port with this address is reachable on every address of the node.
ANY_ADDRESS = "0.0.0.0"

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_HOSTNAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,62}[A-Za-z0-9])?")


@dataclass(frozen=True, slots=True, order=True)
class HostPort:
    """``host_ip:host_port`` of the node leads to ``container_port`` of the replica.

    Raises ``Invalid`` for a port outside 1..65535, a host_ip that is not IPv4 or an
    unknown protocol.
    """

    host_port: int
    container_port: int
    protocol: Literal["tcp", "udp"] = "tcp"
    host_ip: str = ANY_ADDRESS

    def __post_init__(self) -> None:
        for name in ("host_port", "container_port"):
            if not 1 <= getattr(self, name) <= 65535:
                raise Invalid.field(name, "must be between 1 and 65535")
        if self.protocol not in ("tcp", "udp"):
            raise Invalid.field("protocol", "must be tcp or udp")
        try:
            ipaddress.IPv4Address(self.host_ip)
        except ValueError:
            raise Invalid.field("host_ip", f"{self.host_ip!r} is not an IPv4 address") from None

    def collides(self, other: HostPort) -> bool:
        """Whether both would take the same packet.

        >>> HostPort(80, 8080).collides(HostPort(80, 1, host_ip="127.0.0.1"))
        True
        >>> HostPort(53, 53, "udp").collides(HostPort(53, 53, "tcp"))
        False
        """
        same_address = self.host_ip == other.host_ip or ANY_ADDRESS in (self.host_ip, other.host_ip)
        return same_address and (self.protocol, self.host_port) == (other.protocol, other.host_port)

    def __str__(self) -> str:
        return f"{self.host_ip}:{self.host_port}/{self.protocol}"


@dataclass(frozen=True, slots=True)
class Attachment:
    """A replica's place in the network.

    ``netns_path`` is the file to give to the container runtime, or None when the replica
    shares the host's network; then ``gateway`` and ``interface`` are None as well.
    """

    id: str
    hostname: str
    address: str
    netns_path: str | None
    gateway: str | None
    interface: str | None
    host_ports: tuple[HostPort, ...] = ()


class HostPortTaken(PreconditionFailed):
    """A port of the node is in use by somebody else; ``by`` names who, as far as known."""

    code = "CL-6101"

    def __init__(self, port: HostPort, by: str) -> None:
        super().__init__(
            f"port {port} of this node is taken by {by}",
            hint="choose another host_port, or stop what uses it",
        )
        self.port = port
        self.by = by


class NetworkRangeTaken(Fatal):
    """The address range of this node's replicas overlaps a route of the host."""

    code = "CL-6102"


class NetworkUnavailable(Unavailable):
    """The kernel refused: no rights, no namespaces, no nftables, or no address left."""

    code = "CL-6103"


class Network(Protocol):
    """Gives replicas a network of their own, and takes it away again."""

    async def attach(
        self,
        attachment_id: str,
        *,
        hostname: str,
        host_ports: tuple[HostPort, ...] = (),
        host_network: bool = False,
    ) -> Attachment:
        """Make sure that the attachment exists, and return it; the same call gives the same answer.

        An attachment that exists keeps its address and host ports. Raises ``HostPortTaken``,
        ``NetworkRangeTaken``, ``NetworkUnavailable`` and ``Invalid``; after an error nothing
        is reachable, and ``detach`` removes what is left.
        """
        ...

    async def detach(self, attachment_id: str) -> None:
        """Remove the attachment and everything of it; unknown or half-gone ones are no error."""
        ...

    async def list(self) -> tuple[Attachment, ...]:
        """The attachments that are whole, by id; read from the system, not from memory."""
        ...

    async def collect(self, keep: Iterable[str]) -> tuple[str, ...]:
        """Remove everything of this node that no attachment in ``keep`` needs.

        Returns what was removed: ids, or names of leftovers without one. With nothing left,
        the bridge and the rules go as well.
        """
        ...

    async def close(self) -> None:
        """Let go of threads and sockets; attachments stay, the bridge goes if there is none."""
        ...


def check_attachment(attachment_id: str, hostname: str, host_ports: tuple[HostPort, ...]) -> None:
    """Refuse what no network may be asked for; raises ``Invalid`` naming the field."""
    if len(attachment_id) > MAX_ID_LENGTH or _ID.fullmatch(attachment_id) is None:
        raise Invalid.field("id", f"{attachment_id[:MAX_ID_LENGTH]!r} cannot name an attachment")
    if _HOSTNAME.fullmatch(hostname) is None:
        raise Invalid.field("hostname", f"{hostname[:64]!r} is not a host name of at most 64 characters")
    if len(host_ports) > MAX_HOST_PORTS:
        raise Invalid.field("ports", f"{len(host_ports)} host ports; at most {MAX_HOST_PORTS} are allowed")
    for index, port in enumerate(host_ports):
        if any(port.collides(other) for other in host_ports[:index]):
            raise Invalid.field("ports", f"host port {port} is given twice")
