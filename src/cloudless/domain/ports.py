"""Ports of a workload: of its containers, of the node, and published ones.

``host_port`` leads to one replica, so a node holds one replica of it. ``publish`` is one
stable port of each node, balanced over the workload's ready replicas there.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from typing import Annotated, NamedTuple, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from cloudless.domain.model import Choice, Model
from cloudless.domain.names import Name, PortNumber

#: Listens on every address of the host, so it takes the port on all of them.
ANY_ADDRESS = "0.0.0.0"
#: Where ports of the node are bound when nothing else is said: nobody outside reaches it.
LOOPBACK = "127.0.0.1"


def _check_address(value: str) -> str:
    try:
        return str(ipaddress.IPv4Address(value))
    except ValueError:
        raise ValueError(f"{value[:40]!r} is not an IPv4 address; write for example 127.0.0.1") from None


def _check_own_address(value: str) -> str:
    return _check_address(value) if value else ""


Ipv4Address = Annotated[str, AfterValidator(_check_address), StringConstraints(strict=True)]
#: Empty where the node decides.
OptionalAddress = Annotated[str, AfterValidator(_check_own_address), StringConstraints(strict=True)]
#: A port of the node, or 0 for none.
OptionalPort = Annotated[int, Field(strict=True, ge=0, le=65535)]


class Protocol(Choice):
    """Transport protocol of a port."""

    TCP = "TCP"
    UDP = "UDP"


class HostPort(NamedTuple):
    """One port of the host that is taken on an address of it, or on all."""

    port: int
    protocol: str
    address: str

    def meets(self, other: HostPort) -> bool:
        """Whether both would take the same packet; 0.0.0.0 meets every address.

        >>> HostPort(80, "TCP", "0.0.0.0").meets(HostPort(80, "TCP", "127.0.0.1"))
        True
        """
        if (self.port, self.protocol) != (other.port, other.protocol):
            return False
        return self.address == other.address or ANY_ADDRESS in (self.address, other.address)

    @property
    def everywhere(self) -> bool:
        """Whether every host has the address: all of them, or one of loopback."""
        return self.address == ANY_ADDRESS or ipaddress.IPv4Address(self.address).is_loopback

    def __str__(self) -> str:
        return f"{self.address}:{self.port}/{self.protocol.lower()}"


class Port(Model):
    """A port of the container, and optionally ports of the node that lead to it."""

    name: Name | None = None
    container_port: PortNumber
    host_port: OptionalPort = 0
    protocol: Protocol = Protocol.TCP
    host_address: Ipv4Address = LOOPBACK
    publish: OptionalPort = Field(
        default=0, description="Port of the node that is balanced over the ready replicas."
    )
    publish_address: OptionalAddress = Field(
        default="",
        description="Address of the node for publish; 0.0.0.0 for all of them. When empty: 127.0.0.1, "
        "and the addresses that the node was given by serve --publish-address.",
    )

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.publish_address not in ("", LOOPBACK) and not self.publish:
            raise ValueError("publish_address needs publish")
        return self

    @property
    def taken(self) -> HostPort | None:
        """What ``host_port`` takes of the node."""
        return HostPort(self.host_port, str(self.protocol), self.host_address) if self.host_port else None

    @property
    def published(self) -> HostPort | None:
        """What ``publish`` takes of every node that runs a replica, whatever that adds of its own."""
        address = self.publish_address or LOOPBACK
        return HostPort(self.publish, str(self.protocol), address) if self.publish else None

    def publish_addresses(self, of_node: Iterable[str]) -> tuple[str, ...]:
        """Where ``publish`` is bound on a node that was given these addresses; none unless published.

        >>> port = Port(container_port=80, publish=80)
        >>> port.publish_addresses(()), port.publish_addresses(["10.0.0.5"])
        (('127.0.0.1',), ('127.0.0.1', '10.0.0.5'))
        """
        if not self.publish:
            return ()
        if self.publish_address:
            return (self.publish_address,)
        given = tuple(dict.fromkeys((LOOPBACK, *of_node)))
        return (ANY_ADDRESS,) if ANY_ADDRESS in given else given


def published_ports(ports: Iterable[Port]) -> Iterator[tuple[int, HostPort]]:
    """The published ports with their places in ``ports``.

    >>> [(index, str(port)) for index, port in published_ports([Port(container_port=80, publish=8088)])]
    [(0, '127.0.0.1:8088/tcp')]
    """
    for index, port in enumerate(ports):
        if port.published is not None:
            yield index, port.published


def check_ports(ports: tuple[Port, ...]) -> None:
    """Raise ``ValueError`` for ports that cannot be had together.

    >>> check_ports((Port(container_port=80, publish=8088), Port(container_port=81, host_port=8088)))
    Traceback (most recent call last):
    ValueError: host_port 127.0.0.1:8088/tcp conflicts with publish 127.0.0.1:8088/tcp
    """
    _refuse_twice("name", [port.name for port in ports if port.name])
    _refuse_twice("container_port", [f"{port.container_port}:{port.protocol}" for port in ports])
    claims = [("publish", place) for _, place in published_ports(ports)]
    claims += [("host_port", port.taken) for port in ports if port.taken is not None]
    for index, (what, place) in enumerate(claims):
        for other_what, other in claims[:index]:
            if place == other and what == other_what:
                raise ValueError(f"{what} {place} is given twice")
            if place.meets(other):
                raise ValueError(f"{what} {place} conflicts with {other_what} {other}")


def check_host_network_ports(ports: tuple[Port, ...]) -> None:
    """Raise ``ValueError`` for ports that replicas in the host's network cannot have."""
    if any(port.host_port not in (0, port.container_port) for port in ports):
        raise ValueError("ports: with host_network, host_port must equal container_port or be left out")
    if any(port.publish for port in ports):
        raise ValueError("ports: publish needs replicas with a network of their own, not host_network")


def _refuse_twice(what: str, values: list[str]) -> None:
    seen = set()
    for value in values:
        if value in seen:
            raise ValueError(f"{what} {value} is given twice")
        seen.add(value)
