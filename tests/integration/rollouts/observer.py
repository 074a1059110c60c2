"""What really is there while a rollout goes on, asked of everybody but Cloudless.

containerd says which containers exist, each container's own server whether it answers, and
the kernel's rules who gets new connections. Samples are taken as fast as that goes.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.integration.conftest import open_client
from tests.integration.program.served import REPLICA_LABEL, Served

from cloudless.agent.network.names import Names
from cloudless.agent.traffic import rules
from cloudless.containerd.client import ContainerdClient
from cloudless.containerd.errors import NotFound
from cloudless.containerd.tasks import TaskStatus

#: A container in one of these holds memory, whether it serves or not.
EXISTING = frozenset({TaskStatus.CREATED, TaskStatus.RUNNING, TaskStatus.PAUSED})
INTERVAL_S = 0.01
LIMIT_S = 60.0
PROBE_LIMIT_S = 5.0
_LOCAL = re.compile(r"\|-- ([0-9.]+)\n\s+/32 host LOCAL")


@dataclass(frozen=True)
class Sample:
    """One look. Replica ids; those in ``serving`` get new connections *and* answer them."""

    at_s: float
    existing: frozenset[str]
    serving: frozenset[str]
    #: Why who gets new connections does not answer, for whoever reads a failed test.
    silent: tuple[str, ...] = ()


@dataclass
class Observer:
    """Of one program; ``revisions`` is what each replica's server says of itself."""

    served: Served
    port: int
    samples: list[Sample] = field(default_factory=list)
    revisions: dict[str, int] = field(default_factory=dict)
    #: Container id -> replica id; address -> the replica that had it last; processes looked at.
    _replicas: dict[str, str] = field(default_factory=dict)
    _places: dict[str, str] = field(default_factory=dict)
    _known: set[int] = field(default_factory=set)

    @property
    def most(self) -> int:
        """Most replicas that existed at a time."""
        return max(len(one.existing) for one in self.samples)

    @property
    def least(self) -> int:
        """Fewest replicas that served at a time."""
        return min(len(one.serving) for one in self.samples)

    def below(self, floor: int) -> list[Sample]:
        """Samples in which fewer served: what to look at when there should be none."""
        return [one for one in self.samples if len(one.serving) < floor]

    def last_served_s(self, replica_id: str) -> float:
        """When a replica was seen among those that get new connections for the last time."""
        return max(one.at_s for one in self.samples if replica_id in one.serving)

    def of_revision(self, number: int) -> set[str]:
        """Replicas that said that they are of this revision."""
        return {replica for replica, revision in self.revisions.items() if revision == number}

    async def until(self, fits: Callable[[Sample], bool]) -> None:
        """Wait for a sample like this; one that is being taken when this is called does not count."""
        first = len(self.samples) + 1
        async with asyncio.timeout(LIMIT_S):
            while not any(map(fits, self.samples[first:])):
                await asyncio.sleep(INTERVAL_S)

    async def until_led_to(self, count: int) -> None:
        """Wait until new connections are led to so many replicas."""
        async with asyncio.timeout(LIMIT_S):
            while len(await self._backends()) != count:
                await asyncio.sleep(INTERVAL_S)

    async def look(self, client: ContainerdClient) -> Sample:
        """Take one sample; it speaks of the kernel's rules, which are read from ``at_s`` on."""
        at_s = asyncio.get_running_loop().time()
        backends = await self._backends()
        existing = set()
        for task in await client.tasks.list():
            if task.status in EXISTING:
                replica_id = await self._replica_of(client, task.container_id)
                existing.add(replica_id)
                self._find_address(task.pid, replica_id)
        order = sorted(backends)
        answers = await asyncio.gather(*(self._probe(address) for address in order))
        silent = {address: why for address, why in zip(order, answers, strict=True) if why}
        if silent:  # who left the rules since may have ended since, and served then
            still = await self._backends()
            silent = {address: why for address, why in silent.items() if address in still}
        serving = {self._places.get(address, address) for address in backends - silent.keys()}
        whys = tuple(f"{address}: {why}" for address, why in silent.items())
        return Sample(
            at_s, frozenset(existing), frozenset(serving), whys or (() if backends else ("no rules",))
        )

    async def _replica_of(self, client: ContainerdClient, container_id: str) -> str:
        if container_id not in self._replicas:
            with contextlib.suppress(NotFound):  # gone between the two questions
                record = await client.containers.get(container_id)
                self._replicas[container_id] = record.labels[REPLICA_LABEL]
        return self._replicas.get(container_id, container_id)

    def _find_address(self, pid: int, replica_id: str) -> None:
        """Note the address in the network of a process, once it has one of its own."""
        process = Path(f"/proc/{pid}")
        if pid in self._known:
            return
        with contextlib.suppress(OSError):
            if (process / "ns/net").readlink() == Path("/proc/self/ns/net").readlink():
                return  # runc has not led it there yet
            for address in _LOCAL.findall((process / "net/fib_trie").read_text()):
                if not address.startswith("127."):
                    self._places[address] = replica_id
                    self._known.add(pid)

    async def _backends(self) -> set[str]:
        """Addresses that the kernel leads new connections to."""
        table = rules.table_of(Names.of(str(self.served.data_dir / "agent")))
        for last in (False, False, False, True):  # the kernel may be too busy to tell
            process = await asyncio.create_subprocess_exec(
                *("nft", "list", "table", "ip", table),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            listing, complaint = await process.communicate()
            # Before the first replica and after the last there is no table.
            if process.returncode == 0 or b"No such file" in complaint:
                break
            assert not last, complaint.decode()
        services = rules.parse(listing.decode())
        return {one.address for point, all_ in services.items() if point.port == self.port for one in all_}

    async def _probe(self, address: str) -> str:
        """Why the server at ``address`` does not answer; empty when it does."""
        try:
            async with asyncio.timeout(PROBE_LIMIT_S):
                reader, writer = await asyncio.open_connection(address, 8080)
                try:
                    writer.write(b"GET / HTTP/1.0\r\n\r\n")
                    replica_id, revision = (await reader.read()).decode().rpartition("\n\r\n")[2].split()
                finally:
                    writer.close()
        except (OSError, ValueError) as error:
            return repr(error)
        self.revisions[replica_id] = int(revision)
        return ""


@asynccontextmanager
async def observed(served: Served, port: int) -> AsyncIterator[Observer]:
    """Samples are taken during the block, at least one before and one after it."""
    observer, stop = Observer(served, port), asyncio.Event()

    async def sample() -> None:
        async with open_client(served.socket) as client:
            while True:
                last = stop.is_set()
                observer.samples.append(await observer.look(client))
                if last:
                    return
                await asyncio.sleep(INTERVAL_S)

    async with asyncio.TaskGroup() as group:
        group.create_task(sample())
        try:
            while not observer.samples:
                await asyncio.sleep(INTERVAL_S)
            yield observer
        finally:
            stop.set()


def both(samples: Iterable[Sample], one: set[str], other: set[str]) -> list[Sample]:
    """Samples in which replicas of both sets existed."""
    return [sample for sample in samples if sample.existing & one and sample.existing & other]
