"""What the agent asks of whoever leads connections to replicas.

``Traffic`` is implemented by ``kernel.KernelTraffic`` (nftables) and ``memory.MemoryTraffic``
(tests and simulation); both pass the same contract suite. What is in force outlives the
object and the process: traffic goes on while no agent runs.
"""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal, Protocol

from cloudless.agent.traffic.limits import MAX_BACKENDS, MAX_TOTAL_WEIGHT, MAX_WEIGHT
from cloudless.domain.errors import Invalid, PreconditionFailed, Unavailable

#: An endpoint with this address is reached on every address of the node.
ANY_ADDRESS = "0.0.0.0"


@dataclass(frozen=True, slots=True, order=True)
class Endpoint:
    """Where clients knock. Raises ``Invalid`` for what is no IPv4 address, port or protocol."""

    address: str
    port: int
    protocol: Literal["tcp", "udp"] = "tcp"

    def __post_init__(self) -> None:
        _check_place(self.address, self.port)
        if self.protocol not in ("tcp", "udp"):
            raise Invalid.field("protocol", "must be tcp or udp")

    def meets(self, other: Endpoint) -> bool:
        """Whether both would take the same packet.

        >>> Endpoint("0.0.0.0", 80).meets(Endpoint("127.0.0.1", 80))
        True
        """
        same_address = self.address == other.address or ANY_ADDRESS in (self.address, other.address)
        return same_address and (self.port, self.protocol) == (other.port, other.protocol)

    def __str__(self) -> str:
        return f"{self.address}:{self.port}/{self.protocol}"


@dataclass(frozen=True, slots=True, order=True)
class Backend:
    """Where connections go; ``weight`` is its share relative to the others (1 to ``MAX_WEIGHT``)."""

    address: str
    port: int
    weight: int = 1

    def __post_init__(self) -> None:
        _check_place(self.address, self.port)
        if not 1 <= self.weight <= MAX_WEIGHT:
            raise Invalid.field("weight", f"must be between 1 and {MAX_WEIGHT}")


#: Every published port of the node with its backends; without any, connections are refused.
Services = Mapping[Endpoint, tuple[Backend, ...]]


class PortTaken(PreconditionFailed):
    """A port of the node cannot be published: somebody else uses it."""

    code = "CL-6104"

    def __init__(self, endpoint: Endpoint, by: str) -> None:
        super().__init__(
            f"port {endpoint} of this node cannot be published, it is taken by {by}",
            hint="publish another port, or stop what uses it",
        )


class TrafficUnavailable(Unavailable):
    """The kernel refused to switch: no rights, or no nftables."""

    code = "CL-6105"


class Traffic(Protocol):
    """Leads new connections to backends; established ones go on where they are."""

    async def read(self) -> Services:
        """What is in force now, as ``normal`` has it; read from the system, not from memory.

        Raises ``TrafficUnavailable``.
        """
        ...

    async def switch(self, services: Services) -> None:
        """Put exactly this in force, all of it at one instant; with nothing, nothing is left behind.

        When it returns, no new connection goes where it went before. Raises
        ``TrafficUnavailable``: then what was in force still is.
        """
        ...

    async def holder(self, endpoint: Endpoint) -> str | None:
        """Which process of the host listens there, for a person; None when none does."""
        ...

    async def connections(self, netns_path: str, ports: frozenset[int]) -> int:
        """How many TCP connections to these ports of a network namespace are not finished.

        0 when there is no such namespace.
        """
        ...

    async def close(self) -> None:
        """Let go of threads; what is in force stays."""
        ...


def normal(services: Services) -> dict[Endpoint, tuple[Backend, ...]]:
    """The same services as ``Traffic.read`` gives them: in order, weights without a common divisor.

    >>> heavy = (Backend("10.0.0.2", 80, weight=10), Backend("10.0.0.1", 80, weight=30))
    >>> [one.weight for one in normal({Endpoint("127.0.0.1", 80): heavy})[Endpoint("127.0.0.1", 80)]]
    [3, 1]
    """
    return {endpoint: tuple(sorted(_reduced(backends))) for endpoint, backends in sorted(services.items())}


def _reduced(backends: tuple[Backend, ...]) -> Iterator[Backend]:
    divisor = math.gcd(*(one.weight for one in backends))
    for one in backends:
        yield one if divisor == 1 else replace(one, weight=one.weight // divisor)


def check_services(services: Services) -> None:
    """Refuse what cannot be in force; raises ``Invalid``."""
    for endpoint, backends in services.items():
        if len(backends) > MAX_BACKENDS:
            raise Invalid.field("backends", f"{endpoint} has {len(backends)}; at most {MAX_BACKENDS}")
        if sum(one.weight for one in backends) > MAX_TOTAL_WEIGHT:
            raise Invalid.field("weight", f"all of {endpoint} together must be at most {MAX_TOTAL_WEIGHT}")
    endpoints = sorted(services, key=lambda one: (one.protocol, one.port))
    for one, other in pairwise(endpoints):
        if one.meets(other):
            raise Invalid.field("endpoints", f"{one} and {other} would take the same packets")


def _check_place(address: str, port: int) -> None:
    try:
        ipaddress.IPv4Address(address)
    except ValueError:
        raise Invalid.field("address", f"{address!r} is not an IPv4 address") from None
    if not 1 <= port <= 65535:
        raise Invalid.field("port", "must be between 1 and 65535")
