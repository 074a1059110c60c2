"""Other OCI runtimes under the same shim."""

from __future__ import annotations

import os
import pathlib
import shutil
from collections.abc import AsyncIterator

import pytest
from tests.integration.conftest import (
    RunningContainerd,
    end_everything,
    need_containerd,
    open_client,
)
from tests.integration.containerd.conftest import Bench

from cloudless.aio.clock import SystemClock
from cloudless.containerd import errors
from cloudless.containerd.daemon import PrivateDaemon
from cloudless.containerd.plan import Limits
from cloudless.containerd.runtimes import HYBRID_CGROUP, Missing, Runtime, probe

#: crun refuses a node that mixes both cgroup versions, so its daemon sees only one.
WITHOUT_SECOND_CGROUP = """#!/bin/sh
exec unshare --mount --propagation private sh -c 'umount -l {mixed}; exec {containerd} "$@"' sh "$@"
"""


@pytest.fixture
async def crun_daemon(
    containerd_daemon: RunningContainerd, tmp_path: pathlib.Path
) -> AsyncIterator[PrivateDaemon]:
    real = shutil.which("containerd")
    if HYBRID_CGROUP.is_mount():
        wrapper = tmp_path / "containerd"
        wrapper.write_text(WITHOUT_SECOND_CGROUP.format(mixed=HYBRID_CGROUP, containerd=real))
        wrapper.chmod(0o755)
        real = str(wrapper)
    folder = containerd_daemon.folder.parent / f"crun-{os.getpid()}"
    daemon = PrivateDaemon(folder, clock=SystemClock(), which=lambda name: real)
    await daemon.start()
    yield daemon
    await end_everything(daemon)
    await daemon.stop()


async def test_crun(
    crun_daemon: PrivateDaemon, busybox_archive: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    binary = shutil.which("crun")
    if binary is None:
        pytest.skip("needs crun")
    crun = Runtime("crun", binary=binary)
    async with open_client(crun_daemon.socket) as client:
        await client.importer.import_archive(busybox_archive, spool_dir=tmp_path)
        bench = Bench(client, tmp_path)
        container_id = await bench.start(runtime=crun, limits=Limits(memory_bytes=32 << 20, pids=10))
        assert (await client.containers.get(container_id)).runtime == crun.shim
        result = await bench.exec(container_id, "sh", "-c", "cat /proc/self/status; exit 3")
        assert result.exit_code == 3
        assert b"Seccomp:\t2" in result.stdout
        assert b"NoNewPrivs:\t1" in result.stdout
        for command, error in (
            ("nosuchcommand", errors.CommandNotFound),
            ("/no/such", errors.CommandNotFound),
            ("/etc/passwd", errors.CommandNotExecutable),
        ):
            with pytest.raises(error):
                await bench.create(command, runtime=crun)
            with pytest.raises(error):
                await bench.exec(container_id, command)
        await bench.destroy_all()


def test_what_this_node_has_is_told(tmp_path: pathlib.Path) -> None:
    need_containerd()
    for name, found in probe(tmp_path).items():
        assert isinstance(found, Runtime) or (isinstance(found, Missing) and found.reason), name
