"""Commands run beside a container's first process, with bounded output.

A command's folder of pipes on the disk is also its record: what an earlier life of the
agent left is found there and ended. Raises containerd's errors; the runtime translates.
"""

from __future__ import annotations

import asyncio
import json
import pathlib
import signal
from collections.abc import Callable
from typing import Any

from cloudless.agent.runtime.errors import NotEnforced
from cloudless.agent.runtime.port import ExecRequest, ExecResult
from cloudless.containerd import errors, oci, plan
from cloudless.containerd.client import ContainerdClient
from cloudless.containerd.fifos import FifoReader, StdinClosed
from cloudless.containerd.process import ExecProcess

#: Specifications kept at hand, so that a probe does not read them each time.
MAX_KNOWN_SPECS = 512


class Execs:
    """``folder`` is where the pipes of running commands lie."""

    def __init__(self, client: ContainerdClient, *, folder: pathlib.Path, new_id: Callable[[], str]) -> None:
        self._client = client
        self._folder = folder
        self._new_id = new_id
        self._specs: dict[str, dict[str, Any]] = {}
        # Looked up now, before this life runs commands of its own.
        self._leftovers = client.processes.leftovers(folder)

    def know_spec(self, container_id: str, spec: bytes) -> None:
        """Remember a container's specification."""
        while len(self._specs) >= MAX_KNOWN_SPECS:
            self._specs.pop(next(iter(self._specs)))
        # Only the process is needed; the filter of system calls alone is 10 KiB.
        self._specs[container_id] = {"process": json.loads(spec)["process"]}

    def forget_spec(self, container_id: str) -> None:
        """The container goes."""
        self._specs.pop(container_id, None)

    async def run(self, container_id: str, request: ExecRequest) -> ExecResult:
        """Run and wait; see ``Runtime.exec``."""
        if container_id not in self._specs:
            self.know_spec(container_id, (await self._client.containers.get(container_id)).spec)
        process = oci.exec_process(
            self._specs[container_id],
            request.argv,
            env=request.env,
            cwd=request.cwd or None,
            user=await self._user(container_id, request.user),
        )
        out, err = _Captured(request.output_limit_bytes), _Captured(request.output_limit_bytes)
        try:
            async with (
                asyncio.timeout(request.timeout_s),
                self._client.processes.exec(
                    container_id,
                    process,
                    exec_id=self._new_id(),
                    fifo_dir=self._folder,
                    stdin=bool(request.stdin),
                ) as running,
            ):
                code = await _finish(running, request.stdin, out, err)
        except (errors.CommandNotFound, errors.CommandNotExecutable) as error:
            return ExecResult(error.exit_code or 127, b"", f"{error.message}\n".encode())
        except TimeoutError:
            return _result(128 + signal.SIGKILL, out, err, timed_out=True)
        return _result(code, out, err)

    async def collect(self) -> int:
        """End what an earlier life left; returns how many commands that were."""
        left, self._leftovers = self._leftovers, ()
        for container_id, exec_id in left:
            await self._client.processes.reap(container_id, exec_id, self._folder)
        return len(left)

    async def _user(self, container_id: str, user: str) -> plan.User | None:
        if not user:
            return None
        task = await self._client.tasks.get(container_id)
        try:
            return await self._client.accounts.in_container(task.pid, user)
        except errors.InvalidRequest as error:
            raise NotEnforced(error.message) from None


class _Captured:
    """One output up to a limit; the rest is read and thrown away."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self.data = bytearray()
        self.truncated = False

    async def read(self, reader: FifoReader | None) -> None:
        while reader is not None and (data := await reader.read()):
            room = self._limit_bytes - len(self.data)
            self.truncated = self.truncated or len(data) > room
            self.data += data[:room]


async def _finish(running: ExecProcess, stdin: bytes, out: _Captured, err: _Captured) -> int:
    """Feed and read until it has ended; returns its exit code."""
    failure: errors.ContainerdError | None = None
    code = 0
    async with asyncio.TaskGroup() as group:
        children = [
            group.create_task(_feed(running, stdin)),
            group.create_task(out.read(running.stdout)),
            group.create_task(err.read(running.stderr)),
        ]
        try:
            code = (await running.wait()).exit_code
        except errors.ContainerdError as error:
            failure = error  # raised below: a group would wrap it
            for child in children:
                child.cancel()
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
