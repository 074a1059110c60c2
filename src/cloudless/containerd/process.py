"""Executes further processes in running containers, with their input and output.

``exec`` gives a process for the length of an ``async with`` block; leaving it early
ends the process with everything it started. ``run`` is for short commands: probes and
scripts. While a process lives, its folder ``fifo_dir/<container>@<exec id>`` exists, so
that after a crash ``leftovers`` finds what ``reap`` must end.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import pathlib
import shutil
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from cloudless.aio.clock import Clock
from cloudless.containerd import limits
from cloudless.containerd.errors import (
    ContainerdError,
    InvalidRequest,
    NotFound,
    PreconditionFailed,
    ShimLost,
    Unavailable,
)
from cloudless.containerd.fifos import FifoReader, FifoWriter, StdinClosed
from cloudless.containerd.processcalls import ProcessCalls
from cloudless.containerd.proctree import signal_tree
from cloudless.containerd.rpc import Connection
from cloudless.containerd.tasks import Exit, Tasks

log = logging.getLogger(__name__)

#: Executed processes inherit this variable to everything they start.
MARKER = "EXEC_ID"
#: Between the ids in a folder's name; containerd allows it in neither.
SEPARATOR = "@"
#: What a terminal sends for "end of input". Closing it would hang up instead.
END_OF_INPUT = b"\x04"


class ExecProcess:
    """A process that was executed in a container; made by ``Processes.exec``.

    ``stdout`` and ``stderr`` must be read while it runs; with a terminal there is no
    ``stderr``. ``pid`` is its number on the node.
    """

    def __init__(
        self, processes: Processes, container_id: str, exec_id: str, folder: pathlib.Path, *, terminal: bool
    ) -> None:
        self._processes = processes
        self.container_id = container_id
        self.exec_id = exec_id
        self.terminal = terminal
        self.pid = 0
        self.folder = folder
        self.stdin: FifoWriter | None = None
        self.stdout: FifoReader | None = None
        self.stderr: FifoReader | None = None
        self._exit: Exit | None = None

    async def write_stdin(self, data: bytes) -> None:
        """Hand over input; waits while the process does not read. Raises ``StdinClosed``."""
        if self.stdin is None:
            raise StdinClosed
        await self.stdin.write(data)

    async def close_stdin(self) -> None:
        """Say that no more input comes; the process goes on. Twice is no error."""
        if self.stdin is None:
            return
        if self.terminal:
            await self.stdin.write(END_OF_INPUT)
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

    async def wait(self) -> Exit:
        """Return when it has ended and its output is complete; somebody must read meanwhile.

        Output of children that live on is cut off. Raises ``ShimLost``, ``Unavailable``.
        """
        if self._exit is None:
            ended = await self._processes.calls.wait_exit(self.container_id, self.exec_id)
            await self._drained()
            await self._processes.calls.delete(self.container_id, self.exec_id)
            self._exit = ended
            shutil.rmtree(self.folder, ignore_errors=True)
        return self._exit

    async def close(self) -> None:
        """End what still runs, and leave nothing behind.

        When the daemon is away its record stays, and so does the folder: see ``reap``.
        """
        try:
            if self._exit is None:
                await self._processes.end(self.container_id, self.exec_id, self.pid or None)
            shutil.rmtree(self.folder, ignore_errors=True)
        except Unavailable as error:
            log.warning("an executed process is left to be reaped", extra={"why": error.message})
        finally:
            for end in (self.stdin, self.stdout, self.stderr):
                if end is not None:
                    end.close()

    async def _drained(self) -> None:
        """Return when the shim has passed on all output, or has had nothing to pass on for a while."""
        clock = self._processes.clock
        for reader in (self.stdout, self.stderr):
            idle_since_s = clock.monotonic()
            while reader is not None and not reader.ended.is_set() and not reader.is_hung_up():
                if reader.unread_bytes():
                    idle_since_s = clock.monotonic()
                elif clock.monotonic() - idle_since_s > limits.EXEC_DRAIN_S:
                    break
                try:
                    async with asyncio.timeout(limits.EXEC_DRAIN_POLL_S):
                        await reader.ended.wait()
                except TimeoutError:
                    continue


@dataclass(frozen=True)
class ExecResult:
    """What a short command left; ``truncated`` when its output was over the limit."""

    exit_code: int
    stdout: bytes
    stderr: bytes
    truncated: bool


class Processes:
    """Executes in the containers of this client's namespace."""

    def __init__(self, connection: Connection, tasks: Tasks, *, clock: Clock) -> None:
        self.calls = ProcessCalls(connection)
        self._tasks = tasks
        self.clock = clock

    @asynccontextmanager
    async def exec(
        self,
        container_id: str,
        process: Mapping[str, Any],
        *,
        exec_id: str,
        fifo_dir: pathlib.Path,
        stdin: bool = False,
        output: bool = True,
    ) -> AsyncIterator[ExecProcess]:
        """Start ``process`` (see ``oci.exec_process``) and end it with the block at the latest.

        Raises ``NotFound`` (the container does not run), ``CommandNotFound``,
        ``CommandNotExecutable``, ``AlreadyExists`` (the id), ``ShimLost``, ``Unavailable``.
        """
        terminal = bool(process.get("terminal"))
        folder = process_folder(fifo_dir, container_id, exec_id)
        folder.mkdir(mode=0o700, parents=True)
        running = ExecProcess(self, container_id, exec_id, folder, terminal=terminal)
        try:
            await self._start(running, process, stdin=stdin, output=output)
            yield running
        finally:
            await running.close()

    async def run(
        self,
        container_id: str,
        process: Mapping[str, Any],
        *,
        exec_id: str,
        fifo_dir: pathlib.Path,
        stdin: bytes = b"",
        timeout_s: float,
        output_limit_bytes: int,
    ) -> ExecResult:
        """Execute and wait. Output beyond the limit is read and thrown away; 0 captures none.

        Raises as ``exec``; ``TimeoutError`` after ``timeout_s``, when all of it has been ended.
        """
        async with (
            asyncio.timeout(timeout_s),
            self.exec(
                container_id,
                process,
                exec_id=exec_id,
                fifo_dir=fifo_dir,
                stdin=bool(stdin),
                output=output_limit_bytes > 0,
            ) as running,
        ):
            budget = OutputBudget(output_limit_bytes)
            async with asyncio.TaskGroup() as group:
                group.create_task(_feed(running, stdin), name=f"stdin {exec_id}")
                out = group.create_task(budget.collect(running.stdout), name=f"stdout {exec_id}")
                err = group.create_task(budget.collect(running.stderr), name=f"stderr {exec_id}")
                ended = await running.wait()
        return ExecResult(ended.exit_code, out.result(), err.result(), budget.exceeded)

    async def end(self, container_id: str, exec_id: str, pid: int | None) -> None:
        """End a process and all it started: SIGTERM, a grace, SIGKILL; then delete it.

        ``pid=None``: it is not known to run. What is gone is no error. Raises ``Unavailable``,
        after having killed what it could.
        """
        ended = True
        if pid is not None:
            await self._signal_tree(container_id, exec_id, pid, signal.SIGTERM)
            ended = await self._exits_within(container_id, exec_id, limits.EXEC_TERM_GRACE_S)
        await self._signal_tree(container_id, exec_id, None if ended else pid, signal.SIGKILL)
        if not ended:
            await self._exits_within(container_id, exec_id, limits.CALL_TIMEOUT_S)
        try:
            await self.calls.delete(container_id, exec_id)
        except (NotFound, PreconditionFailed, ShimLost):
            return

    def leftovers(self, fifo_dir: pathlib.Path) -> tuple[tuple[str, str], ...]:
        """(container id, exec id) of processes whose folders are there: ours, or a crash left them."""
        split = (folder.name.partition(SEPARATOR) for folder in sorted(fifo_dir.glob(f"*{SEPARATOR}*")))
        return tuple((container_id, exec_id) for container_id, _, exec_id in split)

    async def reap(self, container_id: str, exec_id: str, fifo_dir: pathlib.Path) -> None:
        """End a process that a crash of ours left, and remove its folder. Raises ``Unavailable``."""
        try:
            pid = await self.calls.pid(container_id, exec_id)
        except (NotFound, ShimLost):
            pid = None
        await self.end(container_id, exec_id, pid)
        shutil.rmtree(process_folder(fifo_dir, container_id, exec_id), ignore_errors=True)

    async def _start(
        self, running: ExecProcess, process: Mapping[str, Any], *, stdin: bool, output: bool
    ) -> None:
        paths = {"stdin": stdin, "stdout": output, "stderr": output and not running.terminal}
        used = {name: str(running.folder / name) if wanted else "" for name, wanted in paths.items()}
        for path in used.values():
            if path:
                os.mkfifo(path, 0o600)
        if used["stdout"]:
            running.stdout = FifoReader(running.folder / "stdout")
        if used["stderr"]:
            running.stderr = FifoReader(running.folder / "stderr")
        if used["stdin"]:
            running.stdin = FifoWriter(running.folder / "stdin")
        marked = {**process, "env": [*process.get("env", ()), f"{MARKER}={running.exec_id}"]}
        spec = json.dumps(marked).encode()
        if len(spec) > limits.MAX_EXEC_ARGUMENT_BYTES:
            raise InvalidRequest(f"arguments and environment exceed {limits.MAX_EXEC_ARGUMENT_BYTES} bytes")
        await self.calls.add(
            running.container_id,
            running.exec_id,
            spec,
            stdin=used["stdin"],
            stdout=used["stdout"],
            stderr=used["stderr"],
            terminal=running.terminal,
        )
        running.pid = await self.calls.start(running.container_id, running.exec_id)
        if running.stdin is not None:
            running.stdin.started()

    async def _exits_within(self, container_id: str, exec_id: str, limit_s: float) -> bool:
        try:
            async with asyncio.timeout(limit_s):
                await self.calls.wait_exit(container_id, exec_id)
        except TimeoutError:
            return False
        except (NotFound, ShimLost):
            return True
        return True

    async def _signal_tree(
        self, container_id: str, exec_id: str, pid: int | None, number: signal.Signals
    ) -> None:
        try:
            pids = await self._tasks.pids(container_id)
        except ContainerdError:
            # The daemon is away: the marker finds them among all processes as well.
            pids = tuple(int(name) for name in os.listdir("/proc") if name.isdigit())
        signal_tree(pids, pid, f"{MARKER}={exec_id}", number)


def process_folder(fifo_dir: pathlib.Path, container_id: str, exec_id: str) -> pathlib.Path:
    """Where the pipes of one process are. Raises ``InvalidRequest`` for ids that lead elsewhere."""
    name = f"{container_id}{SEPARATOR}{exec_id}"
    if "/" in name or name.count(SEPARATOR) != 1:
        raise InvalidRequest(f"not an id: {name!r}")
    return fifo_dir / name


class OutputBudget:
    """Collects several outputs up to one limit in bytes for all of them together."""

    def __init__(self, limit_bytes: int) -> None:
        self._left_bytes = limit_bytes
        self.exceeded = False

    async def collect(self, reader: FifoReader | None) -> bytes:
        """Read to the end; keep what fits."""
        kept = bytearray()
        while reader is not None and (data := await reader.read()):
            self.exceeded = self.exceeded or len(data) > self._left_bytes
            kept += data[: self._left_bytes]
            self._left_bytes -= min(len(data), self._left_bytes)
        return bytes(kept)


async def _feed(running: ExecProcess, data: bytes) -> None:
    if data:
        try:
            await running.write_stdin(data)
            await running.close_stdin()
        except StdinClosed:
            return  # it has read as much as it wanted
