"""Published ports by the kernel: nftables rules in one table of this node; needs root.

All rules are changed on one thread, one transaction for each switch (about 1 ms). The
table stays when the process ends, and is read when the next one begins.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from cloudless.agent.network.conntrack import forget_udp
from cloudless.agent.network.hostports import holder_of
from cloudless.agent.network.names import Names
from cloudless.agent.network.nft import Nft, NftError
from cloudless.agent.network.port import HostPort
from cloudless.agent.traffic import connections, rules
from cloudless.agent.traffic.port import (
    Backend,
    Endpoint,
    Services,
    TrafficUnavailable,
    check_services,
    normal,
)

log = logging.getLogger(__name__)
T = TypeVar("T")


class KernelTraffic:
    """``Traffic`` of this machine's kernel; ``node_key`` is the one of ``KernelNetwork``."""

    def __init__(self, node_key: str) -> None:
        self.names = Names.of(node_key)
        self._nft = Nft()
        self._in_force: dict[Endpoint, tuple[Backend, ...]] | None = None
        self._damaged = False
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="traffic")
        # Counting many connections takes long; a switch must not wait for it.
        self._counter = ThreadPoolExecutor(max_workers=1, thread_name_prefix="connections")

    async def read(self) -> Services:
        return await self._run(self._inspect)

    async def switch(self, services: Services) -> None:
        check_services(services)
        wanted = normal(services)
        await self._run(lambda: self._switch(wanted))

    async def holder(self, endpoint: Endpoint) -> str | None:
        port = HostPort(endpoint.port, endpoint.port, endpoint.protocol, endpoint.address)
        return await self._run(lambda: holder_of(port))

    async def connections(self, netns_path: str, ports: frozenset[int]) -> int:
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._counter, connections.count, netns_path, ports)
        except OSError as error:
            raise TrafficUnavailable(f"cannot count connections: {error}") from error

    async def close(self) -> None:
        await self._run(self._nft.close)
        self._writer.shutdown(wait=False)
        self._counter.shutdown(wait=False)

    async def _run(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._writer, work)
        except (NftError, OSError) as error:
            raise TrafficUnavailable(
                f"the kernel refused the rules of published ports: {error}",
                hint="published ports need root (CAP_NET_ADMIN) and nftables",
            ) from error

    # What follows runs on the writer's thread.

    def _inspect(self) -> dict[Endpoint, tuple[Backend, ...]]:
        found = self._read()
        if self._in_force is not None and found != self._in_force:
            log.warning("somebody else changed the rules of published ports")
            self._in_force, self._damaged = None, True
        return found

    def _read(self) -> dict[Endpoint, tuple[Backend, ...]]:
        table = rules.table_of(self.names)
        if f"table ip {table}\n" not in self._nft.run("list tables ip"):
            return {}
        return rules.parse(self._nft.run(f"list table ip {table}"))

    def _switch(self, wanted: dict[Endpoint, tuple[Backend, ...]]) -> None:
        before = self._read() if self._in_force is None else self._in_force
        self._in_force = None  # nobody knows, should the next lines fail
        if not wanted:
            self._nft.run(rules.no_table(self.names))
        elif not before or self._damaged:
            self._nft.run(rules.whole_table(self.names, wanted))
        elif wanted != before:
            try:
                self._nft.run(rules.change(self.names, before, wanted))
            except NftError:  # somebody else changed or emptied it; it is ours to restore
                self._nft.run(rules.whole_table(self.names, wanted))
        self._in_force, self._damaged = wanted, False
        self._forget_flows(before, wanted)

    def _forget_flows(self, before: Services, after: Services) -> None:
        """A UDP client that keeps sending would be led to a backend that left, for ever."""
        ports = {
            endpoint.port
            for endpoint in before.keys() | after.keys()
            if endpoint.protocol == "udp" and before.get(endpoint) != after.get(endpoint)
        }
        try:
            forget_udp(sorted(ports))
        except OSError as error:
            log.warning("flows of published UDP ports are kept", extra={"why": str(error)})
