"""The floor: a bare client of containerd, with what any container here gets, and no more.

It starts containers with the same image, the same command, a network namespace of their
own (empty) and the same seccomp filter; without a network in it, a log, probes, stored
state. It shares the daemon with the program that is measured, in another namespace.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import tempfile
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

from cloudless.aio.clock import SystemClock
from cloudless.containerd import oci
from cloudless.containerd.client import DEFAULT_NAMESPACE, ContainerdClient
from cloudless.containerd.daemon import PrivateDaemon
from cloudless.containerd.errors import NotFound
from cloudless.containerd.images import Image
from cloudless.containerd.plan import ContainerPlan
from cloudless.transport.codec import CompiledCodec
from sidebyside import image

NAMESPACE = "bench"
#: Starts under way at the same time: the best for a client on two cores.
AT_ONCE = 4
DEADLINE_S = 30.0


class Floor:
    """Containers by the shortest way; ``client`` speaks in the floor's namespace."""

    def __init__(self, client: ContainerdClient, resolved: Image, fifos: Path) -> None:
        self.client = client
        self._image = resolved
        self._fifos = fifos
        self._slots = asyncio.Semaphore(AT_ONCE)

    async def run(self, container_id: str) -> None:
        """Record, root file system, task, start."""
        client, found = self.client, self._image
        async with self._slots:
            plan = ContainerPlan(
                args=image.COMMAND,
                env=found.config.env,
                hostname=container_id,
                cgroup_path=f"/{NAMESPACE}-{os.getpid()}/{container_id}",
                network_namespace="",
            )
            await client.containers.create(
                container_id,
                image=found.name,
                spec=oci.build_spec(plan),
                snapshot_key=container_id,
                labels={},
            )
            mounts = await client.snapshots.prepare(container_id, found.chain_id)
            await client.tasks.create(container_id, mounts)
            await client.tasks.start(container_id)

    async def end(self, container_id: str, number: int = signal.SIGTERM) -> None:
        """Signal, wait, delete everything."""
        client = self.client
        async with self._slots:
            with contextlib.suppress(NotFound):
                await client.tasks.kill(container_id, number, all_processes=number == signal.SIGKILL)
            with contextlib.suppress(NotFound):
                await client.tasks.wait(container_id, timeout_s=DEADLINE_S)
                await client.tasks.delete(container_id)
            await client.containers.delete(container_id)
            with contextlib.suppress(NotFound):
                await client.snapshots.remove(container_id)

    async def up(self, count: int) -> tuple[list[str], float]:
        """Start ``count`` containers; their ids, and how long it took in seconds."""
        names = [f"floor-{uuid.uuid4().hex[:12]}" for _ in range(count)]
        began = time.perf_counter()
        await asyncio.gather(*(self.run(name) for name in names))
        return names, time.perf_counter() - began

    async def down(self, names: list[str]) -> float:
        """End containers; how long it took in seconds."""
        began = time.perf_counter()
        await asyncio.gather(*(self.end(name) for name in names))
        return time.perf_counter() - began

    async def replace(self, name: str) -> tuple[str, float]:
        """Kill a container's process and run another container as soon as that is known."""
        pid = (await self.client.tasks.get(name)).pid
        fresh = f"floor-{uuid.uuid4().hex[:12]}"
        waiting = asyncio.ensure_future(self.client.tasks.wait(name, timeout_s=DEADLINE_S))
        await asyncio.sleep(0.05)
        began = time.perf_counter()
        os.kill(pid, signal.SIGKILL)
        await waiting
        await self.run(fresh)
        took_s = time.perf_counter() - began
        await self.end(name)
        return fresh, took_s

    async def execute(self, client: ContainerdClient, container_id: str) -> float:
        """Run ``true`` in a container of either namespace; how long it took in seconds."""
        record = await client.containers.get(container_id)
        process = oci.exec_process(record.spec_dict(), ["true"])
        began = time.perf_counter()
        result = await client.processes.run(
            container_id,
            process,
            exec_id=uuid.uuid4().hex[:12],
            fifo_dir=self._fifos,
            timeout_s=DEADLINE_S,
            output_limit_bytes=65536,
        )
        assert result.exit_code == 0
        return time.perf_counter() - began


def open_client(socket: Path, namespace: str) -> ContainerdClient:
    codec = CompiledCodec(answers=True)
    return ContainerdClient(
        socket, namespace=namespace, codec=codec, clock=SystemClock(), new_id=lambda: uuid.uuid4().hex
    )


@contextlib.asynccontextmanager
async def running(
    folder: Path, archive: Path
) -> AsyncIterator[tuple[Floor, ContainerdClient, PrivateDaemon]]:
    """A private containerd with the image in both namespaces: floor, client of ours, daemon."""
    daemon = PrivateDaemon(folder / "containerd", clock=SystemClock())
    await daemon.start()
    try:
        async with (
            open_client(daemon.socket, NAMESPACE) as client,
            open_client(daemon.socket, DEFAULT_NAMESPACE) as ours,
        ):
            with tempfile.TemporaryDirectory(dir=folder) as spool:
                for one in (client, ours):
                    await one.importer.import_archive(archive, spool_dir=Path(spool))
            fifos = folder / "fifos"
            fifos.mkdir()
            floor = Floor(client, await client.images.resolve(image.REFERENCE), fifos)
            try:
                yield floor, ours, daemon
            finally:
                for record in await client.containers.list():
                    await floor.end(record.id, signal.SIGKILL)
    finally:
        await daemon.stop()
        _remove_groups()


def _remove_groups() -> None:
    for group in Path("/sys/fs/cgroup").glob(f"*/{NAMESPACE}-{os.getpid()}"):
        group.rmdir()
