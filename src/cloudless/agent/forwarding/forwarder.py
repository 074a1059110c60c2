"""``Forwarder``: one connection to a replica's port in each call, both directions at once.

``AgentService`` calls ``serve``. A direction that ends leaves the other one open; a side
that reads nothing stops the other by flow control, with one message in between. The
connection ends with the call, and with the replica.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator
from contextlib import aclosing, contextmanager, suppress
from typing import Any, Protocol

from cloudless import api
from cloudless.agent.forwarding.dialler import reset
from cloudless.agent.forwarding.limits import (
    CONCURRENT_FORWARDS,
    MAX_PIECE_BYTES,
    PIECE_BYTES,
    TARGET_TIMEOUT_S,
)
from cloudless.agent.lookup import find_living
from cloudless.agent.node import Node
from cloudless.agent.probing.outcome import ProbeTarget
from cloudless.agent.replica.life import Replica
from cloudless.aio.supervise import Supervisor
from cloudless.domain.errors import (
    DeadlineExceeded,
    Denied,
    Exhausted,
    Invalid,
    PreconditionFailed,
    Unavailable,
)
from cloudless.domain.replica import ReplicaPhase
from cloudless.transport.context import be_patient
from cloudless.wire.mirror import refuse_unknown

_ALIVE = frozenset({ReplicaPhase.RUNNING, ReplicaPhase.STOPPING})


class Dials(Protocol):
    """What makes connections: ``dialler.Dialler``, or a test."""

    async def dial(self, target: ProbeTarget, port: int, replica: str) -> socket.socket:
        """A connected, non-blocking socket."""
        ...


class Forwarder:
    """At most ``limit`` connections at the same time on this node."""

    def __init__(self, node: Node, dials: Dials, limit: int = CONCURRENT_FORWARDS) -> None:
        self._node = node
        self._dials = dials
        self._limit = limit
        self._open = 0

    @property
    def open(self) -> int:
        """Connections that are carried now."""
        return self._open

    async def serve(
        self, messages: AsyncIterator[api.ForwardRequest]
    ) -> AsyncGenerator[api.ForwardResponse, None]:
        """Dial what the first message names, then carry bytes; close it with ``aclosing``.

        Raises ``Invalid``, ``NotFound``, ``PreconditionFailed`` (the replica does not run, or
        refuses the connection), ``Exhausted``, and ``Unavailable`` when the connection breaks.
        """
        be_patient()
        target = await _first(messages)
        replica = await self._node.found(lambda: self._find(target))
        name = _name_of(replica)
        with self._slot():
            connection = await self._dials.dial(_target_of(replica, target.port, name), target.port, name)
            over = _Over(self._node, replica)
            carried = _Carriage(connection, messages, name).run(over.wait)
            whole = False
            try:
                opened = api.ForwardOpened(replica=name, container_id=over.container_id)
                yield api.ForwardResponse(opened=opened)
                async with aclosing(carried) as pieces:
                    async for piece in pieces:
                        yield piece
                whole = True
            finally:
                if whole:
                    connection.close()  # what the kernel still holds for the replica arrives
                else:
                    reset(connection)

    def _find(self, target: api.ForwardTarget) -> Replica:
        replica = find_living(self._node.replicas, container_id=target.container_id, replica=target.replica)
        if replica.seen.phase not in _ALIVE or not replica.container_id:
            phase = replica.seen.phase
            raise PreconditionFailed(f"replica {_name_of(replica)} does not run: it is {phase.words}")
        return replica

    @contextmanager
    def _slot(self) -> Iterator[None]:
        if self._open >= self._limit:
            raise Exhausted(
                f"{self._limit} connections to replicas are open on this node already",
                hint="close some, or reach replicas of another node",
            )
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1


class _Over:
    """Whether a container is over; asked only when its end matters."""

    def __init__(self, node: Node, replica: Replica) -> None:
        self._node = node
        self._replica = replica
        self.container_id = replica.container_id

    async def wait(self) -> None:
        """Return when the container does not run any more."""
        replica = self._replica
        while True:
            change = self._node.change_of(replica.id)
            there = self._node.replicas.get(replica.id) is replica
            if not there or replica.container_id != self.container_id or replica.seen.phase not in _ALIVE:
                change.cancel()
                return
            await change


class _Carriage:
    """Bytes between a connection and a call."""

    def __init__(
        self, connection: socket.socket, messages: AsyncIterator[api.ForwardRequest], replica: str
    ) -> None:
        self._connection = connection
        self._messages = messages
        self._replica = replica
        self._failure: Exception | None = None
        self._ended = asyncio.Event()

    async def run(
        self, over: Callable[[], Coroutine[Any, Any, None]]
    ) -> AsyncGenerator[api.ForwardResponse, None]:
        """What the replica sends, until both sides have ended or the replica is over."""
        loop = asyncio.get_running_loop()
        async with Supervisor("forward") as tasks:
            tasks.start("to the replica", self._send())
            while data := await self._receive(loop):
                yield api.ForwardResponse(data=data)
            self._check()
            yield api.ForwardResponse(end=True)
            # A replica that has closed and is over takes nothing any more.
            ends = {tasks.start("its end", over()), tasks.start("the caller's end", self._ended.wait())}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            self._check()

    async def _receive(self, loop: asyncio.AbstractEventLoop) -> bytes:
        try:
            return await loop.sock_recv(self._connection, PIECE_BYTES)
        except OSError as error:
            self._check()
            raise self._cut(error) from None

    async def _send(self) -> None:
        """Pass on what the caller sends; a failure ends the receiving side too."""
        loop, connection = asyncio.get_running_loop(), self._connection
        try:
            async for message in self._messages:
                self._check_piece(message)
                if message.data:
                    await loop.sock_sendall(connection, message.data)
                if message.end:
                    self._end()
            if not self._ended.is_set():
                self._end()
        except Exception as error:
            self._failure = self._cut(error) if isinstance(error, OSError) else error
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            self._ended.set()

    def _end(self) -> None:
        self._connection.shutdown(socket.SHUT_WR)
        self._ended.set()

    def _check_piece(self, message: api.ForwardRequest) -> None:
        if message.target is not None:
            raise Invalid.field("target", "must be in the first message only")
        if len(message.data) > MAX_PIECE_BYTES:
            raise Invalid.field("data", f"must be at most {MAX_PIECE_BYTES} bytes in one message")
        if self._ended.is_set() and (message.data or message.end):
            raise Invalid.field("data", "must not come after the end")
        if message._unknown_fields:
            refuse_unknown(message)

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _cut(self, error: OSError) -> Unavailable:
        why = (error.strerror or str(error)).lower()
        return Unavailable(f"replica {self._replica} cut the connection: {why}")


async def _first(messages: AsyncIterator[api.ForwardRequest]) -> api.ForwardTarget:
    try:
        async with asyncio.timeout(TARGET_TIMEOUT_S):
            message = await anext(messages, None)
    except TimeoutError:
        raise DeadlineExceeded(f"no target was named within {TARGET_TIMEOUT_S:g} s") from None
    target = message.target if message is not None else None
    if message is None or target is None:
        raise Invalid.field("target", "is required in the first message")
    refuse_unknown(message)
    if message.data or message.end:
        raise Invalid.field("data", "must come after the first message")
    for field in ("name", "namespace"):
        if getattr(target, field):
            raise Invalid.field(
                f"target.{field}", "a node knows replicas and containers, not workloads: ask the coordinator"
            )
    if target.replica and target.container_id:
        raise Invalid.field("target.container_id", "name the replica or its container, not both")
    if not 0 < target.port < 65536:
        raise Invalid.field("target.port", "must be between 1 and 65535")
    return target


def _name_of(replica: Replica) -> str:
    """The replica as people call it.

    A replica that nobody assigned (a stray) is called by its id.
    """
    assignment = replica.orders.assignment
    return f"{assignment.name}/{assignment.ordinal}" if assignment is not None else replica.id


def _target_of(replica: Replica, port: int, name: str) -> ProbeTarget:
    """Where to dial; raises ``Denied`` for a port of the node that is not the replica's."""
    target, assignment = replica.target, replica.orders.assignment
    if target.netns_path is not None:
        return target
    if assignment is None or not assignment.spec.security_context.host_network:
        raise Unavailable(f"the network of replica {name} is not known", hint="try again in a moment")
    declared = sorted({one.container_port for one in assignment.spec.ports})
    if port not in declared:
        known = f" ({', '.join(map(str, declared))})" if declared else ""
        raise Denied(
            f"replica {name} is in the node's own network: only ports that its workload names"
            f"{known} can be reached, not {port}",
            hint="name the port in its specification",
        )
    return target
