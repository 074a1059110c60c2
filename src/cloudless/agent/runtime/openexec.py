"""A program that runs beside a container's first process, on containerd; made by ``execs``.

What an agent has to know of a detached one after its own death lies as a note in the
program's folder.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import pathlib
import signal
from collections.abc import Callable

from cloudless.agent.runtime.execport import ExecEnd, ExecFact, Output
from cloudless.agent.runtime.oom import memory_kills
from cloudless.agent.runtime.translate import translated
from cloudless.containerd import errors
from cloudless.containerd.client import ContainerdClient
from cloudless.containerd.execprocess import ExecProcess
from cloudless.containerd.fifos import StdinClosed
from cloudless.containerd.process import Leftover
from cloudless.containerd.tasks import TaskStatus

KILLED = 128 + signal.SIGKILL
#: Of a process that is on its way out, in the flags of its stat.
PF_EXITING = 0x4


class OpenExec:
    """``RunningExec`` on a process of containerd's. ``group`` is the container's, and ``kills`` how many
    processes in it the kernel had killed for want of memory before.
    """

    def __init__(
        self,
        client: ContainerdClient,
        process: ExecProcess,
        fact: ExecFact,
        group: str = "",
        kills: int = 0,
        *,
        forget: Callable[[], None] | None = None,
    ) -> None:
        self._client = client
        self._process = process
        self._group = group
        self._forget = forget
        self._kills = kills
        self.exec_id = process.exec_id
        self.fact = fact
        self.stdout: Output | None = process.stdout
        self.stderr: Output | None = process.stderr

    async def write_stdin(self, data: bytes) -> None:
        with contextlib.suppress(StdinClosed):
            await self._process.write_stdin(data)

    async def close_stdin(self) -> None:
        with contextlib.suppress(StdinClosed), translated():
            await self._process.close_stdin()

    async def resize(self, rows: int, columns: int) -> None:
        if self._process.terminal:
            with translated(), contextlib.suppress(errors.NotFound):
                await self._process.resize(rows=rows, columns=columns)

    async def signal(self, number: int) -> None:
        with translated(), contextlib.suppress(errors.NotFound):
            await self._process.kill(number)

    async def end(self, grace_s: float | None = None) -> bool:
        with translated():
            return await self._process.end(grace_s)

    async def wait(self) -> ExecEnd:
        try:
            with translated():
                code = (await self._process.wait()).exit_code
        except BaseException:
            # A detached one that cannot be waited for now is found again by its record.
            self._let_go()
            raise
        if self._forget is not None:
            with translated():
                await self._process.close()
            self._let_go()
        if code != KILLED:
            return ExecEnd(code)
        starved = bool(self._group) and memory_kills(self._group) > self._kills
        return ExecEnd(code, starved, with_container=not starved and await self._container_ends())

    async def _container_ends(self) -> bool:
        """Whether the container's first process has ended or is about to: the others go before it."""
        try:
            task = await self._client.tasks.get(self._process.container_id)
        except (errors.NotFound, errors.ShimLost):
            return True
        except errors.ContainerdError:
            return False
        return task.status is not TaskStatus.RUNNING or _is_exiting(task.pid)

    def _let_go(self) -> None:
        if self._forget is not None:
            self._forget()


def _is_exiting(pid: int) -> bool:
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True
    return bool(int(stat.rpartition(")")[2].split()[6]) & PF_EXITING)


def note_of(argv: tuple[str, ...], user: str, started_at: datetime.datetime) -> bytes:
    """What is kept of a detached program; ``fact_of`` reads it."""
    return json.dumps({"argv": argv, "user": user, "started_at": started_at.isoformat()}).encode()


def fact_of(left: Leftover, pid: int) -> ExecFact:
    """What is known of a program that an earlier life started.

    >>> fact_of(Leftover("cl-a-0", "x-1", detached=True, note=b"torn"), 7).argv
    ()
    """
    argv: tuple[str, ...] = ()
    user, started_at = "", None
    with contextlib.suppress(ValueError, KeyError, TypeError):  # a crash may have cut it short
        note = json.loads(left.note)
        started_at = datetime.datetime.fromisoformat(note["started_at"])
        argv, user = tuple(map(str, note["argv"])), str(note["user"])
    return ExecFact(
        left.exec_id, left.container_id, argv, user, detached=left.detached, started_at=started_at, pid=pid
    )
