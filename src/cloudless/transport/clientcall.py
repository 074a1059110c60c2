"""One call on the client: grpclib's stream, with errors of the domain and no loose ends.

Every channel of this room makes these. A call ends with its answer, with a
``CloudlessError``, or with ``CancelledError``, and nothing else; its deadline follows the
loop's time; a connection that drains or dies says so at once.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self, TypeVar

from grpclib.const import Status
from grpclib.exceptions import GRPCError, StreamTerminatedError
from grpclib.exceptions import ProtocolError as CallProtocolError
from h2.errors import ErrorCodes

from cloudless.domain.errors import CloudlessError, DeadlineExceeded, Exhausted, Unavailable
from cloudless.transport.codec import DecodeError
from cloudless.transport.errors import InternalError, error_of, error_of_trailers
from cloudless.transport.grpclib_private import ClientStream, Deadline, Wrapper
from cloudless.transport.stream import ConnectionGone, PeerStalled, TruncatedMessage

Sent = TypeVar("Sent")
Got = TypeVar("Got")


class LoopDeadline(Deadline):
    """grpclib's deadline on the running loop's clock."""

    def __init__(self, when_s: float) -> None:
        super().__init__(_timestamp=when_s)

    @classmethod
    def after(cls, delay_s: float) -> LoopDeadline:
        """``delay_s`` seconds from now."""
        return cls(asyncio.get_running_loop().time() + delay_s)

    def time_remaining(self) -> float:
        return max(0.0, self._timestamp - asyncio.get_running_loop().time())


class Interrupt(Wrapper):
    """Wakes the tasks of a call with an error, and leaves no cancellation behind.

    grpclib's own would leave ``task.cancelling()`` raised, which confuses task groups
    later, and would swallow a real cancellation that comes at the same time.
    """

    def __init__(self) -> None:
        super().__init__()
        self._struck: set[asyncio.Task[Any]] = set()
        #: Its stream shall have a small window.
        self.narrow = False

    @property
    def error(self) -> Exception | None:
        """What ended the call early."""
        return self._error

    def cancel(self, error: Exception) -> None:
        if self._error is not None:
            return
        self._error = error
        self.cancelled = True
        for task in self._tasks:
            self._struck.add(task)
            task.cancel()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.discard(task)
        if self._error is None:
            return
        others = 0
        if task in self._struck:
            self._struck.discard(task)
            others = task.uncancel()
        if kind is asyncio.CancelledError and others > 0:
            return  # somebody else cancels this task too: that is what counts
        raise self._error

    @contextmanager
    def until(self, deadline: Deadline) -> Iterator[None]:
        """Strike with ``TimeoutError`` when the deadline passes."""
        timer = asyncio.get_running_loop().call_later(
            deadline.time_remaining(), self.cancel, TimeoutError("the deadline has passed")
        )
        try:
            yield
        finally:
            timer.cancel()


class ClientCall(ClientStream[Sent, Got]):
    """One call; made by ``GuardedChannel.request`` and used as ``async with``."""

    _wrapper: Any
    _wrapper_ctx: Any
    _channel: Any

    async def __aenter__(self) -> Self:
        self._wrapper = Interrupt()
        if self._deadline is not None:
            if self._deadline.time_remaining() <= 0:
                raise DeadlineExceeded(f"no time left for {self._method_name}")
            self._wrapper_ctx = self._wrapper.until(self._deadline)
            self._wrapper_ctx.__enter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None and self._send_request_done and not self._cancel_done:
                await self._finish()
        except Exception as finishing:
            raise self._sorted(finishing) from None
        finally:
            self._let_go()
        if isinstance(error, Exception) and not isinstance(error, CloudlessError):
            domain_error = self._sorted(error)
            if domain_error is not error:
                raise domain_error from error

    async def _finish(self) -> None:
        if not self._recv_initial_metadata_done:
            await self.recv_initial_metadata()
        if not self._recv_trailing_metadata_done:
            await self.recv_trailing_metadata()

    def _let_go(self) -> None:
        if self._wrapper_ctx is not None:
            self._wrapper_ctx.__exit__(None, None, None)
            self._wrapper_ctx = None
        if self._send_request_done:
            if self._stream.closable:
                self._stream.reset_nowait(ErrorCodes.CANCEL)
            self._release_stream()
            self._stream.window_updated.set()  # another task may still wait to send

    async def recv_message(self) -> Got | None:
        """The next message, or None at the end; raises the call's error instead of None."""
        if not self._recv_initial_metadata_done:
            await self.recv_initial_metadata()
        limit = self._channel.limits.message_bytes
        with self._wrapper:
            prefix = await self._stream.recv_data(5)
            if not prefix:
                return None
            flag, size = struct.unpack(">BI", prefix)
            if flag:
                raise InternalError("the peer sent a compressed message, which nobody asked for")
            if size > limit:
                raise Exhausted(f"the answer has a message of {size} bytes, at most {limit} may come")
            data = await self._stream.recv_data(size) if size else b""
            message: Got = self._codec.decode(data, self._recv_type)
            return message

    def be_patient(self) -> None:
        """Let the server read as slowly as it likes; call it when the request has begun."""
        self._stream.be_patient()  # type: ignore[attr-defined]

    def be_narrow(self) -> None:
        """Hold as little of the answer as can be while nobody reads it; call it before the request begins.

        On a link that is one message of logs; elsewhere the window is what it is.
        """
        self._wrapper.narrow = True

    def fail(self, error: Exception, *, unless_answered: bool = False) -> None:
        """End the call with ``error`` in whoever waits for it (for another task's failure)."""
        answered = self._send_request_done and self._stream.inbox.complete  # type: ignore[attr-defined]
        if not (unless_answered and answered):
            self._wrapper.cancel(error)

    async def recv_trailing_metadata(self) -> None:
        # The server may end a call before we have sent everything.
        if not self._end_done and self._stream.inbox.complete:  # type: ignore[attr-defined]
            self._end_done = True
        await super().recv_trailing_metadata()

    def _raise_for_status(self, headers_map: dict[str, str]) -> None:
        status = headers_map.get(":status")
        if status != "200" and "grpc-status" not in headers_map:
            raise Unavailable(f"{self._channel.address} answered with HTTP status {status}, not with gRPC")

    def _raise_for_content_type(self, headers_map: dict[str, str]) -> None:
        if not headers_map.get("content-type", "").startswith("application/grpc"):
            raise Unavailable(f"{self._channel.address} does not answer with gRPC")

    def _process_grpc_status(self, headers_map: dict[str, str]) -> tuple[Status, str | None, Any]:
        error = error_of_trailers(headers_map)
        if error is not None:
            raise error
        return Status.OK, None, None

    def _sorted(self, error: Exception) -> Exception:
        """The domain error for what a call ran into; errors of the caller's code stay."""
        where = self._channel.address
        stream = self._stream if self._send_request_done else None
        trailers = _final_headers(stream) if stream is not None else None
        if isinstance(error, CloudlessError):
            return error
        if isinstance(error, StreamTerminatedError | ConnectionGone) and trailers is not None:
            # The answer was complete when the stream was reset: it is what counts.
            return error_of_trailers(dict(trailers)) or Unavailable(
                f"the call to {where} ended early: {error}"
            )
        if isinstance(error, StreamTerminatedError | ConnectionGone):
            return Unavailable(f"lost the connection to {where}: {error}")
        if isinstance(error, TruncatedMessage):
            # A server that is told to end in the middle of a message says why all the same.
            told = error_of_trailers(dict(trailers)) if trailers is not None else None
            if told is not None:
                return told
            return InternalError(f"{where} sent half a message: {error}")
        if isinstance(error, DecodeError):
            return InternalError(f"{where} sent a message that cannot be read: {error}")
        if isinstance(error, PeerStalled):
            return Unavailable(f"{where} does not take what it is sent: {error}")
        if error is self._wrapper.error and isinstance(error, TimeoutError):
            return DeadlineExceeded(f"no answer from {where} in time ({self._method_name})")
        if isinstance(error, GRPCError):
            return error_of(error.status, error.message or "")
        if isinstance(error, CallProtocolError):
            return InternalError(str(error))
        return error


def _final_headers(stream: Any) -> Any:
    """The headers that carry the call's status: trailers, or the only headers of a short answer."""
    if stream.trailers is not None or stream.headers is None:
        return stream.trailers
    return stream.headers if "grpc-status" in dict(stream.headers) else None
