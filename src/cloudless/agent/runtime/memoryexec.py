"""A program beside a container's first process that exists only in memory: for tests.

A test's coroutine plays the program: it reads ``stdin``, writes with ``say``, and
returns its exit code. Pipes are bounded as real ones are.
"""

from __future__ import annotations

import asyncio
import datetime
import signal as signals
from collections.abc import Awaitable, Callable

from cloudless.agent.runtime.execport import ExecEnd, ExecFact, ExecWish

#: Pieces that wait in a pipe before its writer does.
PIPE_PIECES = 4
#: Grace of a program that is ended and was given none, as the real runtime has it.
GRACE_S = 5.0


class Pipe:
    """Bytes in pieces; empty means the end."""

    def __init__(self) -> None:
        self._pieces: asyncio.Queue[bytes] = asyncio.Queue(PIPE_PIECES)
        self._ended = False

    async def read(self) -> bytes:
        """The next piece."""
        if self._ended:
            return b""
        data = await self._pieces.get()
        self._ended = not data
        return data

    async def write(self, data: bytes) -> None:
        """Waits while the pipe is full; empty ends it."""
        await self._pieces.put(data)

    @property
    def waiting(self) -> int:
        """Pieces that nobody has read yet."""
        return self._pieces.qsize()


class MemoryExec:
    """``RunningExec`` for a test: everything that is done to it can be looked at."""

    def __init__(
        self,
        exec_id: str,
        wish: ExecWish,
        container_id: str = "",
        started_at: datetime.datetime | None = None,
    ) -> None:
        self.exec_id = exec_id
        self.fact = ExecFact(
            exec_id, container_id, wish.argv, wish.user, wish.tty, wish.detach, started_at, pid=1
        )
        self.wish = wish
        self.stdin = Pipe()
        self._outputs = {} if wish.detach else {"stdout": Pipe()}
        if not wish.detach and not wish.tty:
            self._outputs["stderr"] = Pipe()
        self.sizes: list[tuple[int, int]] = [wish.size] if wish.size is not None else []
        self.signals: list[int] = []
        self.signalled = asyncio.Event()
        self.ended: asyncio.Future[ExecEnd] = asyncio.get_running_loop().create_future()
        self._player: asyncio.Task[object] | None = None

    @property
    def stdout(self) -> Pipe | None:
        return self._outputs.get("stdout")

    @property
    def stderr(self) -> Pipe | None:
        return self._outputs.get("stderr")

    async def say(self, data: bytes, stream: str = "stdout") -> None:
        """The program writes."""
        if data and stream in self._outputs:
            await self._outputs[stream].write(data)

    async def write_stdin(self, data: bytes) -> None:
        if data:
            await self.stdin.write(data)

    async def close_stdin(self) -> None:
        await self.stdin.write(b"")

    async def resize(self, rows: int, columns: int) -> None:
        self.sizes.append((rows, columns))

    async def signal(self, number: int) -> None:
        self.signals.append(number)
        self.signalled.set()

    async def end(self, grace_s: float | None = None) -> bool:
        await self.signal(signals.SIGTERM)
        await asyncio.wait({self.ended}, timeout=GRACE_S if grace_s is None else grace_s)
        if not self.ended.done():
            await self.signal(signals.SIGKILL)
            if self._player is not None:
                self._player.cancel()
            else:
                self.finish(128 + signals.SIGKILL)
        await asyncio.wait({self.ended})
        return True

    async def wait(self) -> ExecEnd:
        return await asyncio.shield(self.ended)

    async def play(self, program: Callable[[MemoryExec], Awaitable[int]]) -> None:
        """Run the program; its end, or its failure, is what ``wait`` tells."""
        self._player = asyncio.current_task()
        try:
            code = await program(self)
        except asyncio.CancelledError:
            if signals.SIGKILL not in self.signals:
                raise
            code = 128 + signals.SIGKILL
        except Exception as error:
            self.ended.set_exception(error)
            return
        for pipe in self._outputs.values():
            await pipe.write(b"")
        self.finish(code)

    def finish(self, code: int) -> None:
        """It has ended, unless it had before."""
        if not self.ended.done():
            self.ended.set_result(ExecEnd(code))


class MemoryInput:
    """``AttachedInput`` for a test: what came."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.ended = False
        self.sizes: list[tuple[int, int]] = []

    async def write(self, data: bytes) -> None:
        self.data += data

    async def end(self) -> None:
        self.ended = True

    async def resize(self, rows: int, columns: int) -> None:
        self.sizes.append((rows, columns))
