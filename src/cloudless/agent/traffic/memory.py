"""Published ports that exist only in memory: for tests and simulation.

``MemoryBoard`` stands for the kernel and outlives the object, as rules outlive an agent.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cloudless.agent.traffic.port import (
    Backend,
    Endpoint,
    Services,
    TrafficUnavailable,
    check_services,
    normal,
)


@dataclass
class MemoryBoard:
    """The machine: what is in force, who listens, who is connected, what fails next."""

    services: dict[Endpoint, tuple[Backend, ...]] = field(default_factory=dict)
    #: Every state that was in force, oldest first.
    history: list[dict[Endpoint, tuple[Backend, ...]]] = field(default_factory=list)
    #: Processes of the host that listen.
    listening: dict[Endpoint, str] = field(default_factory=dict)
    #: Unfinished connections by path of the network namespace.
    connected: dict[str, int] = field(default_factory=dict)
    #: Number of coming switches that the kernel refuses, and of coming reads.
    refuse: int = 0
    refuse_reads: int = 0


class MemoryTraffic:
    """``Traffic`` on a ``MemoryBoard``; a second one on the same board adopts what is there."""

    def __init__(self, board: MemoryBoard | None = None) -> None:
        self.board = board if board is not None else MemoryBoard()

    async def read(self) -> Services:
        if self.board.refuse_reads:
            self.board.refuse_reads -= 1
            raise TrafficUnavailable("the kernel did not tell the rules of published ports")
        return dict(sorted(self.board.services.items()))

    async def switch(self, services: Services) -> None:
        check_services(services)
        if self.board.refuse:
            self.board.refuse -= 1
            raise TrafficUnavailable("the kernel refused the rules of published ports")
        wanted = normal(services)
        if wanted != self.board.services:
            self.board.services = wanted
            self.board.history.append(dict(wanted))

    async def holder(self, endpoint: Endpoint) -> str | None:
        return next((who for taken, who in self.board.listening.items() if taken.meets(endpoint)), None)

    async def connections(self, netns_path: str, ports: frozenset[int]) -> int:
        return self.board.connected.get(netns_path, 0)

    async def close(self) -> None:
        return
