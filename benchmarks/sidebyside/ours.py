"""The program itself, as users run it: ``cloudless serve`` as a process, reached by its SDK."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import cloudless
from cloudless.sdk.client import Client
from cloudless.sdk.workload import Workload
from sidebyside import image

PROGRAM = Path(sys.executable).with_name("cloudless")
START_S = 30.0
STOP_S = 30.0
DEADLINE_S = 120.0
LOOK_S = 0.002


class Serve:
    """One ``cloudless serve``; ``containerd`` as its flag takes it."""

    def __init__(self, folder: Path, containerd: str, *flags: str) -> None:
        self.folder = folder
        self.containerd = containerd
        api, self._http, agent = _free_ports(3)
        self.address = f"127.0.0.1:{api}"
        self.agent_address = f"127.0.0.1:{agent}"
        self._arguments = (
            *("--data-dir", str(folder), "--containerd", containerd, "--node-name", "bench"),
            *("--api-address", self.address, "--http-address", f"127.0.0.1:{self._http}"),
            *("--agent-address", self.agent_address, "--log-format", "json"),
            *flags,
        )
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def start(self) -> float:
        """Start it; seconds until /readyz says yes."""
        log = self.folder.with_name(f"{self.folder.name}.log")
        began = time.perf_counter()
        with log.open("ab") as out:
            self._process = await asyncio.create_subprocess_exec(
                PROGRAM, "serve", *self._arguments, stdout=out, stderr=out, start_new_session=True
            )
        while not await asyncio.to_thread(self._ready):
            if self._process.returncode is not None or time.perf_counter() - began > START_S:
                raise RuntimeError(f"serve is not ready; it said:\n{log.read_text()[-2000:]}")
            await asyncio.sleep(LOOK_S)
        return time.perf_counter() - began

    async def stop(self) -> None:
        """End it; containers run on."""
        if self._process is None or self._process.returncode is not None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_S):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    async def reset(self) -> None:
        """Remove everything that it made on this machine."""
        process = await asyncio.create_subprocess_exec(
            *(PROGRAM, "reset", "--yes", "--data-dir", self.folder, "--containerd", self.containerd),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        out, _ = await process.communicate()
        if process.returncode:
            raise RuntimeError(f"cannot clean up {self.folder}: {out.decode()}")

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._http}/readyz", timeout=2) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False


@contextlib.asynccontextmanager
async def serving(folder: Path, containerd: str, *flags: str) -> AsyncIterator[Serve]:
    """A program that runs, and of which nothing is left afterwards."""
    serve = Serve(folder, containerd, *flags)
    try:
        await serve.start()
        yield serve
    finally:
        await serve.stop()
        await serve.reset()


class Ours:
    """What a user does with it, timed in seconds."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self._number = 0

    def new_name(self) -> str:
        self._number += 1
        return f"bench-{os.getpid()}-{self._number}"

    async def up(self, count: int, **fields: object) -> tuple[Workload, float]:
        """Create a workload of ``count`` replicas; seconds until all are available."""
        workload = wanted(self.new_name(), replicas=count, **fields)
        began = time.perf_counter()
        made = await self.client.create(workload)
        made = await self.client.follow(made, "available", timeout_s=DEADLINE_S)
        return made, time.perf_counter() - began

    async def down(self, name: str) -> float:
        """Delete a workload; seconds until nothing is left of it."""
        began = time.perf_counter()
        asked = await self.client.delete(name)
        await self.client.follow(asked, "deleted", timeout_s=DEADLINE_S)
        return time.perf_counter() - began

    async def until(self, name: str, accept: Callable[[Workload], bool], act: Callable[[], None]) -> float:
        """Watch a workload, ``act``, and wait for a state; seconds from the act."""
        async with asyncio.timeout(DEADLINE_S), self.client.watch(name=name) as changes:
            await anext(changes)
            began = time.perf_counter()
            act()
            async for change in changes:
                if accept(change.workload):
                    return time.perf_counter() - began
        raise AssertionError("a watch does not end")


def wanted(name: str, **fields: object) -> Workload:
    """A workload with the benchmark's image and command, unless told otherwise."""
    given: dict[str, object] = {"image": image.REFERENCE, "command": image.COMMAND, "replicas": 1}
    return Workload(name, **(given | fields))  # type: ignore[arg-type]


@contextlib.asynccontextmanager
async def connected(serve: Serve) -> AsyncIterator[Ours]:
    async with cloudless.connect(serve.address) as client:
        yield Ours(client)


def _free_ports(count: int) -> list[int]:
    """Ports that nobody has now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
