"""Ending shims by the containerd that they belong to."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from cloudless.containerd.shims import end_shims

#: Says so when its child runs, and stays for as long as that.
STAY = "sleep 60 & echo $!; wait"
LIMIT_S = 10.0


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
    child = int(process.stdout.readline())
    # Until it is another program, it has the name of its parent and counts as a shim.
    until(lambda: Path(f"/proc/{child}/cmdline").read_bytes().startswith(b"sleep\0"), "the child runs")
    return process, child


def until(fits: Callable[[], bool], what: str) -> None:
    end_s = time.monotonic() + LIMIT_S
    while not fits():
        assert time.monotonic() < end_s, f"not so after {LIMIT_S:g} s: {what}"
        time.sleep(0.01)


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
        assert ours.wait(LIMIT_S) == -9
        until(lambda: gone(child), "its child has ended")
        assert other.poll() is None
        assert program.poll() is None
        assert end_shims(tmp_path / "ours.sock") == 0
    finally:
        assert end_shims(tmp_path / "other.sock") == 1
        program.kill()
        os.kill(spared, signal.SIGKILL)
        for process in (ours, other, program):
            process.communicate(timeout=10)
