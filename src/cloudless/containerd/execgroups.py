"""Control groups for executed processes: one below the container's, for each of them.

Whatever a process starts is born into its group and cannot leave it: a daemon that
forks twice, begins a session of its own and clears its environment is found all the
same. The process is put there by the OCI runtime (``runtimes`` writes the wrapper that
asks for it) before its program runs, so no child can slip through. cgroup v1 is proven
here (the freezer's hierarchy); v2 is written after its documentation and not proven.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib
import signal
from dataclasses import dataclass

from cloudless.containerd import limits

CGROUPS = pathlib.Path("/sys/fs/cgroup")
#: Execs whose id begins so are put into a group of that name.
PREFIX = "x-"


@dataclass(frozen=True)
class Hierarchy:
    """Where groups are made: ``controller`` is what the OCI runtime calls it, empty for v2."""

    root: pathlib.Path
    controller: str

    @property
    def argument(self) -> str:
        """What stands before a group's name in the runtime's ``--cgroup``."""
        return f"{self.controller}:" if self.controller else ""


def find_hierarchy(root: pathlib.Path = CGROUPS) -> Hierarchy | None:
    """The hierarchy of this machine for our groups; ``None`` when there is none to use."""
    if (root / "cgroup.controllers").exists():
        return Hierarchy(root, "")
    if (root / "freezer").is_dir():
        return Hierarchy(root / "freezer", "freezer")
    return None


class ExecGroup:
    """The group of one executed process; it exists between ``make`` and ``remove``."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path

    @classmethod
    def of(cls, hierarchy: Hierarchy | None, container_group: str, exec_id: str) -> ExecGroup | None:
        """The group of a process in the container whose group (a path in its spec) is given."""
        if hierarchy is None or not container_group.startswith("/") or not exec_id.startswith(PREFIX):
            return None
        return cls(hierarchy.root / container_group.lstrip("/") / exec_id)

    def make(self) -> None:
        """Make it; raises ``OSError`` when the container has no group (any more)."""
        self.path.mkdir()

    def adopt(self, pid: int) -> None:
        """Put a process in: for containers whose runtime does not do it. Gone is no error."""
        with contextlib.suppress(OSError):
            (self.path / "cgroup.procs").write_text(str(pid))

    def pids(self) -> tuple[int, ...]:
        """Living processes in it, as numbered on the node; none when there is no such group."""
        try:
            return tuple(map(int, (self.path / "cgroup.procs").read_text().split()))
        except OSError:
            return ()

    def signal(self, *numbers: signal.Signals) -> None:
        """Send signals, in this order, to everything in it."""
        for handle in self._handles():
            for number in numbers:
                with contextlib.suppress(OSError):
                    signal.pidfd_send_signal(handle, number)
            os.close(handle)

    def kill(self) -> None:
        """Kill everything in it; nothing escapes by forking meanwhile."""
        try:
            (self.path / "cgroup.kill").write_text("1")
        except OSError:
            # v1: what is frozen cannot fork, and dies when it thaws.
            self._freeze("FROZEN")
            self.signal(signal.SIGKILL)
            self._freeze("THAWED")

    async def emptied(self, limit_s: float) -> bool:
        """Wait until nothing lives in it; False after ``limit_s``."""
        try:
            async with asyncio.timeout(limit_s):
                while handles := self._handles():
                    await _ended(handles)
        except TimeoutError:
            return False
        return True

    async def end(self, *, terminal: bool = False, grace_s: float | None = None) -> bool:
        """SIGTERM, a grace, SIGKILL for all that lives in it; False when something still does.

        What hangs on a terminal is told that it hung up: a shell for people minds nothing else.
        """
        hang_up = (signal.SIGHUP,) if terminal else ()
        self.signal(signal.SIGTERM, *hang_up, signal.SIGCONT)
        if await self.emptied(limits.EXEC_TERM_GRACE_S if grace_s is None else grace_s):
            return True
        self.kill()
        return await self.emptied(limits.EXEC_KILL_S)

    def remove(self) -> bool:
        """Remove it; False when something lives in it. Gone is no error."""
        try:
            self.path.rmdir()
        except FileNotFoundError:
            return True
        except OSError:
            return False
        return True

    def _handles(self) -> list[int]:
        """A handle for each living process: a number could be given away anew."""
        handles = []
        for pid in self.pids():
            with contextlib.suppress(OSError):
                handles.append(os.pidfd_open(pid))
        return handles

    def _freeze(self, state: str) -> None:
        with contextlib.suppress(OSError):
            (self.path / "freezer.state").write_text(state)


async def _ended(handles: list[int]) -> None:
    """Wait until every process has ended; closes the handles in every case."""
    loop = asyncio.get_running_loop()
    left = set(handles)
    done = asyncio.Event()

    def ended(handle: int) -> None:
        loop.remove_reader(handle)
        left.discard(handle)
        if not left:
            done.set()

    try:
        for handle in handles:
            loop.add_reader(handle, ended, handle)
        await done.wait()
    finally:
        for handle in left:
            loop.remove_reader(handle)
        for handle in handles:
            os.close(handle)
