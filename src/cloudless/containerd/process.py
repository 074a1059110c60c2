"""Executes further processes in running containers, with their input and output.

``exec`` gives a process for the length of an ``async with`` block; leaving it early
ends the process with everything it started. ``run`` is for short commands: probes and
scripts. While a process lives, its folder ``fifo_dir/<container>@<exec id>`` exists, so
that after a crash ``leftovers`` finds what ``reap`` must end. A process that has a group
(see ``execgroups``) ends with everything that it started, whatever that did to hide.
"""

from __future__ import annotations

import asyncio
import contextlib
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
)
from cloudless.containerd.execgroups import ExecGroup
from cloudless.containerd.execprocess import ExecProcess
from cloudless.containerd.fifos import FifoReader, FifoWriter, StdinClosed
from cloudless.containerd.processcalls import ProcessCalls
from cloudless.containerd.proctree import signal_tree
from cloudless.containerd.rpc import Connection
from cloudless.containerd.tasks import Tasks

log = logging.getLogger(__name__)

#: Executed processes inherit this variable to everything they start.
MARKER = "EXEC_ID"
#: Between the ids in a folder's name; containerd allows it in neither.
SEPARATOR = "@"
#: How often a process that turns out to run is ended anew.
END_TRIES = 3
#: In the folder of a process that outlives whoever asked for it; holds what that noted about it.
DETACHED = "detached"


@dataclass(frozen=True)
class ExecResult:
    """What a short command left; ``truncated`` when its output was over the limit."""

    exit_code: int
    stdout: bytes
    stderr: bytes
    truncated: bool


@dataclass(frozen=True)
class Leftover:
    """A process whose folder is there; ``detached`` ones are meant to run on, and have a ``note``."""

    container_id: str
    exec_id: str
    detached: bool = False
    note: bytes = b""


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
        group: ExecGroup | None = None,
    ) -> AsyncIterator[ExecProcess]:
        """Start ``process`` (see ``oci.exec_process``) and end it with the block at the latest.

        Raises ``NotFound`` (the container does not run), ``CommandNotFound``,
        ``CommandNotExecutable``, ``AlreadyExists`` (the id), ``ShimLost``, ``Unavailable``.
        """
        running = self._prepare(container_id, process, exec_id, fifo_dir, group)
        try:
            await self._start(running, process, stdin=stdin, output=output)
            yield running
        finally:
            await running.close()

    async def exec_detached(
        self,
        container_id: str,
        process: Mapping[str, Any],
        *,
        exec_id: str,
        fifo_dir: pathlib.Path,
        group: ExecGroup | None = None,
        note: bytes = b"",
    ) -> ExecProcess:
        """Start ``process`` without input and output; it runs until it ends by itself.

        Its folder says so to ``leftovers``, with ``note``; ``wait`` for it and ``close`` it. Raises
        as ``exec``.
        """
        running = self._prepare(container_id, process, exec_id, fifo_dir, group)
        try:
            (running.folder / DETACHED).write_bytes(note)
            await self._start(running, process, stdin=False, output=False)
        except BaseException:
            await running.close()
            raise
        return running

    async def adopt(
        self, container_id: str, exec_id: str, fifo_dir: pathlib.Path, group: ExecGroup | None
    ) -> ExecProcess:
        """A process that an earlier life started; its ``pid`` is 0 when it is gone.

        Raises ``Unavailable``.
        """
        folder = process_folder(fifo_dir, container_id, exec_id)
        running = ExecProcess(self, container_id, exec_id, folder, terminal=False, group=group)
        with contextlib.suppress(NotFound, ShimLost):
            running.pid = await self.calls.pid(container_id, exec_id) or 0
        # Nobody knows whether it came into its group late: what it started is looked for outside as well.
        running.late = True
        return running

    def _prepare(
        self,
        container_id: str,
        process: Mapping[str, Any],
        exec_id: str,
        fifo_dir: pathlib.Path,
        group: ExecGroup | None,
    ) -> ExecProcess:
        """Folder and group; what cannot have a group has none."""
        folder = process_folder(fifo_dir, container_id, exec_id)
        folder.mkdir(mode=0o700, parents=True)
        terminal = bool(process.get("terminal"))
        if group is not None:
            try:
                group.make()
            except OSError as error:
                shutil.rmtree(folder)
                raise NotFound(f"container {container_id} does not run ({error.strerror})") from None
        return ExecProcess(self, container_id, exec_id, folder, terminal=terminal, group=group)

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

    async def end(self, running: ExecProcess) -> None:
        """End a process and all it started: SIGTERM, a grace, SIGKILL; then forget it.

        What is gone is no error. Raises ``Unavailable``, after having killed what it could.
        """
        container_id, exec_id = running.container_id, running.exec_id
        for _ in range(END_TRIES):
            await self.kill_all(running)
            if await self.forget(container_id, exec_id):
                return
            # It was being started when its start was given up, and runs only now.
            try:
                running.pid = await self.calls.pid(container_id, exec_id) or 0
            except (NotFound, ShimLost):
                return
        log.warning("an executed process does not end", extra={"exec": exec_id})

    async def kill_all(self, running: ExecProcess, grace_s: float | None = None) -> bool:
        """SIGTERM, a grace, SIGKILL for it and all it started; without a ``pid`` it is not known to run.

        False when something still lives.
        """
        grace_s = limits.EXEC_TERM_GRACE_S if grace_s is None else grace_s
        container_id, exec_id, group = running.container_id, running.exec_id, running.group
        pid: int | None = running.pid or None
        # What is in no group is still known by its parents and by its marker.
        loose, ended, emptied = group is None or running.late, True, True
        if loose and pid is not None:
            await self._signal_tree(container_id, exec_id, pid, signal.SIGTERM)
        if group is not None:
            emptied = await group.end(terminal=running.terminal, grace_s=grace_s)
            if not emptied:
                log.warning("an executed process does not die", extra={"pids": group.pids()})
            group.remove()
        elif pid is not None:
            ended = await self._exits_within(container_id, exec_id, grace_s)
        if loose:
            await self._signal_tree(container_id, exec_id, None if ended else pid, signal.SIGKILL)
        gone = pid is None or await self._exits_within(container_id, exec_id, limits.CALL_TIMEOUT_S)
        return gone and emptied

    async def forget(self, container_id: str, exec_id: str) -> bool:
        """Delete the record of an ended process; False when it runs. Raises ``Unavailable``."""
        try:
            await self.calls.delete(container_id, exec_id)
        except PreconditionFailed:
            return False
        except (NotFound, ShimLost):
            return True  # gone with its container
        return True

    def leftovers(self, fifo_dir: pathlib.Path) -> tuple[Leftover, ...]:
        """Processes whose folders are there: they are ours, or a crash left them."""
        found = []
        for folder in sorted(fifo_dir.glob(f"*{SEPARATOR}*")):
            container_id, _, exec_id = folder.name.partition(SEPARATOR)
            note = _read(folder / DETACHED)
            found.append(Leftover(container_id, exec_id, note is not None, note or b""))
        return tuple(found)

    async def reap(
        self, container_id: str, exec_id: str, fifo_dir: pathlib.Path, group: ExecGroup | None = None
    ) -> None:
        """End a process that a crash of ours left, and remove its folder. Raises ``Unavailable``."""
        running = await self.adopt(container_id, exec_id, fifo_dir, group)
        # It may have had a terminal: nobody but its shell minds being hung up.
        running.terminal = True
        running.open_pipes()
        try:
            await self.end(running)
            shutil.rmtree(running.folder, ignore_errors=True)
        finally:
            running.close_pipes()

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
        if running.group is not None and running.pid not in running.group.pids():
            # Its runtime has not put it there: what it has started meanwhile is found otherwise.
            running.late = True
            running.group.adopt(running.pid)
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


def _read(path: pathlib.Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


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
