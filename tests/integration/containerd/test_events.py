"""Events of real tasks, and the gap after a restart of the daemon."""

from __future__ import annotations

import asyncio
import os
import pathlib
import signal
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest
from tests.integration.conftest import RunningContainerd, end_everything, open_client
from tests.integration.containerd.conftest import DEADLINE_S, Bench

from cloudless.aio.clock import SystemClock
from cloudless.containerd import errors
from cloudless.containerd.daemon import PrivateDaemon
from cloudless.containerd.events import (
    Event,
    Gap,
    TaskCreated,
    TaskDeleted,
    TaskExited,
    TaskOomKilled,
    TaskStarted,
)
from cloudless.containerd.plan import Limits
from cloudless.containerd.tasks import TaskStatus


async def until(events: AsyncIterator[Event], container_id: str, *kinds: type) -> list[Event]:
    """The container's events up to where each of these kinds has come."""
    seen: list[Event] = []
    async with asyncio.timeout(DEADLINE_S):
        async for event in events:
            if getattr(event, "container_id", None) == container_id:
                seen.append(event)
                if {type(one) for one in seen}.issuperset(kinds):
                    return seen
    raise AssertionError("the events ended")


async def test_a_life_in_events(bench: Bench) -> None:
    async with aclosing(bench.client.events.follow()) as events:
        assert isinstance(await anext(events), Gap)
        container_id = await bench.start("sh", "-c", "exit 9")
        await bench.client.tasks.wait(container_id, timeout_s=DEADLINE_S)
        await bench.client.tasks.delete(container_id)
        seen = await until(events, container_id, TaskDeleted)
    assert [type(event) for event in seen] == [TaskCreated, TaskStarted, TaskExited, TaskDeleted]
    exited = seen[2]
    assert isinstance(exited, TaskExited)
    assert (exited.exit_code, exited.exec_id) == (9, "")
    assert exited.exited_at is not None


async def test_the_exit_of_an_executed_process_names_it(bench: Bench) -> None:
    async with aclosing(bench.client.events.follow()) as events:
        assert isinstance(await anext(events), Gap)
        container_id = await bench.start()
        await bench.exec(container_id, "false")
        exited = (await until(events, container_id, TaskExited))[-1]
        assert isinstance(exited, TaskExited)
        assert exited.exec_id
        assert exited.exit_code == 1


async def test_out_of_memory_is_told(bench: Bench) -> None:
    """Beside the exit: which of the two comes first is left to the shim."""
    async with aclosing(bench.client.events.follow()) as events:
        assert isinstance(await anext(events), Gap)
        # The shim looks out for it only once the process runs: one that eats at once may be faster.
        hungry = "trap 'exec tail /dev/zero' USR1; while :; do sleep 0.01; done"
        container_id = await bench.start("sh", "-c", hungry, limits=Limits(memory_bytes=16 << 20))
        await bench.wait_for_processes(container_id, 2)  # it has set its trap
        await bench.client.tasks.kill(container_id, signal.SIGUSR1)
        seen = await until(events, container_id, TaskExited, TaskOomKilled)
    (exited,) = [event for event in seen if isinstance(event, TaskExited)]
    assert exited.exit_code == 137


@pytest.fixture
async def own_daemon(
    containerd_daemon: RunningContainerd, tmp_path: pathlib.Path
) -> AsyncIterator[PrivateDaemon]:
    """A second daemon, that may be killed."""
    folder = containerd_daemon.folder.parent / f"own-{os.getpid()}-{tmp_path.name}"[:40]
    daemon = PrivateDaemon(folder, clock=SystemClock())
    await daemon.start()
    yield daemon
    await daemon.start()
    await end_everything(daemon)
    await daemon.stop()


@pytest.fixture
async def own_bench(
    own_daemon: PrivateDaemon, busybox_archive: pathlib.Path, tmp_path: pathlib.Path
) -> AsyncIterator[Bench]:
    async with open_client(own_daemon.socket) as client:
        await client.importer.import_archive(busybox_archive, spool_dir=tmp_path)
        bench = Bench(client, tmp_path)
        yield bench
        await own_daemon.start()
        await bench.destroy_all()


async def test_the_daemon_is_killed_and_comes_back(own_daemon: PrivateDaemon, own_bench: Bench) -> None:
    bench = own_bench
    events = bench.client.events.follow()
    assert isinstance(await anext(events), Gap)
    stays = await bench.start()
    goes = await bench.start("sh", "-c", "sleep 1000; exit 42")
    pids = await bench.wait_for_processes(goes, 2)
    shell = (await bench.client.tasks.get(goes)).pid
    waiting = asyncio.ensure_future(bench.client.tasks.wait(stays))
    pid = (await bench.client.tasks.get(stays)).pid
    assert own_daemon.pid is not None
    os.kill(own_daemon.pid, signal.SIGKILL)
    await own_daemon.wait()
    with pytest.raises(errors.Unavailable):
        await waiting
    with pytest.raises(errors.Unavailable):
        await bench.client.tasks.get(stays)
    (sleep,) = set(pids) - {shell}
    os.kill(sleep, signal.SIGKILL)  # so it ends while nobody looks
    async with asyncio.timeout(DEADLINE_S):
        while pathlib.Path(f"/proc/{shell}").exists():
            await asyncio.sleep(0.02)
    assert await own_daemon.start() is False
    # Re-list: what ran on runs on, what ended is known with its code.
    async with asyncio.timeout(DEADLINE_S):
        while not isinstance(await anext(events), Gap):
            pass
    tasks = {task.container_id: task for task in await bench.client.tasks.list()}
    assert (tasks[stays].status, tasks[stays].pid) == (TaskStatus.RUNNING, pid)
    assert tasks[goes].status is TaskStatus.STOPPED
    assert (await bench.client.tasks.wait(goes, timeout_s=DEADLINE_S)).exit_code == 42
    assert (await bench.exec(stays, "echo", "still")).stdout == b"still\n"
    await events.aclose()


async def test_a_crash_of_ours_is_followed_by_adoption(own_daemon: PrivateDaemon, own_bench: Bench) -> None:
    bench = own_bench
    container_id = await bench.start()
    task = await bench.client.tasks.get(container_id)
    # Another object on the same folder is what our next life will be.
    again = PrivateDaemon(own_daemon.layout.folder, clock=SystemClock())
    assert await again.start() is True
    assert again.pid == own_daemon.pid
    again.layout.pid.unlink()  # also without the file that names it
    third = PrivateDaemon(own_daemon.layout.folder, clock=SystemClock())
    assert await third.start() is True
    assert (await bench.client.tasks.get(container_id)) == task


async def test_one_that_hangs_is_replaced_and_its_containers_stay(
    own_daemon: PrivateDaemon, own_bench: Bench
) -> None:
    bench = own_bench
    container_id = await bench.start()
    task = await bench.client.tasks.get(container_id)
    hung = own_daemon.pid
    assert hung is not None
    os.kill(hung, signal.SIGSTOP)
    again = PrivateDaemon(own_daemon.layout.folder, clock=SystemClock())
    assert await again.start(timeout_s=5.0) is False
    assert again.pid not in (None, hung)
    assert await bench.client.tasks.get(container_id) == task
    await again.stop()
    assert pathlib.Path(f"/proc/{task.pid}").exists()
    assert await own_daemon.start() is False


async def test_a_shim_that_dies_is_told_apart(bench: Bench) -> None:
    container_id = await bench.start()
    pid = (await bench.client.tasks.get(container_id)).pid
    shim = int(pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    assert "shim" in pathlib.Path(f"/proc/{shim}/comm").read_text()
    async with aclosing(bench.client.events.follow()) as events:
        assert isinstance(await anext(events), Gap)
        waiting = asyncio.ensure_future(bench.client.tasks.wait(container_id, timeout_s=DEADLINE_S))
        await bench.client.tasks.get(container_id)
        os.kill(shim, signal.SIGKILL)
        with pytest.raises(errors.ShimLost):
            await waiting
        exited = (await until(events, container_id, TaskExited))[-1]
        assert isinstance(exited, TaskExited)
        assert exited.exit_code == 137


async def test_a_broken_configuration_is_told_with_the_log(tmp_path: pathlib.Path) -> None:
    daemon = PrivateDaemon(tmp_path / "d", clock=SystemClock())
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "root").write_text("a file where a folder belongs")
    with pytest.raises(errors.Failed, match="root"):
        await daemon.start(timeout_s=10)
    assert daemon.pid is None
