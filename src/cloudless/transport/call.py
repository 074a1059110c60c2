"""One call on the server: reads the request, runs the handler, ends with a status, always.

``ServerCall`` is what generated service code sees (the part of grpclib's server stream
that it uses); ``CallHandler`` owns the calls of one connection. Whatever a handler raises
goes through the server's mapping to a status; a caller that leaves cancels its handler.
"""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, Protocol

from grpclib.const import Handler as Method
from grpclib.const import Status
from h2.errors import ErrorCodes

from cloudless.transport.codec import CompiledCodec, DecodeError
from cloudless.transport.context import (
    CallContext,
    set_current_call,
    set_patience,
    set_room,
    set_watching,
)
from cloudless.transport.errors import OK, WireStatus
from cloudless.transport.limits import Limits
from cloudless.transport.protocol import DrainableHandler, GuardedProtocol
from cloudless.transport.request import Refused, Request, read_request, request_id_of
from cloudless.transport.stream import (
    ConnectionGone,
    GuardedStream,
    Headers,
    PeerStalled,
    TruncatedMessage,
)

log = logging.getLogger(__name__)

#: Runs before a handler; raises to refuse the call (authorization, quotas).
Interceptor = Callable[[CallContext], Awaitable[None]]
_RESPONSE_HEADERS: Headers = [(":status", "200"), ("content-type", "application/grpc+proto")]
_DRAINED = WireStatus(Status.UNAVAILABLE, "the server is shutting down; try again")
_OVERLOADED = WireStatus(Status.RESOURCE_EXHAUSTED, "the server runs as many calls as it may; try again")
_LATE = "the request did not arrive in time"
_UNKNOWN_METHOD = "unknown"


class CallHost(Protocol):
    """What calls need of their server."""

    methods: dict[str, Method]
    codec: CompiledCodec
    limits: Limits
    calls_running: int
    interceptors: tuple[Interceptor, ...]
    to_status: Callable[[BaseException], WireStatus]
    on_call: Callable[[str, str, float], None]

    def start_call(self, name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[Any]:
        """Run one call as a task that the server owns."""
        ...


class ServerCall:
    """The stream that a generated handler reads and answers."""

    def __init__(self, host: CallHost, stream: GuardedStream, request: Request, started_s: float) -> None:
        self._host = host
        self._limits = stream.connection.limits
        self._stream = stream
        self._request = request
        self._started_s = started_s
        self._received = 0
        self._headers_sent = False
        self._answer: bytes | None = None
        self.metadata = request.metadata
        self.user_agent = request.user_agent

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        message = await self.recv_message()
        if message is None:
            raise StopAsyncIteration
        return message

    async def recv_message(self) -> Any:
        """The next message; None when the caller has ended a stream of them.

        For a unary request it waits for the end of the request too, both together at
        most ``request_body_s``.
        """
        if self._request.method.cardinality.client_streaming:
            data = await self._read_message()
            return None if data is None else self._decode(data)
        if self._received:
            return None
        end_s = self._started_s + self._limits.request_body_s
        try:
            async with asyncio.timeout_at(None if self._stream.inbox.complete else end_s):
                data = await self._read_message()
                only = data is not None and await self._stream.inbox.wait_eof()
        except TimeoutError:
            raise Refused(200, Status.DEADLINE_EXCEEDED, _LATE) from None
        if data is None:
            raise Refused(200, Status.INVALID_ARGUMENT, "the request holds no message")
        if not only:
            raise Refused(200, Status.INVALID_ARGUMENT, "the request holds more than one message")
        self._received += 1
        return self._decode(data)

    async def _read_message(self) -> bytes | None:
        inbox, limit = self._stream.inbox, self._limits.message_bytes
        prefix = await inbox.read(5)
        if not prefix:
            return None
        flag, size = struct.unpack(">BI", prefix)
        if flag:
            raise Refused(200, Status.UNIMPLEMENTED, "compressed messages are not supported")
        if size > limit:
            raise Refused(
                200, Status.RESOURCE_EXHAUSTED, f"the message has {size} bytes, at most {limit} may come"
            )
        if len(inbox) >= size:
            return await inbox.read(size) if size else b""
        try:
            async with asyncio.timeout(self._limits.request_body_s):
                return await inbox.read(size)
        except TimeoutError:
            raise Refused(200, Status.DEADLINE_EXCEEDED, _LATE) from None

    def _decode(self, data: bytes) -> Any:
        return self._host.codec.decode(data, self._request.method.request_type)

    async def send_message(self, message: Any) -> None:
        """Send one message; a unary answer waits until the handler has returned."""
        method = self._request.method
        data = self._host.codec.encode(message, method.reply_type)
        framed = struct.pack(">BI", 0, len(data)) + data
        del data  # sending may take long, and one copy is enough
        if not method.cardinality.server_streaming:
            if self._answer is not None:
                raise RuntimeError(f"{self._request.path} answered twice")
            self._answer = framed
            return
        await self.send_initial_metadata()
        await self._stream.send_data(framed)

    async def send_initial_metadata(self, **_: Any) -> None:
        """Send the response headers now; otherwise they go with the first message."""
        if not self._headers_sent:
            self._headers_sent = True
            await self._stream.send_headers(_RESPONSE_HEADERS)

    async def send_trailing_metadata(
        self, *, status: Status = Status.OK, status_message: str | None = None, **_: Any
    ) -> None:
        """For handlers written against grpclib: end with ``status``."""
        if status is not Status.OK:
            raise Refused(200, status, status_message or status.name.lower().replace("_", " "))

    def check_answered(self) -> None:
        """Raise when a unary handler returned without an answer: a bug of the service."""
        if not self._request.method.cardinality.server_streaming and self._answer is None:
            raise RuntimeError(f"{self._request.path} returned no answer")

    async def finish(self, status: WireStatus) -> None:
        """Send what is left: headers, the unary answer when all is well, trailers."""
        answer = self._answer if status.status is Status.OK and self._answer is not None else b""
        headers = None if self._headers_sent else _RESPONSE_HEADERS
        trailers = status.trailers()
        if headers is not None and not answer and status.status is not Status.OK:
            headers, trailers = None, _RESPONSE_HEADERS + trailers
        self._headers_sent = True
        if not self._stream.send_now(headers, answer, trailers):
            if headers is not None:
                await self._stream.send_headers(headers)
            if answer:
                await self._stream.send_data(answer)
            await self._stream.send_headers(trailers, end_stream=True)
        if not self._stream.inbox.complete:
            # The caller may stop sending: its request is answered (RFC 9113 8.1).
            self._stream.reset_nowait(ErrorCodes.NO_ERROR)


class CallHandler(DrainableHandler):
    """The calls of one connection: starts, cancels and counts them."""

    def __init__(self, host: CallHost, number: int) -> None:
        self._host = host
        self._number = number
        self._tasks: dict[int, asyncio.Task[Any]] = {}
        self._ending: WireStatus | None = None
        self.protocol: GuardedProtocol | None = None

    @property
    def running(self) -> int:
        """Calls that have not ended."""
        return len(self._tasks)

    @property
    def tasks(self) -> tuple[asyncio.Task[Any], ...]:
        """The tasks of the calls that run."""
        return tuple(self._tasks.values())

    def accept(self, stream: Any, headers: Any, release_stream: Callable[[], None]) -> None:
        stream_id: int = stream.id
        if self._host.calls_running >= self._host.limits.calls:
            # No task for it: refusing has to be cheaper than asking.
            with suppress(ConnectionGone):  # it may have been reset in the same breath
                stream.send_now(None, b"", _RESPONSE_HEADERS + _OVERLOADED.trailers())
            stream.reset_nowait(ErrorCodes.NO_ERROR)
            release_stream()
            return
        self._host.calls_running += 1
        task = self._host.start_call(f"{self._number}.{stream_id}", self._serve(stream, headers))
        self._tasks[stream_id] = task

        def ended(_: asyncio.Task[Any]) -> None:
            self._tasks.pop(stream_id, None)
            self._host.calls_running -= 1
            release_stream()

        task.add_done_callback(ended)

    def cancel(self, stream: Any) -> None:
        task = self._tasks.get(stream.id)
        if task is not None:
            task.cancel()

    def close(self) -> None:
        for task in list(self._tasks.values()):
            task.cancel()

    def draining(self) -> None:
        """A client's GOAWAY changes nothing for the calls it has made."""

    def end_all(self) -> None:
        """Cancel what runs; each call ends with UNAVAILABLE."""
        self._ending = _DRAINED
        self.close()

    async def _serve(self, stream: GuardedStream, headers: Headers) -> None:
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        method, status = _UNKNOWN_METHOD, Status.CANCELLED
        try:
            try:
                request = read_request(headers, self._host.methods)
            except Refused as refusal:
                status = refusal.status.status
                await self._refuse(stream, refusal)
                return
            method = request.path
            call = ServerCall(self._host, stream, request, started_s)
            outcome = await self._run(call, request, stream, started_s)
            await call.finish(outcome)
            status = outcome.status
        except (ConnectionGone, PeerStalled):
            if not stream.connection.is_closing():
                stream.reset_nowait(ErrorCodes.CANCEL)
        finally:
            self._host.on_call(method, status.name, loop.time() - started_s)

    async def _run(
        self, call: ServerCall, request: Request, stream: GuardedStream, started_s: float
    ) -> WireStatus:
        """Run the handler; how the call shall end. Raises ``ConnectionGone``."""
        deadline_s = self._deadline(request, stream, started_s)
        context = self._context(request, stream, deadline_s)
        set_current_call(context)
        set_patience(stream.be_patient)
        set_room(stream.room)
        set_watching(stream.connection.watch_peer)
        scope = asyncio.timeout_at(deadline_s)
        try:
            async with scope:
                for interceptor in self._host.interceptors:
                    await interceptor(context)
                await request.method.func(call)
                call.check_answered()
        except asyncio.CancelledError:
            if self._ending is None:
                del scope  # it knows the task, which keeps this error, which keeps this frame
                raise
            return self._ending
        except Refused as refusal:
            return refusal.status
        except ConnectionGone:
            raise
        except PeerStalled as error:
            return WireStatus(Status.UNAVAILABLE, f"the call was cut off: {error}")
        except (DecodeError, TruncatedMessage) as error:
            return WireStatus(Status.INVALID_ARGUMENT, str(error))
        except Exception as error:
            if scope.expired() and isinstance(error, TimeoutError):
                return WireStatus(Status.DEADLINE_EXCEEDED, "the caller's deadline has passed")
            return self._sort(error, context)
        return OK

    def _sort(self, error: Exception, context: CallContext) -> WireStatus:
        status = self._host.to_status(error)
        if status.unexpected and self.protocol is not None and self.protocol.connection.may_log():
            fields = {"method": context.method, "peer": context.peer, "request_id": context.request_id}
            log.error("call failed", extra=fields, exc_info=error)
        return status

    def _deadline(self, request: Request, stream: GuardedStream, started_s: float) -> float | None:
        """When the call is to end: the caller's wish, bounded for unary calls."""
        cardinality, longest_s = request.method.cardinality, stream.connection.limits.call_s
        streaming = cardinality.client_streaming or cardinality.server_streaming
        if request.timeout_s is None:
            return None if streaming else started_s + longest_s
        return started_s + (request.timeout_s if streaming else min(request.timeout_s, longest_s))

    def _context(self, request: Request, stream: GuardedStream, deadline_s: float | None) -> CallContext:
        protocol = self.protocol
        return CallContext(
            method=request.path,
            peer=protocol.peer if protocol is not None else "",
            request_id=request_id_of(request.metadata, f"{self._number}.{stream.id}"),
            deadline_s=deadline_s,
            metadata=request.metadata,
            certificate=stream.connection.get_peer().cert(),
        )

    async def _refuse(self, stream: GuardedStream, refusal: Refused) -> None:
        headers: Headers = [(":status", str(refusal.http_status)), ("content-type", "application/grpc+proto")]
        await stream.send_headers(headers + refusal.status.trailers(), end_stream=True)
        if not stream.inbox.complete:
            stream.reset_nowait(ErrorCodes.NO_ERROR)
