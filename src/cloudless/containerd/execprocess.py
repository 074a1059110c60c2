"""One executed process: its pipes, its end, and what is left of it; made by ``process``."""

from __future__ import annotations

import asyncio
import logging
import pathlib
import shutil
from typing import Protocol

from cloudless.aio.clock import Clock
from cloudless.containerd import limits
from cloudless.containerd.errors import NotFound, Unavailable
from cloudless.containerd.execgroups import ExecGroup
from cloudless.containerd.fifos import FifoReader, FifoWriter, StdinClosed
from cloudless.containerd.processcalls import ProcessCalls
from cloudless.containerd.tasks import Exit

log = logging.getLogger(__name__)

#: What a terminal sends for "end of input". Closing it would hang up instead.
END_OF_INPUT = b"\x04"


class Owner(Protocol):
    """What a process needs of ``Processes``."""

    calls: ProcessCalls
    clock: Clock

    async def end(self, running: ExecProcess) -> None:
        """End it and all it started; forget it."""
        ...

    async def kill_all(self, running: ExecProcess, grace_s: float | None = None) -> bool:
        """End it and all it started; whether that was done."""
        ...

    async def forget(self, container_id: str, exec_id: str) -> bool:
        """Delete its record."""
        ...


class ExecProcess:
    """A process that was executed in a container; made by ``Processes.exec``.

    ``stdout`` and ``stderr`` must be read while it runs; with a terminal there is no
    ``stderr``. ``pid`` is its number on the node.
    """

    def __init__(
        self,
        processes: Owner,
        container_id: str,
        exec_id: str,
        folder: pathlib.Path,
        *,
        terminal: bool,
        group: ExecGroup | None,
    ) -> None:
        self._processes = processes
        self.container_id = container_id
        self.exec_id = exec_id
        self.terminal = terminal
        self.group = group
        self.pid = 0
        #: Whether it ran before it came into its group.
        self.late = False
        self.folder = folder
        self.stdin: FifoWriter | None = None
        self.stdout: FifoReader | None = None
        self.stderr: FifoReader | None = None
        self._exit: Exit | None = None
        self._at_line_start = True
        self._said_end = False

    async def write_stdin(self, data: bytes) -> None:
        """Hand over input; waits while the process does not read. Raises ``StdinClosed``."""
        if self.stdin is None:
            raise StdinClosed
        if data:
            self._at_line_start = data[-1] in b"\r\n"
        await self.stdin.write(data)

    async def close_stdin(self) -> None:
        """Say that no more input comes; the process goes on. Twice is no error."""
        if self.stdin is None:
            return
        if self.terminal:
            if not self._said_end:
                self._said_end = True
                # In the middle of a line the first one only hands that line over.
                await self.stdin.write(END_OF_INPUT if self._at_line_start else END_OF_INPUT * 2)
            return
        self.stdin.close()
        self.stdin = None
        # The shim holds a writing end as well, and must give it up too.
        try:
            await self._processes.calls.close_io(self.container_id, self.exec_id)
        except NotFound:
            return

    async def resize(self, *, rows: int, columns: int) -> None:
        """Tell the terminal its size. Raises ``NotFound`` when the process has ended."""
        await self._processes.calls.resize(self.container_id, self.exec_id, rows=rows, columns=columns)

    async def kill(self, number: int) -> None:
        """Send a signal to the process itself. Raises ``NotFound`` when it has ended."""
        await self._processes.calls.kill(self.container_id, self.exec_id, number)

    async def end(self, grace_s: float | None = None) -> bool:
        """End it with all it started: SIGTERM, a grace, SIGKILL. ``wait`` tells how it ended.

        False when something still lives.
        """
        return await self._processes.kill_all(self, grace_s)

    async def wait(self) -> Exit:
        """Return when it has ended and its output is complete; somebody must read meanwhile.

        Children that it left in the background live on; their output is cut off.
        Raises ``ShimLost``, ``Unavailable``.
        """
        if self._exit is None:
            ended = await self._processes.calls.wait_exit(self.container_id, self.exec_id)
            await self._drained()
            for reader in (self.stdout, self.stderr):
                if reader is not None:
                    reader.finish()
            self._exit = ended
        return self._exit

    async def close(self) -> None:
        """End what still runs, unless it ended by itself, and leave nothing behind.

        When the daemon is away its record stays, and so does the folder: see ``reap``.
        """
        if self.pid:
            self.close_pipes()  # so that nothing waits for output to be taken
        try:
            if self._exit is None:
                await self._processes.end(self)
            else:
                await self._processes.forget(self.container_id, self.exec_id)
                if self.group is not None:
                    self.group.remove()
            shutil.rmtree(self.folder, ignore_errors=True)
        except Unavailable as error:
            log.warning("an executed process is left to be reaped", extra={"why": error.message})
        finally:
            # The shim of one whose start was given up may wait for the other ends until now.
            self.close_pipes()

    def open_pipes(self) -> None:
        """Our ends of the outputs that there are, for a process of an earlier life: its shim may wait."""
        stdout, stderr = self.folder / "stdout", self.folder / "stderr"
        self.stdout = FifoReader(stdout) if stdout.exists() else None
        self.stderr = FifoReader(stderr) if stderr.exists() else None

    def close_pipes(self) -> None:
        """Give up our ends; again is no error."""
        for end in (self.stdin, self.stdout, self.stderr):
            if end is not None:
                end.close()

    async def _drained(self) -> None:
        """Return when the shim has passed on all output, or only children still hold it open."""
        clock = self._processes.clock
        for reader in (self.stdout, self.stderr):
            idle_since_s = clock.monotonic()
            while reader is not None and not reader.ended.is_set() and not reader.is_hung_up():
                if reader.unread_bytes():
                    idle_since_s = clock.monotonic()
                elif clock.monotonic() - idle_since_s > self._patience_s():
                    break
                try:
                    async with asyncio.timeout(limits.EXEC_DRAIN_POLL_S):
                        await reader.ended.wait()
                except TimeoutError:
                    continue

    def _patience_s(self) -> float:
        """How long an output may be silent and open before it is cut off.

        Without a group from the start nobody knows whether children live.
        """
        alone = self.group is not None and not self.late and not self.group.pids()
        return limits.EXEC_PASS_ON_S if alone else limits.EXEC_DRAIN_S
