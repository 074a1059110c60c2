"""Create, start, wait, kill, delete; what goes wrong, and what is left behind."""

from __future__ import annotations

import asyncio
import glob
import os
import pathlib
import signal

import pytest
from tests.integration.conftest import BUSYBOX_IMAGE, CGROUP, RunningContainerd
from tests.integration.containerd.conftest import DEADLINE_S, Bench

from cloudless.containerd import errors
from cloudless.containerd.shims import shims_of
from cloudless.containerd.tasks import TaskStatus


async def test_version_names_the_daemon(bench: Bench) -> None:
    assert (await bench.client.version(timeout_s=5)).version


async def test_a_container_runs_and_gives_its_exit_code(bench: Bench) -> None:
    ended, text = await bench.output("sh", "-c", "echo hello; exit 42")
    assert (ended.exit_code, text) == (42, "hello\n")
    assert ended.exited_at is not None


async def test_the_states_of_a_task(bench: Bench) -> None:
    container_id = await bench.create("sleep", "1000")
    assert (await bench.client.tasks.get(container_id)).status is TaskStatus.CREATED
    pid = await bench.client.tasks.start(container_id)
    task = await bench.client.tasks.get(container_id)
    assert (task.status, task.pid, task.exited_at) == (TaskStatus.RUNNING, pid, None)
    assert pid in await bench.client.tasks.pids(container_id)
    listed = {task.container_id: task for task in await bench.client.tasks.list()}
    assert listed[container_id].pid == pid
    await bench.client.tasks.kill(container_id, signal.SIGKILL)
    assert (await bench.client.tasks.wait(container_id, timeout_s=DEADLINE_S)).exit_code == 137
    assert (await bench.client.tasks.get(container_id)).status is TaskStatus.STOPPED
    assert (await bench.client.tasks.delete(container_id)).exit_code == 137


async def test_sigterm_reaches_the_process(bench: Bench) -> None:
    container_id = await bench.start("sh", "-c", "trap 'exit 7' TERM; while :; do sleep 0.01; done")
    # The shell must have set its trap: it is listening once it has forked a sleep.
    await bench.wait_for_processes(container_id, 2)
    await bench.client.tasks.kill(container_id, signal.SIGTERM)
    assert (await bench.client.tasks.wait(container_id, timeout_s=DEADLINE_S)).exit_code == 7


async def test_records_keep_their_labels_and_are_found_by_them(bench: Bench) -> None:
    container_id = await bench.create()
    record = await bench.client.containers.get(container_id)
    assert record.image == BUSYBOX_IMAGE
    assert dict(record.labels) == {"made-by": "bench"}
    assert record.spec_dict()["hostname"] == container_id
    found = await bench.client.containers.list('labels."made-by"==bench')
    assert container_id in {one.id for one in found}
    assert await bench.client.containers.list('labels."made-by"==nobody') == ()


@pytest.mark.parametrize(
    ("command", "error"),
    [
        ("/no/such/file", errors.CommandNotFound),
        ("nosuchcommand", errors.CommandNotFound),
        ("/etc/passwd", errors.CommandNotExecutable),
        ("/etc", errors.CommandNotExecutable),
    ],
)
async def test_a_command_that_cannot_run_is_named(
    bench: Bench, command: str, error: type[errors.ContainerdError]
) -> None:
    with pytest.raises(error) as caught:
        await bench.create(command)
    assert command in caught.value.message


async def test_what_is_missing_or_taken_is_sorted(bench: Bench) -> None:
    with pytest.raises(errors.NotFound):
        await bench.client.tasks.get("nobody")
    with pytest.raises(errors.NotFound):
        await bench.client.containers.get("nobody")
    with pytest.raises(errors.NotFound):
        await bench.client.tasks.kill("nobody", 9)
    with pytest.raises(errors.ImageNotFound):
        await bench.client.images.resolve("localhost/nobody/nothing:v1")
    container_id = await bench.start()
    with pytest.raises(errors.PreconditionFailed):
        await bench.client.tasks.delete(container_id)
    image = await bench.client.images.resolve(BUSYBOX_IMAGE)
    with pytest.raises(errors.AlreadyExists):
        await bench.client.snapshots.prepare(container_id, image.chain_id)
    await bench.client.tasks.kill(container_id, signal.SIGKILL)
    await bench.client.tasks.wait(container_id, timeout_s=DEADLINE_S)
    with pytest.raises(errors.NotFound):
        await bench.client.tasks.kill(container_id, signal.SIGKILL)


async def test_a_snapshot_survives_the_collector_because_its_record_came_first(bench: Bench) -> None:
    """Every delete starts the garbage collector; a snapshot without an owner would fall to it."""

    async def churn() -> None:
        for _ in range(6):
            await bench.destroy(await bench.create())

    async with asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(churn())


async def test_nothing_is_left_behind(bench: Bench, containerd_daemon: RunningContainerd) -> None:
    container_id = await bench.start()
    pid = (await bench.client.tasks.get(container_id)).pid
    await bench.destroy(container_id)
    assert not pathlib.Path(f"/proc/{pid}").exists()
    assert container_id not in {task.container_id for task in await bench.client.tasks.list()}
    assert not await bench.client.snapshots.exists(container_id)
    assert container_id not in pathlib.Path("/proc/mounts").read_text()
    # Not ``rglob``: that raises when a folder of another container goes while it looks.
    for folder, folders, files in os.walk(containerd_daemon.folder):
        assert not [name for name in (*folders, *files) if container_id in name], folder
    assert not list(pathlib.Path("/sys/fs/cgroup").glob(f"*/{CGROUP}/{container_id}"))


async def test_what_runs_without_a_record_is_ended(
    bench: Bench, containerd_daemon: RunningContainerd
) -> None:
    """As after the death of whoever was about to make it."""
    kept, stray = await bench.start(), await bench.start()
    tasks = bench.client.tasks
    pids = {name: (await tasks.get(name)).pid for name in (kept, stray)}
    shims = {shim.container_id: shim.pid for shim in shims_of(containerd_daemon.socket)}
    await bench.client.containers.delete(stray)
    assert await bench.client.strays.collect("other-") == ()
    assert await bench.client.strays.collect("t-") == (), "it may be about to end by itself"
    assert await bench.client.strays.collect("t-") == (stray,)
    assert await bench.client.strays.collect("t-") == ()

    def left() -> list[str]:
        """What is still there of the stray: containerd tidies up after the shim's end, when it notices."""
        kind, folder = "io.containerd.runtime.v2.task", containerd_daemon.folder
        found = [glob.glob(f"{place}/{kind}/*/{stray}", root_dir=folder) for place in ("root", "state")]
        bundles = [folder / name for names in found for name in names]
        paths = [pathlib.Path(f"/proc/{pid}") for pid in (pids[stray], shims[stray])]
        paths += [*bundles, pathlib.Path(f"/run/containerd/runc/k8s.io/{stray}")]
        mounts = pathlib.Path("/proc/mounts").read_text().splitlines()
        return [
            *(str(path) for path in paths if path.exists()),
            *(line for line in mounts if f"/{stray}/" in line),
        ]

    async with asyncio.timeout(DEADLINE_S):
        while left():
            await asyncio.sleep(0.02)
    assert (await tasks.get(kept)).status is TaskStatus.RUNNING
