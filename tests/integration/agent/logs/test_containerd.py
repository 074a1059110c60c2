"""Real containers whose output a real shim hands to the logger."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator

import pytest
from tests.integration.conftest import end_everything, need_containerd, open_client
from tests.integration.containerd.conftest import Bench

from cloudless.agent.logs.reader import ReadOptions
from cloudless.agent.logs.store import LogStore
from cloudless.aio.clock import SystemClock
from cloudless.containerd.client import ContainerdClient
from cloudless.containerd.daemon import PrivateDaemon
from cloudless.domain import loglines as lines

DEADLINE_S = 30


@pytest.fixture
async def bench(containerd_client: ContainerdClient, tmp_path: pathlib.Path) -> AsyncIterator[Bench]:
    made = Bench(containerd_client, tmp_path)
    yield made
    await made.destroy_all()


@pytest.fixture
async def store(tmp_path: pathlib.Path) -> AsyncIterator[LogStore]:
    made = LogStore(tmp_path / "logs", tmp_path / "bin")
    yield made
    made.close()


async def content(store: LogStore, replica: str, options: ReadOptions) -> bytes:
    found = b""
    async with asyncio.timeout(DEADLINE_S), contextlib.aclosing(store.read(replica, 0, options)) as log:
        async for batch in log:
            assert batch.gap_bytes == 0
            for record in lines.parse(batch.data):
                found += record.data + (b"" if record.partial else b"\n")
    return found


async def test_a_containers_output_is_logged_to_its_end(bench: Bench, store: LogStore) -> None:
    count = "i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done"
    script = f"echo out; echo err >&2; {count}; printf end"
    container_id = await bench.start("sh", "-c", script, log=store.prepare("web-0", 0))
    options = ReadOptions(follow=True, streams=frozenset({"stdout"}))
    async with asyncio.TaskGroup() as together:
        following = together.create_task(content(store, "web-0", options))
        await bench.client.tasks.wait(container_id, timeout_s=DEADLINE_S)
        # The shim keeps the outputs open for as long as there is a task.
        await bench.destroy(container_id)
    numbers = b"".join(b"line %d\n" % number for number in range(2000))
    assert following.result() == b"out\n" + numbers + b"end"
    assert await content(store, "web-0", ReadOptions(streams=frozenset({"stderr"}))) == b"err\n"


async def test_deleting_a_task_waits_for_its_log(bench: Bench, store: LogStore) -> None:
    """The shim ends the logger with SIGTERM: what the container wrote before must not be lost."""
    script = "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done"
    container_id = await bench.start("sh", "-c", script, log=store.prepare("web-0", 0))
    await bench.client.tasks.wait(container_id, timeout_s=DEADLINE_S)
    await bench.destroy(container_id)
    everything = await content(store, "web-0", ReadOptions())
    assert everything == b"".join(b"line %d\n" % number for number in range(20000))


async def test_a_log_goes_on_while_containerd_is_dead(
    busybox_archive: pathlib.Path, store: LogStore, tmp_path: pathlib.Path
) -> None:
    need_containerd()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="ctd-"))
    daemon = PrivateDaemon(folder / "containerd", clock=SystemClock())
    script = "i=0; while true; do echo line $i; i=$((i+1)); usleep 1000; done"
    try:
        await daemon.start()
        async with open_client(daemon.socket) as client:
            await client.importer.import_archive(busybox_archive, spool_dir=tmp_path)
            bench = Bench(client, tmp_path)
            container_id = await bench.start("sh", "-c", script, log=store.prepare("web-0", 0))
            options = ReadOptions(follow=True)
            async with asyncio.timeout(DEADLINE_S):
                async with contextlib.aclosing(store.read("web-0", 0, options)) as log:
                    got = [record.data for record in lines.parse((await anext(log)).data)]
                    assert daemon.pid is not None
                    os.kill(daemon.pid, signal.SIGKILL)
                    while len(got) < 300:
                        got += [record.data for record in lines.parse((await anext(log)).data)]
                await daemon.start()
            assert got == [b"line %d" % number for number in range(len(got))]
            async with asyncio.timeout(DEADLINE_S):
                await bench.destroy(container_id)
        await end_everything(daemon)
    finally:
        await daemon.stop()
        shutil.rmtree(folder)
