from __future__ import annotations

import os
import pathlib
import signal
import subprocess

from cloudless.containerd.proctree import find_tree, signal_tree


def fake(proc: pathlib.Path, pid: int, parent: int, environ: bytes = b"", name: str = "sh") -> None:
    folder = proc / str(pid)
    folder.mkdir()
    (folder / "stat").write_text(f"{pid} ({name}) S {parent} 1 1 0")
    (folder / "environ").write_bytes(environ)


def test_descendants_and_those_that_cut_loose(tmp_path: pathlib.Path) -> None:
    fake(tmp_path, 1, 0)
    fake(tmp_path, 10, 1, b"EXEC_ID=a\0")
    fake(tmp_path, 11, 10, name="odd ) name (")
    fake(tmp_path, 12, 11)
    fake(tmp_path, 20, 1, b"X=1\0EXEC_ID=a\0")
    fake(tmp_path, 21, 20)
    fake(tmp_path, 30, 1, b"EXEC_ID=ab\0")
    pids = [1, 10, 11, 12, 20, 21, 30, 99]
    assert find_tree(pids, 10, "EXEC_ID=a", tmp_path) == {10, 11, 12, 20, 21}
    assert find_tree(pids, None, "EXEC_ID=ab", tmp_path) == {30}
    assert find_tree([1, 30], 10, "EXEC_ID=a", tmp_path) == set()


def waiting(**env: str) -> subprocess.Popen[bytes]:
    """A program that runs: right after its start the kernel does not show its environment yet."""
    command = ["sh", "-c", "echo up; read line"]
    program = subprocess.Popen(
        command, env={**os.environ, **env}, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert program.stdout is not None
    assert program.stdout.readline() == b"up\n"
    return program


def test_a_signal_reaches_the_tree_alone() -> None:
    with waiting(EXEC_ID="mine") as marked, waiting() as other:
        try:
            pids = [marked.pid, other.pid, 2**22 + 1]
            assert signal_tree(pids, None, "EXEC_ID=mine", signal.SIGKILL) == 1
            assert marked.wait(10) == -signal.SIGKILL
            assert other.poll() is None
        finally:
            marked.kill()
            other.kill()
