"""The life of one program with its input and output connected.

A session is a task of the agent, not of the call that asked for it: when the caller
goes away the call ends at once, and the session ends the program with all that it
started. Output waits in a small box for the caller; when that is full the program waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from cloudless import api
from cloudless.agent.execs.limits import WAITING_PIECES
from cloudless.agent.execs.registry import ExecRegistry
from cloudless.agent.runtime.errors import CannotExecute
from cloudless.agent.runtime.execport import ExecWish, Output, RunningExec
from cloudless.agent.runtime.port import Runtime
from cloudless.domain.errors import CloudlessError
from cloudless.transport.errors import InternalError

log = logging.getLogger(__name__)

TIMED_OUT = "TimedOut"
OUT_OF_MEMORY = "OutOfMemory"
CONTAINER_ENDED = "ContainerEnded"
CANNOT_EXECUTE = "CannotExecute"


@dataclass(frozen=True, slots=True)
class _Failed:
    """Instead of output: how the call ends."""

    error: Exception


class Session:
    """``run`` is the agent's task; ``started``, ``outputs`` and ``leave`` are for the call."""

    def __init__(
        self,
        runtime: Runtime,
        container_id: str,
        wish: ExecWish,
        *,
        starts: asyncio.Semaphore,
        registry: ExecRegistry,
        timeout_s: float | None,
    ) -> None:
        self._runtime = runtime
        self._container_id = container_id
        self._wish = wish
        self._starts = starts
        self._registry = registry
        self._timeout_s = timeout_s
        self._left = asyncio.Event()
        self._box: asyncio.Queue[api.ExecResponse | _Failed] = asyncio.Queue(WAITING_PIECES)
        self._started: asyncio.Future[RunningExec | None] = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        """From the start to the last trace; raises nothing but cancellation."""
        try:
            await self._run()
        except CannotExecute as error:
            await self._put(api.ExecResponse(exit=exit_of(error)))
        except CloudlessError as error:
            await self._put(_Failed(error))
        except Exception as error:
            log.exception("exec failed", extra={"container": self._container_id})
            await self._put(_Failed(InternalError(str(error))))
        finally:
            if not self._started.done():
                self._started.set_result(None)

    async def started(self) -> RunningExec | None:
        """The program, once it runs; None when it could not be run (``outputs`` says why)."""
        return await asyncio.shield(self._started)

    async def outputs(self) -> AsyncGenerator[api.ExecResponse, None]:
        """Output, and exit as the last; raises what made it fail."""
        while True:
            piece = await self._box.get()
            if isinstance(piece, _Failed):
                raise piece.error
            yield piece
            if piece.exit is not None:
                return

    def leave(self) -> None:
        """The caller takes no more; what still runs ends."""
        self._left.set()
        while not self._box.empty():
            self._box.get_nowait()  # who waits for room goes on

    async def fail(self, error: Exception) -> None:
        """The call is to end with ``error``."""
        await self._put(_Failed(error))

    async def _run(self) -> None:
        opened = self._runtime.open_exec(self._container_id, self._wish)
        async with self._starts:
            if self._left.is_set():
                return
            process = await opened.__aenter__()
        try:
            with self._registry.holding(process):
                self._started.set_result(process)
                await self._until_left(process)
        finally:
            await opened.__aexit__(None, None, None)

    async def _until_left(self, process: RunningExec) -> None:
        """Talk until the end, until nobody listens, or until time is up."""
        async with asyncio.TaskGroup() as group:
            talk = group.create_task(self._talk(process))
            left = group.create_task(self._left.wait())
            done, _ = await asyncio.wait(
                {talk, left}, timeout=self._timeout_s, return_when=asyncio.FIRST_COMPLETED
            )
            reason = ""
            if not done:
                reason = TIMED_OUT
                with contextlib.suppress(CloudlessError):
                    await process.end()
                await asyncio.wait({talk, left}, return_when=asyncio.FIRST_COMPLETED)
            left.cancel()
            if not talk.done():
                talk.cancel()
                return
        ended = talk.result()
        if isinstance(ended, CloudlessError):
            raise ended
        if reason:
            ended.reason, ended.message = reason, f"its time was up after {self._timeout_s:g} s"
        await self._put(api.ExecResponse(exit=ended))

    async def _talk(self, process: RunningExec) -> api.ExecExit | CloudlessError:
        """Pass all output on; how the program ended, or why nobody knows."""
        async with asyncio.TaskGroup() as group:
            pumps = [
                group.create_task(self._pump(process.stdout, "stdout")),
                group.create_task(self._pump(process.stderr, "stderr")),
            ]
            try:
                end = await process.wait()
            except CloudlessError as error:
                for pump in pumps:
                    pump.cancel()
                return error
        if end.out_of_memory:
            why = "killed, and the container had used up its memory"
            return api.ExecExit(
                exit_code=end.exit_code, out_of_memory=True, reason=OUT_OF_MEMORY, message=why
            )
        if end.with_container:
            return api.ExecExit(
                exit_code=end.exit_code, reason=CONTAINER_ENDED, message="its container ended"
            )
        return api.ExecExit(exit_code=end.exit_code)

    async def _pump(self, output: Output | None, name: str) -> None:
        while output is not None and (data := await output.read()):
            piece = api.ExecResponse(stdout=data) if name == "stdout" else api.ExecResponse(stderr=data)
            await self._put(piece)

    async def _put(self, piece: api.ExecResponse | _Failed) -> None:
        """Into the box, unless nobody empties it any more."""
        if not self._left.is_set():
            await self._box.put(piece)


def exit_of(error: CannotExecute) -> api.ExecExit:
    """What a caller hears of a program that cannot be run."""
    return api.ExecExit(exit_code=error.exit_code, reason=CANNOT_EXECUTE, message=str(error))
