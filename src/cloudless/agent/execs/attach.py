"""Attach: a replica's own program, its output from its log and its input from the caller.

Nothing is between the program and its log, so whoever attaches can neither hold the
program back nor lose it: leaving changes nothing. Input goes into the container's pipe.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing

from cloudless import api
from cloudless.agent.execs.find import find_replica, name_of
from cloudless.agent.execs.limits import EXIT_KNOWN_S, MAX_ATTACHED, MAX_TAIL_LINES
from cloudless.agent.execs.messages import first, inputs, member_of, size_of
from cloudless.agent.execs.places import Places
from cloudless.agent.execs.session import OUT_OF_MEMORY
from cloudless.agent.logs import files
from cloudless.agent.logs.reader import ReadOptions
from cloudless.agent.logs.store import LogStore
from cloudless.agent.node import Node
from cloudless.agent.output import split_id
from cloudless.agent.replica.life import Replica
from cloudless.agent.runtime.execport import AttachedInput
from cloudless.agent.runtime.port import Runtime
from cloudless.aio.supervise import Supervisor
from cloudless.domain.errors import CloudlessError, Invalid, PreconditionFailed, Unavailable
from cloudless.domain.loglines import HEAD_BYTES
from cloudless.domain.replica import ExitStatus
from cloudless.transport.context import be_patient

#: What a terminal sends for "end of input".
END_OF_INPUT = b"\x04"
_STREAM, _WHOLE = slice(31, 37), 38


class Attachments:
    """Serves Attach on one node."""

    def __init__(self, node: Node, runtime: Runtime, logs: LogStore, *, node_name: str) -> None:
        self._node = node
        self._runtime = runtime
        self._logs = logs
        self._node_name = node_name
        self._places = Places(MAX_ATTACHED, "callers are attached on this node")

    async def serve(self, messages: AsyncIterator[api.ExecRequest]) -> AsyncGenerator[api.ExecResponse, None]:
        """One call; close it with ``aclosing``.

        Raises ``Invalid``, ``NotFound``, ``PreconditionFailed`` (its specification asks for no
        input), ``Exhausted``, and ``Unavailable`` when nobody knows how it ended.
        """
        be_patient()
        attach = (await first(messages, "attach")).attach
        assert attach is not None
        if not 0 <= attach.tail_lines <= MAX_TAIL_LINES:
            raise Invalid.field("attach.tail_lines", f"must be from 0 to {MAX_TAIL_LINES}")
        size = size_of(attach.size, "attach.size") if attach.size is not None else None
        replica = await find_replica(self._node, attach.container_id, attach.replica, attach.name, "attach")
        container_id = replica.container_id
        tty = _wants(replica, "tty")
        if attach.stdin and not tty and not _wants(replica, "stdin"):
            raise PreconditionFailed(
                f"replica {name_of(replica)} has no standard input: its specification asks for none",
                hint="set stdin: true, and tty: true for a terminal",
            )
        async with AsyncExitStack() as stack:
            stack.enter_context(self._places.place())
            tasks = await stack.enter_async_context(Supervisor("attach"))
            failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            stack.callback(failed.cancel)
            joined: AttachedInput | None = None
            if attach.stdin:
                joined = await stack.enter_async_context(self._runtime.attach(container_id))
            if joined is not None and size is not None and tty:
                await joined.resize(*size)
            started = api.ExecStarted(
                replica=name_of(replica),
                replica_id=replica.id,
                container_id=container_id,
                node=self._node_name,
                tty=tty,
            )
            # Before it is said to have begun: what the program answers must not be missed.
            options = await asyncio.to_thread(self._from_here, container_id, attach.tail_lines)
            yield api.ExecResponse(started=started)
            tasks.start("input", _feed(joined, messages, failed, tty=tty))
            finished = tasks.start("end", self._until_over(replica, container_id))
            output = self._output(container_id, options, _either(failed, finished))
            async with aclosing(output) as pieces:
                async for piece in pieces:
                    yield piece
            if failed.done():
                failed.result()
            yield api.ExecResponse(exit=_exit_of(await self._status(container_id), name_of(replica)))

    def _from_here(self, container_id: str, tail_lines: int) -> ReadOptions:
        """What is written from now on, and so many lines before."""
        directory = self._logs.directory(*split_id(container_id))
        while True:
            try:
                found = files.find_tail(directory, tail_lines, lambda _: True)
            except FileNotFoundError:
                continue  # rotated away while we looked
            return ReadOptions(follow=True, cursor=found.cursor)

    async def _output(
        self, container_id: str, options: ReadOptions, over: asyncio.Future[None]
    ) -> AsyncGenerator[api.ExecResponse, None]:
        async with aclosing(self._logs.read(*split_id(container_id), options, over)) as batches:
            async for batch in batches:
                if batch.gap_bytes:
                    # Who types must know that answers are missing; the program itself goes on.
                    told = f"\r\n[{batch.gap_bytes} bytes of output are missing here]\r\n"
                    yield api.ExecResponse(stderr=told.encode())
                for stream, data in raw(batch.data):
                    if stream == b"stderr":
                        yield api.ExecResponse(stderr=data)
                    else:
                        yield api.ExecResponse(stdout=data)

    async def _until_over(self, replica: Replica, container_id: str) -> None:
        """Return when the container runs no more."""
        while self._node.replicas.get(replica.id) is replica and replica.runs(container_id):
            change = self._node.change_of(replica.id)
            if not replica.runs(container_id):
                change.cancel()
                return
            await change

    async def _status(self, container_id: str) -> ExitStatus | None:
        """How it ended, as soon as the node has noted it down."""
        replica_id, attempt = split_id(container_id)
        try:
            async with asyncio.timeout(EXIT_KNOWN_S):
                while (status := self._logs.known_run(replica_id, attempt).exit) is None:
                    await self._node.change_of(replica_id)
        except TimeoutError:
            return self._logs.known_run(replica_id, attempt).exit
        return status


async def _feed(
    joined: AttachedInput | None,
    messages: AsyncIterator[api.ExecRequest],
    failed: asyncio.Future[None],
    *,
    tty: bool,
) -> None:
    """Carry out what the caller sends; what is wrong with it ends the call."""
    try:
        async with aclosing(inputs(messages)) as checked:
            async for message in checked:
                await _obey(joined, message, tty=tty)
    except CloudlessError as error:
        if not failed.done():
            failed.set_exception(error)


async def _obey(joined: AttachedInput | None, message: api.ExecRequest, *, tty: bool) -> None:
    kind = member_of(message)
    if kind in ("start", "attach"):
        raise Invalid.field(kind, "comes first, and once")
    if kind == "signal":
        raise Invalid.field("signal", "is for programs that were executed; stop or restart the workload")
    if joined is None:
        raise Invalid.field(kind, "needs attach.stdin")
    if message.stdin is not None:
        await joined.write(message.stdin)
    elif message.resize is not None and tty:
        await joined.resize(*size_of(message.resize, "resize"))
    elif kind == "stdin_close" and tty:
        await joined.write(END_OF_INPUT)
    elif kind == "stdin_close":
        await joined.end()


def raw(lines: bytes) -> list[tuple[bytes, bytes]]:
    """What the container wrote, from the lines of its log: (stream, bytes), neighbours together.

    >>> head = b"2026-01-01T00:00:00.000000000Z stdout "
    >>> raw(head + b"P $ \\n" + head + b"F ls\\n")
    [(b'stdout', b'$ ls\\n')]
    """
    found: list[tuple[bytes, bytearray]] = []
    for line in lines.split(b"\n")[:-1]:
        stream = line[_STREAM]
        if stream == b"system":
            continue
        if not found or found[-1][0] != stream:
            found.append((stream, bytearray()))
        found[-1][1].extend(line[HEAD_BYTES:])
        if line[_WHOLE] == b"F"[0]:
            found[-1][1].extend(b"\n")
    return [(stream, bytes(data)) for stream, data in found]


def _wants(replica: Replica, field: str) -> bool:
    assignment = replica.orders.assignment
    return assignment is not None and bool(getattr(assignment.spec, field))


def _exit_of(status: ExitStatus | None, name: str) -> api.ExecExit:
    if status is None:
        raise Unavailable(f"replica {name} has gone, and nobody knows how its program ended")
    if not status.oom_killed:
        return api.ExecExit(exit_code=status.code)
    why = "killed, and the container had used up its memory"
    return api.ExecExit(exit_code=status.code, out_of_memory=True, reason=OUT_OF_MEMORY, message=why)


def _either(failed: asyncio.Future[None], finished: asyncio.Task[None]) -> asyncio.Future[None]:
    """Done when one of the two is."""
    either: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def done(_: object) -> None:
        if not either.done():
            either.set_result(None)

    failed.add_done_callback(done)
    finished.add_done_callback(done)
    return either
