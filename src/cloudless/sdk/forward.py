"""``Forward``: a local port, each connection to which leads to a port of a replica.

``Client.forward`` makes one. A replica is chosen for each connection anew, so a port
outlives the replicas behind it, and the coordinator too: connections end with them, new
ones are tried again for the client's patience. Memory stays small whatever is carried,
since a side that reads nothing stops the other one.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack, suppress
from types import TracebackType
from typing import Any, Self

from grpclib.const import Cardinality

from cloudless import api
from cloudless.aio.supervise import Supervisor
from cloudless.domain.errors import CloudlessError, Invalid, Unavailable
from cloudless.sdk.calling import Caller, retry_delay_s
from cloudless.sdk.channels import Channels
from cloudless.sdk.limits import (
    ACCEPT_PAUSE_S,
    FORWARD_BACKLOG,
    FORWARD_PIECE_BYTES,
    FORWARD_RECEIVE_BUFFER_BYTES,
    MAX_FORWARDS,
)
from cloudless.transport.bidi import send_all
from cloudless.transport.channel import GuardedChannel
from cloudless.transport.listen import listen_error

ROUTE = "/cloudless.api.CoordinatorService/Forward"
#: Told about a connection that failed: where it came from, and why.
OnError = Callable[[str, CloudlessError], None]
#: ``SO_LINGER`` on, for no time: closing resets the connection.
_NO_LINGER = struct.pack("ii", 1, 0)
#: What ``accept`` says of a connection that is gone already, and when something is used up.
_GONE = frozenset({errno.ECONNABORTED, errno.EPROTO, errno.EPERM})


class Forward:
    """Use it as ``async with``; leaving ends the port and all its connections."""

    def __init__(
        self,
        caller: Caller,
        open_channel: Callable[[], GuardedChannel],
        target: api.ForwardTarget,
        *,
        host: str,
        port: int,
        on_error: OnError | None,
    ) -> None:
        if not 0 < target.port < 65536:
            raise Invalid.field("port", "must be between 1 and 65535")
        if not 0 <= port < 65536:
            raise Invalid.field("local_port", "must be between 0 and 65535; 0 is any that is free")
        self._caller = caller
        self._channels = Channels(open_channel)
        self._target = target
        self._on_error = on_error
        #: Where it listens; the port is the real one inside the block.
        self.host = host
        self.port = port
        #: Connections that are open now.
        self.open = 0
        self._listener: socket.socket | None = None
        self._tasks = Supervisor(f"forward to {target.name}")
        self._room = asyncio.Semaphore(MAX_FORWARDS)
        self._numbers = 0

    @property
    def address(self) -> str:
        """Host and port as ``host:port``."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        return self.address

    async def __aenter__(self) -> Self:
        self._listener = await _listen(self.host, self.port)
        self.port = self._listener.getsockname()[1]
        await self._tasks.__aenter__()
        self._tasks.start("accept", self._accept(self._listener))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._tasks.__aexit__(kind, error, trace)
        finally:
            if self._listener is not None:
                self._listener.close()
            await self._channels.aclose()

    async def wait(self) -> None:
        """Wait for ever; raises what ends the port."""
        await self._tasks.wait()

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._room.acquire()
            try:
                local, peer = await loop.sock_accept(listener)
            except OSError as error:
                self._room.release()
                if error.errno not in _GONE:
                    await asyncio.sleep(ACCEPT_PAUSE_S)  # no descriptor is left for it now
                continue
            self._numbers += 1
            self._tasks.start(f"connection {self._numbers}", self._carry(local, f"{peer[0]}:{peer[1]}"))

    async def _carry(self, local: socket.socket, peer: str) -> None:
        """One connection, to its end."""
        self.open += 1
        whole = False
        try:
            local.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            async with AsyncExitStack() as stack:
                call, replies = await self._connect(stack)
                await _exchange(local, call, replies)
            whole = True
        except OSError:
            return  # whoever connected has left
        except CloudlessError as error:
            if self._on_error is not None:
                self._on_error(peer, error)
        finally:
            self.open -= 1
            self._room.release()
            if not whole:
                with suppress(OSError):
                    local.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
            local.close()

    async def _connect(self, stack: AsyncExitStack) -> tuple[Any, AsyncIterator[api.ForwardResponse]]:
        """A call that a replica has answered; tried again while the coordinator is away."""
        loop = asyncio.get_running_loop()
        backoff, give_up_s = self._caller.backoff(), loop.time() + self._caller.patience_s
        while True:
            try:
                async with AsyncExitStack() as attempt:
                    connected = await self._try(attempt)
                    stack.push_async_exit(attempt.pop_all())
                    return connected
            except Unavailable as error:
                delay_s = retry_delay_s(error, backoff)
                if loop.time() + delay_s >= give_up_s:
                    raise
            await asyncio.sleep(delay_s)

    async def _try(self, stack: AsyncExitStack) -> tuple[Any, AsyncIterator[api.ForwardResponse]]:
        channel = stack.enter_context(self._channels.lease())
        call: Any = channel.request(ROUTE, Cardinality.STREAM_STREAM, api.ForwardRequest, api.ForwardResponse)
        try:
            async with asyncio.timeout(self._caller.timeout_s):
                await stack.enter_async_context(call)
                await call.send_request()
                call.be_patient()
                await call.send_message(api.ForwardRequest(target=self._target))
                replies: AsyncIterator[api.ForwardResponse] = aiter(call)
                first = await anext(replies, None)
        except TimeoutError:
            raise Unavailable(f"no connection within {self._caller.timeout_s:g} s") from None
        if first is None or first.opened is None:
            await stack.aclose()  # raises what the coordinator says
            raise Unavailable("the coordinator ended the call before the connection was made")
        return call, replies


async def _exchange(local: socket.socket, call: Any, replies: AsyncIterator[api.ForwardResponse]) -> None:
    """Carry bytes both ways until both have ended; raises ``OSError`` when the local side is gone."""
    loop = asyncio.get_running_loop()
    async with Supervisor("connection") as tasks:
        tasks.start("to the replica", send_all(call, _pieces(local)))
        async for reply in replies:
            if reply.data:
                await loop.sock_sendall(local, reply.data)
            if reply.end:
                local.shutdown(socket.SHUT_WR)


async def _pieces(local: socket.socket) -> AsyncGenerator[api.ForwardRequest, None]:
    loop = asyncio.get_running_loop()
    while data := await loop.sock_recv(local, FORWARD_PIECE_BYTES):
        yield api.ForwardRequest(data=data)
    yield api.ForwardRequest(end=True)


async def _listen(host: str, port: int) -> socket.socket:
    """A listening socket; raises ``AddressInUse`` or ``CannotListen``."""
    listener: socket.socket | None = None
    try:
        found = await asyncio.get_running_loop().getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, kind, protocol, _, where = min(found, key=lambda one: one[0] != socket.AF_INET)
        listener = socket.socket(family, kind | socket.SOCK_NONBLOCK, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Connections have it from the listener: the kernel settles windows before they are accepted.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, FORWARD_RECEIVE_BUFFER_BYTES)
        listener.bind(where)
        listener.listen(FORWARD_BACKLOG)
    except OSError as error:
        if listener is not None:
            listener.close()
        raise listen_error(error, host, port) from None
    return listener
