"""Standard input of containers that ask for it: a pipe on the disk for each.

Whoever attaches writes into it. In between the container's logger holds it open, which
lives as long as the container does; only ``release`` lets the container read the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cloudless.agent.runtime.errors import ContainerGone
from cloudless.agent.runtime.translate import translated
from cloudless.containerd import errors
from cloudless.containerd.client import ContainerdClient
from cloudless.containerd.fifos import FifoWriter, StdinClosed

PROC = Path("/proc")


class Inputs:
    """The pipes lie in ``folder``, by container; the runtime's wrapper looks there too."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, container_id: str) -> Path:
        """Where the pipe of a container is, if it has one."""
        return self._folder / container_id

    def make(self, container_id: str) -> Path:
        """Make the pipe; again is no error."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self.path(container_id)
        with contextlib.suppress(FileExistsError):
            os.mkfifo(path)
            # The folder is closed to everybody; a program that is not root may open its input anew.
            path.chmod(0o666)
        return path

    @contextmanager
    def held(self, container_id: str) -> Iterator[Path | None]:
        """Hold the pipe open while the container is made; None when it has none."""
        path = self.path(container_id)
        try:
            handle = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            yield None
            return
        try:
            yield path
        finally:
            os.close(handle)

    def join(self, container_id: str) -> FifoWriter:
        """An end to write to; raises ``ContainerGone`` when nobody reads."""
        try:
            return FifoWriter(self.path(container_id), joining=True)
        except OSError:
            raise ContainerGone(f"container {container_id} does not read its input (any more)") from None

    def release(self, container_id: str) -> None:
        """Let the container read the end of its input, once nobody is attached any more."""
        mark = os.fsencode(str(self.path(container_id)))
        for folder in PROC.glob("[0-9]*"):
            with contextlib.suppress(OSError):
                words = (folder / "cmdline").read_bytes().split(b"\0")
                if any(word.endswith(b"-" + mark) for word in words):
                    os.kill(int(folder.name), signal.SIGUSR1)

    def remove(self, container_id: str) -> None:
        """The container goes."""
        self.path(container_id).unlink(missing_ok=True)


class ContainerInput:
    """``AttachedInput`` on a pipe and containerd."""

    def __init__(
        self, client: ContainerdClient, inputs: Inputs, container_id: str, writer: FifoWriter
    ) -> None:
        self._client = client
        self._inputs = inputs
        self._container_id = container_id
        self._writer = writer

    async def write(self, data: bytes) -> None:
        with contextlib.suppress(StdinClosed):
            await self._writer.write(data)

    async def end(self) -> None:
        self._writer.close()
        await asyncio.to_thread(self._inputs.release, self._container_id)

    async def resize(self, rows: int, columns: int) -> None:
        with translated(), contextlib.suppress(errors.NotFound):
            await self._client.processes.calls.resize(self._container_id, "", rows=rows, columns=columns)
