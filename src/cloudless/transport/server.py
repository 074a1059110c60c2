"""``GuardedServer``: generated services on a TCP port, a unix socket, or a dialled link.

Roles make one, add their services and listen; links hand it sockets that it did not
accept itself. It owns the tasks of all calls, counts connections, adds health and
reflection, and drains: no new work, GOAWAY, a bounded wait, then the rest is ended with
UNAVAILABLE. It decides nothing about the content of calls.
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl as tls
from collections.abc import Callable, Coroutine, Iterable
from contextlib import aclosing
from types import TracebackType
from typing import Any, Self, cast

from grpclib.const import Handler as Method

from cloudless.aio.supervise import Supervisor
from cloudless.transport.builtin import Health, Reflection
from cloudless.transport.call import CallHandler, Interceptor
from cloudless.transport.codec import CompiledCodec
from cloudless.transport.descriptors import HEALTH, REFLECTION_VERSIONS, build_pool
from cloudless.transport.errors import WireStatus, status_of
from cloudless.transport.limits import LINK_COORDINATOR, LISTEN_BACKLOG, PUBLIC, Limits
from cloudless.transport.link import LinkAcceptor, LinkHandshake
from cloudless.transport.listen import CannotListen, SniffingProtocol, check_loopback, listen_error
from cloudless.transport.protocol import GuardedProtocol, peer_name

log = logging.getLogger(__name__)

#: How long calls that were told to end may take to do so.
CANCEL_S = 5.0


def _ignore_call(method: str, code: str, seconds: float) -> None:
    """The default metrics hook."""


class GuardedServer:
    """Serves ``services`` (generated bases); used as ``async with``.

    ``descriptors`` is a serialized FileDescriptorSet for reflection. ``interceptors`` run
    in order before every handler and refuse a call by raising. ``to_status`` sorts what
    handlers raise. ``on_call(method, code, seconds)`` is called once for each call.
    ``links`` makes the port accept nodes that dial in, under ``link_limits``.
    """

    def __init__(
        self,
        services: Iterable[Any],
        *,
        name: str = "grpc",
        limits: Limits = PUBLIC,
        interceptors: Iterable[Interceptor] = (),
        codec: CompiledCodec | None = None,
        descriptors: bytes | None = None,
        to_status: Callable[[BaseException], WireStatus] = status_of,
        on_call: Callable[[str, str, float], None] = _ignore_call,
        links: LinkAcceptor | None = None,
        link_limits: Limits = LINK_COORDINATOR,
    ) -> None:
        self.name = name
        self.limits = limits
        self.codec = codec or CompiledCodec()
        self.interceptors = tuple(interceptors)
        self.to_status = to_status
        self.on_call = on_call
        self.methods: dict[str, Method] = {}
        for service in services:
            self._add(service)
        names = _service_names(self.methods)
        pool = build_pool(descriptors)
        self.health = Health(pool, names)
        listed = [*names, f"{HEALTH}.Health"]
        listed += [f"grpc.reflection.{version}.ServerReflection" for version in REFLECTION_VERSIONS]
        self._add(self.health)
        for version in REFLECTION_VERSIONS:
            self._add(Reflection(pool, version, listed))
        self._links = links
        self._link_limits = link_limits
        self._calls = Supervisor(name)
        self._listeners: list[asyncio.AbstractServer] = []
        self._sockets: list[str] = []
        self._protocols: set[GuardedProtocol] = set()
        self._undecided: set[asyncio.Transport] = set()  # accepted, and silent so far
        self._per_peer: dict[str, int] = {}
        self._connections = 0
        self._numbers = 0
        self.calls_running = 0
        self._draining = False

    async def __aenter__(self) -> Self:
        await self._calls.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self.close()
        finally:
            await self._calls.__aexit__(kind, error, trace)

    @property
    def running_calls(self) -> int:
        """Calls that have not ended, over all connections."""
        return sum(cast(CallHandler, protocol.handler).running for protocol in self._protocols)

    @property
    def connections(self) -> int:
        """Open connections that this server accepted or was given."""
        return max(self._connections, len(self._protocols))

    async def listen(self, host: str, port: int, *, ssl: tls.SSLContext | None = None) -> int:
        """Serve ``host:port``; returns the port (the kernel's choice for 0).

        Raises ``InsecureListen``, ``AddressInUse``, ``CannotListen``.
        """
        if ssl is None:
            await check_loopback(host)
        handshake_s = self.limits.handshake_s if ssl is not None else None
        try:
            listener = await asyncio.get_running_loop().create_server(
                self._accept,
                host,
                port,
                ssl=ssl,
                ssl_handshake_timeout=handshake_s,
                backlog=LISTEN_BACKLOG,
            )
        except OSError as error:
            raise listen_error(error, host, port) from None
        self._listeners.append(listener)
        return cast(int, listener.sockets[0].getsockname()[1])

    async def listen_unix(self, path: str, *, mode: int = 0o600) -> None:
        """Serve a unix socket that only its owner may open; raises ``CannotListen``."""
        try:
            listener = await asyncio.get_running_loop().create_unix_server(
                self._accept, path, backlog=LISTEN_BACKLOG, start_serving=False
            )
            os.chmod(path, mode)
            await listener.start_serving()
        except OSError as error:
            raise CannotListen(f"cannot listen on {path}: {error.strerror or error}") from None
        self._listeners.append(listener)
        self._sockets.append(path)

    def protocol(
        self, *, limits: Limits | None = None, on_closed: Callable[[GuardedProtocol], None] | None = None
    ) -> GuardedProtocol:
        """A protocol that serves this server's methods on a socket from elsewhere (a link)."""
        self._numbers += 1
        handler = CallHandler(self, self._numbers)

        def closed(protocol: GuardedProtocol) -> None:
            self._protocols.discard(protocol)
            if on_closed is not None:
                on_closed(protocol)

        protocol = GuardedProtocol(handler, limits or self.limits, server=True, on_closed=closed)
        handler.protocol = protocol
        self._protocols.add(protocol)
        return protocol

    def start_call(self, name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[Any]:
        return self._calls.start(name, work)

    async def drain(self, grace_s: float) -> None:
        """Stop accepting, say NOT_SERVING and GOAWAY, wait, then end what still runs."""
        if not self._draining:
            self._draining = True
            self.health.set(False)
            self._stop_listening()
            for protocol in tuple(self._protocols):
                protocol.drain()
        await self._until_no_calls(grace_s)

    async def close(self) -> None:
        """End all calls with UNAVAILABLE and close every connection."""
        await self.drain(0.0)
        for transport in tuple(self._undecided):
            transport.abort()
        for protocol in tuple(self._protocols):
            cast(CallHandler, protocol.handler).end_all()
        await self._until_no_calls(CANCEL_S)
        for protocol in tuple(self._protocols):
            protocol.shut(reason="the server is shutting down")
        for protocol in tuple(self._protocols):
            await protocol.closed.wait()

    async def _until_no_calls(self, limit_s: float) -> None:
        tasks = {task for protocol in self._protocols for task in cast(CallHandler, protocol.handler).tasks}
        if tasks and limit_s > 0:
            await asyncio.wait(tasks, timeout=limit_s)

    def _stop_listening(self) -> None:
        for listener in self._listeners:
            listener.close()
        for path in self._sockets:
            try:
                os.unlink(path)
            except FileNotFoundError:
                continue
        self._listeners.clear()
        self._sockets.clear()

    def _add(self, service: Any) -> None:
        if hasattr(service, "_call_rpc_handler_server_stream"):
            # The generated loop leaves a handler's generator open when its caller goes.
            service._call_rpc_handler_server_stream = _stream_and_close
        methods: dict[str, Method] = service.__mapping__()
        twice = self.methods.keys() & methods.keys()
        if twice:
            raise ValueError(f"served twice: {', '.join(sorted(twice))}")
        self.methods.update(methods)

    def _accept(self) -> asyncio.Protocol:
        return _Accepting(self)

    def admit(self, transport: asyncio.Transport) -> asyncio.Protocol | None:
        """Count a new connection; None (and a cut socket) when there are too many."""
        peer = _address(transport)
        count = self._per_peer.get(peer, 0)
        local = peer == ""
        full = self._connections >= self.limits.connections
        if self._draining or full or (not local and count >= self.limits.connections_per_peer):
            transport.abort()
            return None
        self._connections += 1
        self._per_peer[peer] = count + 1
        self._undecided.add(transport)

        def gone() -> None:
            self._leave(transport, peer)

        to_link = None if self._links is None else lambda carrier, line: self._to_link(carrier, line, gone)
        return SniffingProtocol(
            self.limits, lambda carrier, seen: self._to_http2(carrier, seen, gone), to_link, gone
        )

    def _leave(self, transport: asyncio.Transport, peer: str) -> None:
        self._undecided.discard(transport)
        self._connections -= 1
        left = self._per_peer[peer] - 1
        if left:
            self._per_peer[peer] = left
        else:
            del self._per_peer[peer]

    def _to_http2(self, transport: asyncio.Transport, seen: bytes, gone: Callable[[], None]) -> None:
        self._undecided.discard(transport)
        protocol = self.protocol(on_closed=lambda _: gone())
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        if self._draining:
            protocol.shut(reason="the server is shutting down")
        protocol.data_received(seen)

    def _to_link(self, transport: asyncio.Transport, line: bytes, gone: Callable[[], None]) -> None:
        assert self._links is not None
        if self._draining:
            transport.abort()
            gone()
            return
        handshake = LinkHandshake(self._links, transport, line, peer_name(transport), gone, self._link_limits)
        transport.set_protocol(handshake)
        self._undecided.discard(transport)  # the handshake's task ends it from here on
        self._numbers += 1
        self.start_call(f"link.{self._numbers}", handshake.run())


class _Accepting(asyncio.Protocol):
    """The first protocol of an accepted socket: counts it, then sniffs."""

    def __init__(self, server: GuardedServer) -> None:
        self._server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        carrier = cast(asyncio.Transport, transport)
        protocol = self._server.admit(carrier)
        if protocol is not None:
            carrier.set_protocol(protocol)
            protocol.connection_made(carrier)


def _address(transport: asyncio.BaseTransport) -> str:
    """The peer's host for counting; ``""`` for local peers, which are not limited."""
    name = transport.get_extra_info("peername")
    if not isinstance(name, tuple) or name[0] in ("127.0.0.1", "::1"):
        return ""
    return str(name[0])


def _service_names(methods: Iterable[str]) -> list[str]:
    return sorted({path.split("/")[1] for path in methods})


async def _stream_and_close(handler: Callable[[Any], Any], stream: Any, request: Any) -> None:
    """Send what a streaming handler yields; its generator is closed in every case."""
    answers = handler(request)
    if not hasattr(answers, "__aiter__"):
        answers.close()  # a handler without any yield: a plain coroutine, nothing to send
        return
    if not hasattr(answers, "aclose"):
        async for answer in answers:
            await stream.send_message(answer)
        return
    async with aclosing(answers):
        async for answer in answers:
            await stream.send_message(answer)
