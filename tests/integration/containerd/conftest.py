"""Containers for the tests of this room: started with little ado, gone afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import pathlib
import signal
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.integration.conftest import BUSYBOX_IMAGE, CGROUP

from cloudless.containerd import oci
from cloudless.containerd.client import ContainerdClient
from cloudless.containerd.errors import NotFound
from cloudless.containerd.plan import ContainerPlan
from cloudless.containerd.process import ExecResult
from cloudless.containerd.runtimes import RUNC, Runtime
from cloudless.containerd.tasks import Exit

DEADLINE_S = 20.0


class Bench:
    """Makes containers from the busybox image."""

    def __init__(self, client: ContainerdClient, folder: pathlib.Path) -> None:
        self.client = client
        self.folder = folder
        self.fifos = folder / "fifos"
        self.fifos.mkdir()
        self._made: list[str] = []

    def new_id(self) -> str:
        return f"t-{uuid.uuid4().hex[:12]}"

    async def create(
        self,
        *args: str,
        image: str = BUSYBOX_IMAGE,
        log: str = "",
        runtime: Runtime = RUNC,
        **changes: Any,
    ) -> str:
        """Record, snapshot and task; the process waits."""
        container_id = self.new_id()
        found = await self.client.images.resolve(image)
        plan = ContainerPlan(
            args=args or ("sleep", "1000"),
            env=found.config.env,
            hostname=container_id,
            cgroup_path=f"/{CGROUP}/{container_id}",
            network_namespace="",
        )
        plan = dataclasses.replace(plan, **changes)
        self._made.append(container_id)
        await self.client.containers.create(
            container_id,
            image=found.name,
            spec=oci.build_spec(plan),
            snapshot_key=container_id,
            labels={"made-by": "bench"},
            runtime=runtime,
        )
        mounts = await self.client.snapshots.prepare(container_id, found.chain_id)
        await self.client.tasks.create(container_id, mounts, log_uri=log, runtime=runtime)
        return container_id

    async def start(self, *args: str, **changes: Any) -> str:
        container_id = await self.create(*args, **changes)
        await self.client.tasks.start(container_id)
        return container_id

    async def output(self, *args: str, **changes: Any) -> tuple[Exit, str]:
        """Run to the end; how it ended and what it wrote."""
        log = self.folder / f"{self.new_id()}.log"
        container_id = await self.start(*args, log=f"file://{log}", **changes)
        ended = await self.client.tasks.wait(container_id, timeout_s=DEADLINE_S)
        await self.destroy(container_id)
        return ended, log.read_text()

    async def exec(self, container_id: str, *args: str, stdin: bytes = b"", **options: Any) -> ExecResult:
        record = await self.client.containers.get(container_id)
        return await self.client.processes.run(
            container_id,
            oci.exec_process(record.spec_dict(), args, **options),
            exec_id=self.new_id(),
            fifo_dir=self.fifos,
            stdin=stdin,
            timeout_s=DEADLINE_S,
            output_limit_bytes=1_000_000,
        )

    async def wait_for_processes(self, container_id: str, count: int) -> tuple[int, ...]:
        """Their pids, once there are ``count`` of them."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                pids = await self.client.tasks.pids(container_id)
                if len(pids) >= count:
                    return pids
                await asyncio.sleep(0)

    async def wait_for_only(self, container_id: str, pids: set[int]) -> None:
        """Return when nothing but these processes is left: what was killed takes a moment to die."""
        async with asyncio.timeout(DEADLINE_S):
            while set(await self.client.tasks.pids(container_id)) != pids:
                await asyncio.sleep(0.02)

    async def destroy(self, container_id: str) -> None:
        client = self.client
        with contextlib.suppress(NotFound):
            with contextlib.suppress(NotFound):
                await client.tasks.kill(container_id, signal.SIGKILL, all_processes=True)
            await client.tasks.wait(container_id, timeout_s=DEADLINE_S)
            await client.tasks.delete(container_id)
        with contextlib.suppress(NotFound):
            await client.snapshots.remove(container_id)
        with contextlib.suppress(NotFound):
            await client.containers.delete(container_id)

    async def destroy_all(self) -> None:
        for container_id in self._made:
            await self.destroy(container_id)


@pytest.fixture
async def bench(containerd_client: ContainerdClient, tmp_path: pathlib.Path) -> AsyncIterator[Bench]:
    made = Bench(containerd_client, tmp_path)
    yield made
    await made.destroy_all()
