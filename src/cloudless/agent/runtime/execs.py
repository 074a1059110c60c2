"""Programs run beside a container's first process: buffered, or with their pipes handed out.

A program's folder of pipes on the disk is also its record: what an earlier life of the
agent left is found there and ended. Raises containerd's errors; the runtime translates.
"""

from __future__ import annotations

import asyncio
import datetime
import glob
import json
import pathlib
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from typing import Any

from cloudless.agent.runtime.errors import NotEnforced
from cloudless.agent.runtime.execport import (
    ExecFact,
    ExecRequest,
    ExecResult,
    ExecWish,
    Output,
    Room,
)
from cloudless.agent.runtime.oom import memory_kills
from cloudless.agent.runtime.openexec import KILLED, OpenExec, fact_of, note_of
from cloudless.agent.runtime.translate import translated
from cloudless.aio.clock import Clock
from cloudless.containerd import errors, oci, plan
from cloudless.containerd.client import ContainerdClient
from cloudless.containerd.execgroups import PREFIX, ExecGroup, Hierarchy
from cloudless.containerd.execprocess import ExecProcess
from cloudless.containerd.fifos import StdinClosed
from cloudless.containerd.process import Leftover

#: Specifications kept at hand, so that a probe does not read them each time.
MAX_KNOWN_SPECS = 512
#: What a program on a terminal believes that terminal to be, unless it is told.
TERMINAL = "TERM=xterm"
#: How the ids of programs begin that have no group.
UNGROUPED = "e-"


class Execs:
    """``folder`` is where the pipes of running programs lie; ``parent`` holds our containers' groups."""

    def __init__(
        self,
        client: ContainerdClient,
        *,
        folder: pathlib.Path,
        clock: Clock,
        new_id: Callable[[], str],
        hierarchy: Hierarchy | None,
        parent: str,
    ) -> None:
        self._client = client
        self._folder = folder
        self._clock = clock
        self._new_id = new_id
        self._hierarchy = hierarchy
        self._parent = parent
        self._specs: dict[str, dict[str, Any]] = {}
        #: Ids of what this life runs; any other record was left by an earlier one.
        self._live: set[str] = set()

    def know_spec(self, container_id: str, spec: bytes) -> None:
        """Remember a container's specification."""
        while len(self._specs) >= MAX_KNOWN_SPECS:
            self._specs.pop(next(iter(self._specs)))
        # Only this is needed; the filter of system calls alone is 10 KiB.
        whole = json.loads(spec)
        self._specs[container_id] = {
            "process": whole["process"],
            "group": whole.get("linux", {}).get("cgroupsPath", ""),
        }

    def forget_spec(self, container_id: str) -> None:
        """The container goes."""
        self._specs.pop(container_id, None)

    async def run(
        self,
        container_id: str,
        request: ExecRequest,
        starts: asyncio.Semaphore | None = None,
        began: Callable[[OpenExec], None] | None = None,
        room: Room | None = None,
    ) -> ExecResult:
        """Run and wait; see ``Runtime.exec``."""
        wish = ExecWish(
            argv=request.argv,
            env=request.env,
            cwd=request.cwd,
            user=request.user,
            stdin=bool(request.stdin),
        )
        out, err = (_Captured(request.output_limit_bytes, room) for _ in range(2))
        try:
            async with asyncio.timeout(request.timeout_s), AsyncExitStack() as stack:
                async with starts or nullcontext():
                    running = await stack.enter_async_context(self._opened(container_id, wish))
                if began is not None:
                    began(OpenExec(self._client, running, self._fact(running, wish)))
                code = await _finish(running, request.stdin, out, err)
        except (errors.CommandNotFound, errors.CommandNotExecutable) as error:
            return ExecResult(error.exit_code or 127, b"", f"{error.message}\n".encode())
        except TimeoutError:
            return _result(KILLED, out, err, timed_out=True)
        return _result(code, out, err)

    @asynccontextmanager
    async def open(self, container_id: str, wish: ExecWish) -> AsyncIterator[OpenExec]:
        """See ``Runtime.open_exec``; what is raised inside the block passes as it is."""
        if wish.detach:
            yield await self._detached(container_id, wish)
            return
        opened = self._opened(container_id, wish)
        with translated():
            group = (await self._spec(container_id))["group"]
            kills = memory_kills(group)  # counted before it begins: it may end before we hear that it began
            running = await opened.__aenter__()
        try:
            yield OpenExec(self._client, running, self._fact(running, wish), group, kills)
        finally:
            with translated():
                await opened.__aexit__(None, None, None)

    async def collect(self) -> tuple[int, tuple[OpenExec, ...]]:
        """See ``Runtime.collect_execs``."""
        adopted: list[OpenExec] = []
        ended = 0
        try:
            for left in self._client.processes.leftovers(self._folder):
                if left.exec_id in self._live:
                    continue
                if left.detached:
                    adopted.append(await self._adopt(left))
                    continue
                group = await self._group(left.container_id, left.exec_id)
                await self._client.processes.reap(left.container_id, left.exec_id, self._folder, group)
                ended += 1
        except BaseException:
            # Nobody hears of these, so they are to be found again.
            self._live.difference_update(one.exec_id for one in adopted)
            raise
        self._remove_empty_groups()
        return ended, tuple(adopted)

    @asynccontextmanager
    async def _opened(self, container_id: str, wish: ExecWish) -> AsyncIterator[ExecProcess]:
        exec_id, group = await self._claim(container_id)
        try:
            process = await self._process(container_id, wish)
            async with self._client.processes.exec(
                container_id,
                process,
                exec_id=exec_id,
                fifo_dir=self._folder,
                stdin=wish.stdin,
                group=group,
            ) as running:
                yield running
        finally:
            self._live.discard(exec_id)

    async def _detached(self, container_id: str, wish: ExecWish) -> OpenExec:
        with translated():
            exec_id, group = await self._claim(container_id)
        now = self._clock.now()
        try:
            with translated():
                running = await self._client.processes.exec_detached(
                    container_id,
                    await self._process(container_id, wish),
                    exec_id=exec_id,
                    fifo_dir=self._folder,
                    group=group,
                    note=note_of(wish.argv, wish.user, now),
                )
        except BaseException:
            self._live.discard(exec_id)
            raise
        fact = self._fact(running, wish, now)
        return OpenExec(self._client, running, fact, forget=lambda: self._live.discard(exec_id))

    async def _adopt(self, left: Leftover) -> OpenExec:
        group = await self._group(left.container_id, left.exec_id)
        running = await self._client.processes.adopt(left.container_id, left.exec_id, self._folder, group)
        self._live.add(left.exec_id)
        fact = fact_of(left, running.pid)
        return OpenExec(self._client, running, fact, forget=lambda: self._live.discard(left.exec_id))

    def _fact(
        self, running: ExecProcess, wish: ExecWish, started_at: datetime.datetime | None = None
    ) -> ExecFact:
        return ExecFact(
            running.exec_id,
            running.container_id,
            wish.argv,
            wish.user,
            wish.tty,
            wish.detach,
            started_at or self._clock.now(),
            running.pid,
        )

    async def _claim(self, container_id: str) -> tuple[str, ExecGroup | None]:
        """An id, and a group where there can be one: below the container's, if that is where it should be."""
        exec_id = f"{PREFIX}{self._new_id()}"
        group = await self._group(container_id, exec_id)
        if group is None or not group.path.parent.is_dir():
            exec_id, group = f"{UNGROUPED}{self._new_id()}", None
        self._live.add(exec_id)
        return exec_id, group

    async def _process(self, container_id: str, wish: ExecWish) -> dict[str, Any]:
        spec = await self._spec(container_id)
        user, env = await self._user(container_id, wish.user), wish.env
        named = {entry.partition("=")[0] for entry in env}
        if user is not None and "HOME" not in named:
            env = (*env, f"HOME={user.home}")
        inherited = {entry.partition("=")[0] for entry in spec["process"].get("env", ())}
        if wish.tty and "TERM" not in named | inherited:
            env = (*env, TERMINAL)
        return oci.exec_process(
            spec,
            wish.argv,
            env=env,
            cwd=wish.cwd or None,
            user=user,
            terminal=wish.tty,
            console_size=wish.size,
        )

    async def _spec(self, container_id: str) -> dict[str, Any]:
        if container_id not in self._specs:
            self.know_spec(container_id, (await self._client.containers.get(container_id)).spec)
        return self._specs[container_id]

    async def _group(self, container_id: str, exec_id: str) -> ExecGroup | None:
        """None too for a container that is gone: nothing of it lives."""
        if self._hierarchy is None:
            return None
        try:
            spec = await self._spec(container_id)
        except errors.NotFound:
            return None
        return ExecGroup.of(self._hierarchy, spec["group"], exec_id)

    async def _user(self, container_id: str, user: str) -> plan.User | None:
        if not user:
            return None
        task = await self._client.tasks.get(container_id)
        try:
            return await self._client.accounts.in_container(task.pid, user)
        except errors.InvalidRequest as error:
            raise NotEnforced(error.message) from None

    def _remove_empty_groups(self) -> None:
        """Groups of programs that left children behind, which have ended since."""
        if self._hierarchy is None:
            return
        # Not ``Path.glob``: that raises when a container's group goes while it looks.
        for found in glob.glob(f"{self._parent.strip('/')}/*/{PREFIX}*", root_dir=self._hierarchy.root):
            path = self._hierarchy.root / found
            if path.name not in self._live:
                ExecGroup(path).remove()


class _Captured:
    """One output up to a limit, and as far as there is room; the rest is read and thrown away."""

    def __init__(self, limit_bytes: int, room: Room | None) -> None:
        self._limit_bytes = limit_bytes
        self._room = room
        self.data = bytearray()
        self.truncated = False

    async def read(self, reader: Output | None) -> None:
        while reader is not None and (data := await reader.read()):
            wanted = min(len(data), self._limit_bytes - len(self.data))
            if self.truncated or not wanted:
                self.truncated = True  # nothing after a gap: what is kept is how it began
                continue
            kept = wanted if self._room is None else self._room.take(wanted)
            self.truncated = kept < len(data)
            self.data += data[:kept]


async def _finish(running: ExecProcess, stdin: bytes, out: _Captured, err: _Captured) -> int:
    """Feed and read until it has ended; returns its exit code."""
    failure: errors.ContainerdError | None = None
    code = 0
    async with asyncio.TaskGroup() as group:
        feeding = group.create_task(_feed(running, stdin))
        reading = [
            group.create_task(out.read(running.stdout)),
            group.create_task(err.read(running.stderr)),
        ]
        try:
            code = (await running.wait()).exit_code
        except errors.ContainerdError as error:
            failure = error  # raised below: a group would wrap it
            for child in reading:
                child.cancel()
        feeding.cancel()  # nobody reads it any more
    if failure is not None:
        raise failure
    return code


async def _feed(running: ExecProcess, data: bytes) -> None:
    if not data:
        return
    try:
        await running.write_stdin(data)
        await running.close_stdin()
    except StdinClosed:
        return  # it has read as much as it wanted


def _result(code: int, out: _Captured, err: _Captured, *, timed_out: bool = False) -> ExecResult:
    return ExecResult(code, bytes(out.data), bytes(err.data), out.truncated, err.truncated, timed_out)
