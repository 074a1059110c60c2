"""When the output of a process that has ended is complete."""

from __future__ import annotations

import datetime
import os
import pathlib

import pytest

from cloudless.containerd import limits
from cloudless.containerd.execgroups import ExecGroup
from cloudless.containerd.execprocess import ExecProcess
from cloudless.containerd.fifos import FifoReader
from cloudless.containerd.tasks import Exit


class Shim:
    """Holds the output open after the end, and passes the rest on when ``late_s`` have gone by.

    It is the clock as well: each look at it takes half a second.
    """

    def __init__(self, folder: pathlib.Path, late_s: float) -> None:
        os.mkfifo(folder / "stderr")
        self.reader = FifoReader(folder / "stderr")
        self._writer = os.open(folder / "stderr", os.O_WRONLY)
        self._late_s = late_s
        self._now_s = 0.0

    calls = clock = property(lambda self: self)

    async def wait_exit(self, container_id: str, exec_id: str) -> Exit:
        return Exit(1, datetime.datetime.now(datetime.UTC))

    def monotonic(self) -> float:
        self._now_s += 0.5
        if self._writer >= 0 and self._now_s > self._late_s:
            os.write(self._writer, b"no such file")
            self.close()
        return self._now_s

    def close(self) -> None:
        if self._writer >= 0:
            os.close(self._writer)
            self._writer = -1


@pytest.fixture
def group(tmp_path: pathlib.Path) -> pathlib.Path:
    folder = tmp_path / "x-1"
    folder.mkdir()
    return folder


@pytest.mark.parametrize(
    ("living", "grouped", "late_s", "said"),
    [
        ("", True, 5.0, b"no such file"),  # a shim that waits for a processor
        ("", True, limits.EXEC_PASS_ON_S + 5, b""),
        ("12\n", True, 5.0, b""),  # a child in the background
        ("", False, 5.0, b""),
        ("", False, 0.1, b"no such file"),
    ],
)
async def test_output_that_comes_after_the_end(
    tmp_path: pathlib.Path, group: pathlib.Path, living: str, grouped: bool, late_s: float, said: bytes
) -> None:
    (group / "cgroup.procs").write_text(living)
    shim = Shim(tmp_path, late_s)
    process = ExecProcess(
        shim,  # type: ignore[arg-type]
        "cl-a-1",
        "x-1",
        tmp_path,
        terminal=False,
        group=ExecGroup(group) if grouped else None,
    )
    process.stderr = shim.reader
    assert (await process.wait()).exit_code == 1
    assert await shim.reader.read() == said
    shim.close()
    process.close_pipes()
