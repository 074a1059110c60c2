"""The guarded HTTP/2 protocol of both ends: what grpclib's needs before it faces a network.

``server``, ``channel`` and ``link`` put one ``GuardedProtocol`` on each socket. It ends
peers that are dead, silent before their preface, idle, or over a budget; pauses reading
while its own write buffer is full; refuses streams over the limit one by one; ignores
what RFC 9113 says to ignore. It knows nothing of methods and messages.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

from grpclib.config import Configuration
from h2.config import H2Configuration
from h2.errors import ErrorCodes
from h2.events import ConnectionTerminated, Event, RemoteSettingsChanged, RequestReceived, StreamReset
from h2.exceptions import H2Error, ProtocolError

from cloudless.transport import peer
from cloudless.transport.frames import CalmDown, GuardedH2
from cloudless.transport.grpclib_private import AbstractHandler, Connection, EventsProcessor, H2Protocol
from cloudless.transport.limits import (
    CLOSE_FLUSH_S,
    READ_PAUSE_BYTES,
    WRITE_BUFFER_BYTES,
    Limits,
)
from cloudless.transport.stream import GuardedStream

log = logging.getLogger(__name__)

#: How often a connection may write one line about a failed call or a refused peer.
LOG_INTERVAL_S = 1.0
#: A keepalive check that comes so much too late proves that our own loop was blocked.
LATE_TICK_S = 0.5
_SERVER_H2 = H2Configuration(
    client_side=False,
    header_encoding="latin-1",
    validate_inbound_headers=False,
    validate_outbound_headers=False,
    normalize_inbound_headers=False,
    normalize_outbound_headers=False,
)
_CLIENT_H2 = H2Configuration(
    client_side=True,
    header_encoding="latin-1",
    validate_inbound_headers=False,
    validate_outbound_headers=False,
    normalize_inbound_headers=False,
    normalize_outbound_headers=False,
)
_GRPCLIB_CONFIGURATION = Configuration().__for_client__()


class GuardedConnection(Connection):
    """grpclib's connection with limits, and an ``abort`` that does not wait for a flush."""

    _connection: GuardedH2

    def __init__(self, h2: GuardedH2, transport: asyncio.Transport, limits: Limits) -> None:
        super().__init__(h2, transport, config=_GRPCLIB_CONFIGURATION)
        self.limits = limits
        self.h2 = h2
        self._socket = transport
        self._logged_s = float("-inf")
        self._watched = False

    def create_stream(self, *, stream_id: int | None = None, wrapper: Any = None) -> GuardedStream:
        return GuardedStream(self, self.h2, self._socket, stream_id=stream_id, wrapper=wrapper)

    def ack(self, stream_id: int, size: int) -> None:
        if size and not self._socket.is_closing():
            self.h2.acknowledge_received_data(size, stream_id)
            self.flush()

    def give_back(self, stream_id: int, size: int) -> None:
        """Acknowledge at once, however little it is."""
        if size and not self._socket.is_closing():
            self.h2.give_back(size, stream_id)
            self.flush()

    def flush(self) -> None:
        pieces = self.h2.take_outgoing()
        if pieces and not self._socket.is_closing():
            if len(pieces) == 1:
                self._socket.write(pieces[0])
            else:
                self._socket.writelines(pieces)

    def close(self) -> None:
        """Close after flushing for at most ``CLOSE_FLUSH_S``; then the socket is cut."""
        if not self.write_ready.is_set():
            self.abort("closed while the peer was not reading")
        elif not self._socket.is_closing():
            self._socket.close()
            asyncio.get_running_loop().call_later(CLOSE_FLUSH_S, self._socket.abort)

    def is_closing(self) -> bool:
        return self._socket.is_closing()

    @property
    def waiting_bytes(self) -> int:
        """What the socket has not taken yet."""
        return self._socket.get_write_buffer_size()

    def pause_reading(self) -> None:
        """Let the kernel, and so the peer, wait."""
        if not self._socket.is_closing():
            self._socket.pause_reading()

    def resume_reading(self) -> None:
        """Read again."""
        if not self._socket.is_closing():
            self._socket.resume_reading()

    def abort(self, reason: str) -> None:
        """Cut the socket now, for a peer that no longer reads or answers."""
        log.debug("connection aborted", extra={"reason": reason})
        self._socket.abort()

    def watch_peer(self) -> None:
        """Let the kernel ask the peer's kernel whether it is there: a stopped process still is."""
        if not self._watched:
            self._watched = True
            peer.watch(self._socket.get_extra_info("socket"))

    def may_log(self) -> bool:
        """True at most once a second: the rate of log lines of one connection."""
        now_s = asyncio.get_running_loop().time()
        if now_s - self._logged_s < LOG_INTERVAL_S:
            return False
        self._logged_s = now_s
        return True


class GuardedProcessor(EventsProcessor):
    """Turns h2 events into streams; every stream it registers is released exactly once."""

    connection: GuardedConnection
    streams: dict[int, Any]

    def __init__(self, handler: AbstractHandler, connection: GuardedConnection) -> None:
        super().__init__(handler, connection)
        self.closed = False
        self.goaway = False
        self.on_idle: Callable[[], None] = lambda: None

    def register(self, stream: Any) -> Callable[[], None]:
        self.streams[stream.id] = stream

        def release() -> None:
            if self.streams.pop(stream.id, None) is None:
                return
            self.connection.stream_close_waiter.set()
            self.connection.ack(stream.id, stream.inbox.unacked_size())
            if not self.streams:
                self.on_idle()

        return release

    def process(self, event: Event) -> None:
        processor: Any = None if self.closed else self.processors.get(cast(Any, event.__class__))
        if processor is not None:
            processor(event)

    def process_request_received(self, event: RequestReceived) -> None:
        stream_id = event.stream_id
        if len(self.streams) >= self.connection.limits.concurrent_streams or self.goaway:
            self.connection.h2.charge_reset(stream_id)
            with suppress(ProtocolError):  # the peer may have reset it in the same breath
                self.connection.h2.reset_stream(stream_id, ErrorCodes.REFUSED_STREAM)
            return
        super().process_request_received(event)

    def process_stream_reset(self, event: StreamReset) -> None:
        stream = self.streams.get(event.stream_id)
        if stream is None:
            return
        why = "the peer reset the stream" if event.remote_reset else "the peer broke the protocol"
        code = event.error_code
        stream.window_updated.set()
        if not self._answered(stream):
            stream.__terminated__(f"{why} ({getattr(code, 'name', code)})")
        self.handler.cancel(stream)
        self.connection.streams_failed += 1

    def _answered(self, stream: GuardedStream) -> bool:
        """True for a client whose answer is complete: it may be read to its end."""
        return bool(self.connection.h2.config.client_side) and stream.inbox.complete

    def process_connection_terminated(self, event: ConnectionTerminated) -> None:
        if event.error_code != ErrorCodes.NO_ERROR:
            self.close(f"the peer closed the connection ({event.error_code!r})")
            return
        self.goaway = True
        if isinstance(self.handler, DrainableHandler):
            self.handler.draining()
        for stream_id, stream in list(self.streams.items()):
            if self.connection.h2.config.client_side and stream_id > cast(int, event.last_stream_id):
                stream.__terminated__("the peer is going away")
        if not self.streams:
            self.on_idle()

    def close(self, reason: str = "Connection closed") -> None:
        if self.closed:
            return
        self.closed = True
        self.connection.close()
        self.handler.close()
        for stream in list(self.streams.values()):
            stream.window_updated.set()
            if not self._answered(stream):
                stream.__terminated__(reason)


class DrainableHandler(AbstractHandler):
    """A handler that wants to know when its peer asks for no more new streams."""

    def draining(self) -> None:
        """The peer sent GOAWAY without an error."""
        raise NotImplementedError


class GuardedProtocol(H2Protocol):
    """One connection. ``closed`` is set when the socket is gone; ``ready`` tells whether the
    peer's SETTINGS came.

    ``server`` says which end this is. ``on_closed`` is called once, at the very end.
    """

    connection: GuardedConnection
    processor: GuardedProcessor

    def __init__(
        self,
        handler: AbstractHandler,
        limits: Limits,
        *,
        server: bool,
        on_closed: Callable[[GuardedProtocol], None] | None = None,
    ) -> None:
        super().__init__(handler, _GRPCLIB_CONFIGURATION, _SERVER_H2 if server else _CLIENT_H2)
        self.limits = limits
        self.server = server
        self.peer = ""
        self.ready = False
        self._settled = asyncio.Event()
        self.closed = asyncio.Event()
        self._on_closed = on_closed
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._heard_s = self._used_s = self._due_s = 0.0
        self._paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        carrier = cast(asyncio.Transport, transport)
        raw = carrier.get_extra_info("socket")
        if raw is not None and raw.family in (socket.AF_INET, socket.AF_INET6):
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        carrier.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
        self.peer = peer_name(carrier)
        h2 = GuardedH2(self.h2_config, self.limits, self._loop.time)
        h2.initiate_connection()
        extra = self.limits.connection_window_bytes - h2.inbound_flow_control_window
        if extra > 0:
            h2.increment_flow_control_window(extra)
        self.connection = GuardedConnection(h2, carrier, self.limits)
        self.processor = GuardedProcessor(self.handler, self.connection)
        self.processor.on_idle = self._on_idle
        self.processor.processors[RemoteSettingsChanged] = cast(Any, self._on_settings)
        self._heard_s = self._used_s = self._loop.time()
        self._timer = self._loop.call_later(self.limits.handshake_s, self._on_handshake_timeout)
        self.connection.flush()

    def data_received(self, data: bytes) -> None:
        self._heard_s = self._loop.time()
        if self.processor.closed:
            return
        try:
            events = self.connection.feed(data)
        except H2Error as error:
            self._broken(str(error))  # h2 has queued the GOAWAY that fits
            return
        try:
            for event in events:
                self.processor.process(event)
        except CalmDown as error:
            self.connection.h2.quit(ErrorCodes.ENHANCE_YOUR_CALM, str(error))
            self._broken(str(error))
            return
        self.connection.flush()
        if self.connection.waiting_bytes > READ_PAUSE_BYTES and not self._paused:
            # A peer that does not read our answers may not make us queue more of them. While
            # it is only data that waits, reading goes on: else two ends that both send much
            # would wait for one another for ever.
            self._paused = True
            self.connection.pause_reading()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._paused and not self.connection.is_closing():
            self._paused = False
            self.connection.resume_reading()

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        why = "it was closed" if exc is None else getattr(exc, "strerror", None) or str(exc)
        self.processor.close(why[:1].lower() + why[1:])
        # Who waits to send learns from the closed transport that it is over.
        self.connection.write_ready.set()
        self.connection.stream_close_waiter.set()
        self._settled.set()
        self.closed.set()
        if self._on_closed is not None:
            self._on_closed(self)

    async def opened(self) -> bool:
        """Wait for the peer's SETTINGS; False when the connection ends before."""
        await self._settled.wait()
        return self.ready

    def drain(self) -> None:
        """Ask the peer for no more new streams; running ones go on."""
        self.connection.h2.drain()
        self.connection.flush()

    def shut(self, error: ErrorCodes = ErrorCodes.NO_ERROR, reason: str = "") -> None:
        """Last GOAWAY, then close: what still runs ends with ``reason``."""
        if self.processor.closed:
            return
        self.connection.h2.quit(error, reason)
        self.connection.flush()
        self.processor.close(reason or "the connection was closed")

    def _broken(self, reason: str) -> None:
        """End a connection whose peer broke a rule; its GOAWAY is queued already."""
        if self.connection.may_log():
            log.warning("connection ended", extra={"peer": self.peer, "reason": reason})
        self.connection.flush()
        self.processor.close(reason)

    def _on_settings(self, event: RemoteSettingsChanged) -> None:
        self.processor.process_remote_settings_changed(event)
        if not self.ready:
            self.ready = True
            self._settled.set()
            if self._timer is not None:
                self._timer.cancel()
            self._tick_later(self.limits.keepalive_interval_s)

    def _on_handshake_timeout(self) -> None:
        self.connection.abort(f"no HTTP/2 preface within {self.limits.handshake_s:g} s")

    def _on_idle(self) -> None:
        self._used_s = self._loop.time()
        if self.processor.goaway and not self.processor.closed:
            self.processor.close("all calls have ended after GOAWAY")

    def _tick(self) -> None:
        now_s, limits = self._loop.time(), self.limits
        if now_s - self._due_s > LATE_TICK_S:
            # This process stood still, so the peer may have spoken unheard: ask it again.
            self._heard_s = max(self._heard_s, now_s - limits.keepalive_interval_s)
        silent_s = now_s - self._heard_s
        if silent_s >= limits.keepalive_interval_s + limits.keepalive_timeout_s:
            self.connection.abort(f"the peer was silent for {silent_s:.1f} s")
            return
        if limits.idle_s is not None and not self.processor.streams and now_s - self._used_s >= limits.idle_s:
            self.shut(reason="idle")
            return
        if silent_s >= limits.keepalive_interval_s * 0.9 and not self.connection.is_closing():
            self.connection.h2.ping(b"cloudles")
            self.connection.flush()
        self._tick_later(min(limits.keepalive_interval_s, limits.keepalive_timeout_s) / 2)

    def _tick_later(self, delay_s: float) -> None:
        self._due_s = self._loop.time() + delay_s
        self._timer = self._loop.call_later(delay_s, self._tick)


def peer_name(transport: asyncio.BaseTransport) -> str:
    """The other end as text: ``host:port``, ``[v6]:port``, or ``unix`` for a local socket."""
    name = transport.get_extra_info("peername")
    if not isinstance(name, tuple):
        return "unix"
    host, port = name[0], name[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
