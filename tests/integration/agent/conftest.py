"""Runtimes and whole agents on a real containerd and the kernel's network."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import pathlib
import random
import shutil
import signal
import sys
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.integration.agent import agent_process as agent_program
from tests.integration.agent.stage import LIMIT_S, Stage
from tests.integration.conftest import BUSYBOX_IMAGE, RunningContainerd
from tests.unit.agent.runtime.contract import RuntimeBench

from cloudless.agent.config import AgentConfig
from cloudless.agent.network.kernel import KernelNetwork
from cloudless.agent.network.port import Attachment
from cloudless.agent.runtime.containerd import ContainerdRuntime
from cloudless.aio.clock import SystemClock
from cloudless.aio.ids import random_id
from cloudless.containerd.client import ContainerdClient


@pytest.fixture
async def bench(
    containerd_daemon: RunningContainerd, containerd_client: ContainerdClient, tmp_path: pathlib.Path
) -> AsyncIterator[RuntimeBench]:
    node_id = uuid.uuid4().hex[:12]
    folders = itertools.count()

    def make(node: str) -> ContainerdRuntime:
        client = ContainerdClient(containerd_daemon.socket, clock=SystemClock(), new_id=random_id)
        return ContainerdRuntime(
            client,
            node_id=node,
            folder=tmp_path / str(next(folders)),
            clock=SystemClock(),
            new_id=random_id,
        )

    async def another_life() -> ContainerdRuntime:
        return make(node_id)

    runtime, other = make(node_id), make("another")
    try:
        yield RuntimeBench(runtime, another_life, other, await runtime.resolve(BUSYBOX_IMAGE), random_id)
    finally:
        for fact in await runtime.list():
            with contextlib.suppress(Exception):
                await runtime.delete(fact.id)
        await runtime.close()
        await other.close()


class AgentProcess:
    """An agent that runs as its own process; ``kill`` and ``start`` it as often as needed."""

    def __init__(self, config: AgentConfig) -> None:
        self.config = config
        self.port = 0
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        source = pathlib.Path(agent_program.__file__)
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(source),
            self.config.model_dump_json(),
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
        assert self._process.stdout is not None
        async with asyncio.timeout(LIMIT_S):
            line = await self._process.stdout.readline()
        self.port = int(line)

    async def kill(self, number: int = signal.SIGKILL) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)
            await self._process.wait()
            self._process = None


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with Stage() as stage:
        yield stage


@pytest.fixture
async def settings(
    stage: Stage,
    containerd_daemon: RunningContainerd,
    containerd_client: ContainerdClient,
    tmp_path: pathlib.Path,
) -> dict[str, Any]:
    """Of an agent that uses the session's containerd and dials the stage."""
    return {
        "data_dir": tmp_path / "data",
        "node_name": "node-1",
        "coordinator_address": f"127.0.0.1:{stage.port}",
        "agent_address": "127.0.0.1:0",
        "containerd": str(containerd_daemon.socket),
    }


@pytest.fixture
async def agent_process(settings: dict[str, Any], stage: Stage) -> AsyncIterator[AgentProcess]:
    """Started; at the end everything is taken away from it, and nothing may be left."""
    settings["data_dir"].mkdir()
    process = AgentProcess(AgentConfig.model_validate(settings))
    await process.start()
    try:
        await stage.until(lambda: stage.facts is not None and not stage.facts.not_ready)
        yield process
    finally:
        gone = tuple(stage.wanted)
        stage.removed.clear()
        stage.tell(removed=gone)
        try:
            await stage.until_gone(*gone)
        finally:
            await process.kill(signal.SIGTERM)


@pytest.fixture
async def replica(tmp_path: pathlib.Path) -> AsyncIterator[Attachment]:
    """A replica's place in a network, with nobody in it yet."""
    key = uuid.uuid4().hex
    run = pathlib.Path("/run") / f"cloudless-test-{key}"
    network_range = f"10.{random.randint(233, 243)}.{random.randint(0, 255)}.0/24"
    network = KernelNetwork(key, tmp_path / "network", run_directory=run, network_range=network_range)
    yield await network.attach("one", hostname="one")
    await network.collect(())
    await network.close()
    shutil.rmtree(run, ignore_errors=True)
