"""Ending shims by the containerd that they belong to."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

from cloudless.containerd.shims import end_shims

#: Says so when its child runs, and stays for as long as that.
STAY = "sleep 60 & echo $!; wait"


def started(name: str, socket: Path) -> tuple[subprocess.Popen[str], int]:
    """A process that looks like a shim, and its child."""
    process = subprocess.Popen(
        [name, "-c", STAY, "-namespace", "k8s.io", "-address", str(socket)],
        executable="/bin/sh",
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    return process, int(process.stdout.readline())


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except FileNotFoundError:
        return True


def test_shims_of_one_containerd_end_with_what_they_started(tmp_path: Path) -> None:
    ours, child = started("containerd-shim-runc-v2", tmp_path / "ours.sock")
    other, _ = started("containerd-shim-runc-v2", tmp_path / "other.sock")
    program, spared = started("some-program", tmp_path / "ours.sock")
    try:
        assert end_shims(tmp_path / "ours.sock") == 1
        assert ours.wait(10) == -9
        assert gone(child)
        assert other.poll() is None
        assert program.poll() is None
        assert end_shims(tmp_path / "ours.sock") == 0
    finally:
        assert end_shims(tmp_path / "other.sock") == 1
        program.kill()
        os.kill(spared, signal.SIGKILL)
        for process in (ours, other, program):
            process.communicate(timeout=10)
