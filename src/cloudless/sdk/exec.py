"""``ExecProcess``: a program in a replica, with its input and output, for the length of a block.

``Client.open_exec`` and ``Client.attach`` make one. Output that is not read waits here,
up to a limit, and then holds the program back; leaving the block ends a program that was
executed, and only leaves one that was attached to.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, NamedTuple, Self, TypedDict

from grpclib.const import Cardinality

from cloudless import api
from cloudless.aio.supervise import Supervisor
from cloudless.domain.errors import CloudlessError, PreconditionFailed, Unavailable
from cloudless.sdk.calling import Caller, retry_delay_s
from cloudless.sdk.limits import EXEC_BUFFER_BYTES, EXEC_PIECE_BYTES
from cloudless.transport.channel import UNREACHABLE
from cloudless.transport.clientcall import ClientCall
from cloudless.transport.stream import ConnectionGone, PeerStalled

ROUTE = "/cloudless.api.CoordinatorService/"


class ExecExit(NamedTuple):
    """How a program ended. ``exit_code`` is 128 + n when signal n ended it, 126 and 127 as a shell says.

    ``reason`` is empty when it ended by itself, else CannotExecute, TimedOut, OutOfMemory or
    ContainerEnded; ``message`` says the same to people.
    """

    exit_code: int
    out_of_memory: bool = False
    reason: str = ""
    message: str = ""


class ExecOptions(TypedDict, total=False):
    """How a program is run; see ``Client.open_exec``."""

    replica: str
    env: Mapping[str, str]
    working_dir: str
    user: str
    stdin: bool
    tty: bool
    size: tuple[int, int]
    timeout_s: float


class AttachOptions(TypedDict, total=False):
    """How a program is joined; see ``Client.attach``."""

    replica: str
    stdin: bool
    size: tuple[int, int]
    tail: int


class CannotExecute(PreconditionFailed):
    """A program that was to run detached cannot be run: ``exit_code`` is 126 or 127."""

    code = "CL-6004"

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class ExecOutput:
    """Standard output or standard error: ``read`` it, or ``async for data in`` it."""

    def __init__(self, box: _Box, name: str) -> None:
        self._box = box
        self._name = name

    def read(self) -> Coroutine[Any, Any, bytes]:
        """What has come, empty at the end; waits while there is nothing."""
        self._box.claim(self._name)
        return self._read()

    def collect(self, limit_bytes: int) -> Coroutine[Any, Any, bytes]:
        """Everything to the end; what is over the limit is thrown away."""
        # Claimed here and not when it first runs: as a task that may be after ``wait``.
        self._box.claim(self._name)
        return self._collect(limit_bytes)

    async def _read(self) -> bytes:
        piece = await self._box.take((self._name,))
        return piece[1] if piece is not None else b""

    async def _collect(self, limit_bytes: int) -> bytes:
        kept = bytearray()
        async for data in self:
            kept += data[: limit_bytes - len(kept)]
        return bytes(kept)

    def __aiter__(self) -> AsyncIterator[bytes]:
        self._box.claim(self._name)
        return self

    async def __anext__(self) -> bytes:
        if data := await self.read():
            return data
        raise StopAsyncIteration


class ExecInput:
    """Standard input."""

    def __init__(self, process: ExecProcess) -> None:
        self._process = process

    async def write(self, data: bytes) -> None:
        """Hand over everything; waits while the program does not read.

        What a program that has ended would not read any more is thrown away.
        """
        for start in range(0, len(data), EXEC_PIECE_BYTES):
            await self._process.send(api.ExecRequest(stdin=data[start : start + EXEC_PIECE_BYTES]))

    async def close(self) -> None:
        """No more input comes: a program that reads it sees its end."""
        await self._process.send(api.ExecRequest(stdin_close=api.ExecStdinClose()))


class ExecProcess:
    """Use it as ``async with``. ``replica``, ``node`` and ``exec_id`` are known inside the block.

    They are empty for a program that could not be run: ``wait`` says why. Both outputs
    share one buffer: read both, or ``output()``; what nobody has asked for goes with ``wait``.
    """

    def __init__(self, caller: Caller, method: str, first: api.ExecRequest) -> None:
        self._caller = caller
        self._method = method
        self._first = first
        self._box = _Box()
        self._tasks = Supervisor("exec")
        self._call: ClientCall[api.ExecRequest, api.ExecResponse] | None = None
        self._sending = asyncio.Lock()
        self._started: api.ExecStarted | None = None
        self.stdin = ExecInput(self)
        self.stdout = ExecOutput(self._box, "stdout")
        self.stderr = ExecOutput(self._box, "stderr")

    @property
    def started(self) -> api.ExecStarted | None:
        """The answer's beginning; None when it could not be run."""
        return self._started

    @property
    def replica(self) -> str:
        """``workload/ordinal``."""
        return self._started.replica if self._started is not None else ""

    @property
    def node(self) -> str:
        """Name of the node that it runs on."""
        return self._started.node if self._started is not None else ""

    @property
    def exec_id(self) -> str:
        """What the node calls it; empty for one that was attached to."""
        return self._started.exec_id if self._started is not None else ""

    @property
    def container_id(self) -> str:
        """The container it runs in."""
        return self._started.container_id if self._started is not None else ""

    @property
    def tty(self) -> bool:
        """Whether it has a terminal: all output is ``stdout`` then, raw."""
        return self._started is not None and self._started.tty

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        try:
            async with self._caller.beginning(f"{self._method} did not begin"):
                await self._begin()
        except BaseException:
            await self._tasks.close()
            raise
        return self

    async def _begin(self) -> None:
        loop = asyncio.get_running_loop()
        backoff, give_up_s = self._caller.backoff(), loop.time() + self._caller.patience_s
        while True:
            call = self._tasks.start("call", self._run())
            try:
                self._started = await self._box.started()
                return
            except Unavailable as error:
                delay_s = retry_delay_s(error, backoff)
                # Only what cannot have begun is tried again.
                if error.code != UNREACHABLE or loop.time() + delay_s >= give_up_s:
                    raise
            await asyncio.wait({call})
            self._box.begin_anew()
            await asyncio.sleep(delay_s)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._box.end(Unavailable("the block of this program was left"))
        await self._tasks.__aexit__(kind, error, trace)

    async def wait(self) -> ExecExit:
        """How it ended; output that nobody has asked for until now is thrown away.

        Raises what ended the stream when that was not the program's end: then nobody knows.
        """
        await asyncio.sleep(0)  # tasks that were started to read have their turn to ask first
        return await self._box.ended()

    def output(self) -> AsyncIterator[tuple[str, bytes]]:
        """Everything as it comes: ("stdout" or "stderr", data)."""
        self._box.claim("stdout", "stderr")
        return self._output()

    async def _output(self) -> AsyncIterator[tuple[str, bytes]]:
        while (piece := await self._box.take(("stdout", "stderr"))) is not None:
            yield piece

    async def resize(self, rows: int, columns: int) -> None:
        """The terminal has another size now."""
        size = api.TerminalSize(rows=rows, columns=columns)
        await self.send(api.ExecRequest(resize=size))

    async def signal(self, number: int) -> None:
        """Signal the program itself, behind the input that was written before."""
        await self.send(api.ExecRequest(signal=number))

    async def send(self, message: api.ExecRequest) -> None:
        """Send a message; when the call is over nothing happens (``wait`` says how it ended)."""
        call = self._call
        if call is not None and not self._box.over:
            try:
                async with self._sending:
                    await call.send_message(message)
                return
            except (ConnectionGone, PeerStalled, CloudlessError):
                pass
        # Who has endless input would otherwise never let anybody else see the end.
        await asyncio.sleep(0)

    async def _run(self) -> None:
        """The call, from its first message to its last."""
        try:
            async with self._opened() as call:
                await call.send_request()
                call.be_patient()
                await call.send_message(self._first)
                self._call = call
                async for reply in call:
                    await self._box.put(reply)
        except Exception as error:
            # A message that cannot be sent, too: whoever waits has to see it, as nobody awaits this task.
            self._box.end(error)
        else:
            self._box.end(Unavailable("the stream ended and did not say how the program ended"))

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[ClientCall[Any, Any]]:
        with self._caller.streams.lease() as channel:
            call: ClientCall[Any, Any] = channel.request(
                ROUTE + self._method, Cardinality.STREAM_STREAM, api.ExecRequest, api.ExecResponse
            )
            async with call:
                yield call


class _Box:
    """What has come and was not read yet, in order; at most a limit of bytes."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()
        self._claimed: set[str] = set()
        self._discarding = False
        self.begin_anew()

    def begin_anew(self) -> None:
        """Nothing has come."""
        self._pieces: deque[tuple[str, bytes]] = deque()
        self._size_bytes = 0
        self._began: api.ExecStarted | None = None
        self._exit: ExecExit | None = None
        self._error: Exception | None = None

    @property
    def over(self) -> bool:
        """Whether nothing more can come."""
        return self._exit is not None or self._error is not None

    async def started(self) -> api.ExecStarted | None:
        """The answer's beginning; None when the program could not be run. Raises what went wrong."""
        while self._began is None and not self.over:
            await self._changed.wait()
        if self._error is not None and self._began is None:
            raise self._error
        return self._began

    async def put(self, reply: api.ExecResponse) -> None:
        """Take in a message; waits while there is no room."""
        if reply.started is not None:
            self._began = reply.started
        elif reply.exit is not None:
            end = reply.exit
            self._exit = ExecExit(end.exit_code, end.out_of_memory, end.reason, end.message)
        elif reply.stdout is not None:
            await self._add("stdout", reply.stdout)
        elif reply.stderr is not None:
            await self._add("stderr", reply.stderr)
        self._wake()

    def end(self, error: Exception) -> None:
        """The call is over; ``error`` is why, unless the program's end came before."""
        if not self.over:
            self._error = error
        self._wake()

    def claim(self, *names: str) -> None:
        """Somebody reads these outputs, now or later: nothing of them is thrown away."""
        self._claimed.update(names)

    async def take(self, names: tuple[str, ...]) -> tuple[str, bytes] | None:
        """The next piece of one of these outputs; None at the end. Raises what cut it short."""
        self.claim(*names)
        while True:
            for index, piece in enumerate(self._pieces):
                if piece[0] in names:
                    del self._pieces[index]
                    self._size_bytes -= len(piece[1])
                    self._wake()
                    return piece
            if self._error is not None:
                raise self._error
            if self._exit is not None:
                return None
            await self._changed.wait()

    async def ended(self) -> ExecExit:
        """The program's end; what nobody has claimed is thrown away from now on."""
        self._discarding = True
        for piece in [piece for piece in self._pieces if piece[0] not in self._claimed]:
            self._pieces.remove(piece)
            self._size_bytes -= len(piece[1])
        self._wake()
        while not self.over:
            await self._changed.wait()
        if self._exit is None:
            assert self._error is not None
            raise self._error
        return self._exit

    async def _add(self, name: str, data: bytes) -> None:
        while self._size_bytes >= EXEC_BUFFER_BYTES and not self._unwanted(name):
            await self._changed.wait()
        if not self._unwanted(name):
            self._pieces.append((name, data))
            self._size_bytes += len(data)

    def _unwanted(self, name: str) -> bool:
        return self._discarding and name not in self._claimed

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
