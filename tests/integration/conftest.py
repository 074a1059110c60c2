"""Real parts for the integration ring: a private containerd for the whole session.

``containerd_daemon`` runs it (``.socket``); ``busybox_archive`` is an image archive made
on the spot; ``containerd_client`` is a client in whose daemon that image is imported.
A missing part is a skip with its reason.
"""

from __future__ import annotations

import asyncio
import contextlib
import glob
import os
import pathlib
import shutil
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import pytest
from tests.integration.containerd import imagebuild

from cloudless.aio.clock import SystemClock
from cloudless.containerd.client import ContainerdClient
from cloudless.containerd.daemon import PrivateDaemon
from cloudless.containerd.errors import ImageNotFound, NotFound
from cloudless.transport.codec import CompiledCodec

#: The parent of every test container's cgroup, for this session alone.
CGROUP = f"cloudless-test-{os.getpid()}"
CGROUPS = "/sys/fs/cgroup"
BUSYBOX_IMAGE = "docker.io/library/busybox:latest"


@dataclass(frozen=True)
class RunningContainerd:
    """A private containerd that answers at ``socket``; its files lie in ``folder``."""

    socket: pathlib.Path
    folder: pathlib.Path
    daemon: PrivateDaemon


def open_client(socket: pathlib.Path) -> ContainerdClient:
    """As the agent does it: with the codec that every connection of this project uses."""
    codec = CompiledCodec(answers=True)
    return ContainerdClient(socket, codec=codec, clock=SystemClock(), new_id=lambda: uuid.uuid4().hex)


def need_containerd() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    for program in ("containerd", "runc"):
        if shutil.which(program) is None:
            pytest.skip(f"needs {program}")


@pytest.fixture(scope="session")
def containerd_daemon() -> Iterator[RunningContainerd]:
    with running_containerd() as daemon:
        yield daemon


@contextlib.contextmanager
def running_containerd() -> Iterator[RunningContainerd]:
    """A containerd of its own, with nothing in it."""
    need_containerd()
    # Not below pytest's folders: the path of a socket must be short.
    folder = pathlib.Path(tempfile.mkdtemp(prefix="ctd-"))
    daemon = PrivateDaemon(folder / "containerd", clock=SystemClock())
    try:
        asyncio.run(daemon.start())
        yield RunningContainerd(daemon.socket, daemon.layout.folder, daemon)
        asyncio.run(end_everything(daemon))
    finally:
        asyncio.run(daemon.stop())
        shutil.rmtree(folder)
        # Not ``rglob``: that raises when any group of the host goes while it looks.
        for name in (*glob.glob(CGROUP, root_dir=CGROUPS), *glob.glob(f"*/{CGROUP}", root_dir=CGROUPS)):
            with contextlib.suppress(FileNotFoundError):  # two names of one hierarchy
                pathlib.Path(CGROUPS, name).rmdir()


async def end_everything(daemon: PrivateDaemon) -> None:
    """Whatever failed tests left: containers must not outlive the session."""
    async with open_client(daemon.socket) as client:
        for task in await client.tasks.list():
            with contextlib.suppress(NotFound):
                await client.tasks.kill(task.container_id, 9, all_processes=True)
            await client.tasks.wait(task.container_id, timeout_s=10)
            await client.tasks.delete(task.container_id)


@pytest.fixture(scope="session")
def busybox_archive(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    if not imagebuild.BUSYBOX.exists():
        pytest.skip("needs busybox-static")
    path = tmp_path_factory.mktemp("images") / "busybox.tar"
    return imagebuild.docker_archive(path, BUSYBOX_IMAGE, [imagebuild.busybox_layer()])


@pytest.fixture
async def containerd_client(
    containerd_daemon: RunningContainerd, busybox_archive: pathlib.Path, tmp_path: pathlib.Path
) -> AsyncIterator[ContainerdClient]:
    async with open_client(containerd_daemon.socket) as client:
        try:
            await client.images.resolve(BUSYBOX_IMAGE)
        except ImageNotFound:
            await client.importer.import_archive(busybox_archive, spool_dir=tmp_path)
        yield client
