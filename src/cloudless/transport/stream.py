"""One HTTP/2 stream as this room uses it: a bounded inbox, and sending that never stalls.

``protocol`` makes them; server calls and grpclib's client calls read and write through
them. An inbox holds at most the stream's window of bytes, whatever the size of the
frames that brought them. A peer that takes nothing for ``send_stall_s`` ends the stream
(or the connection, when the socket itself is stuck).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError, TooManyStreamsError

from cloudless.domain.errors import Exhausted
from cloudless.transport.grpclib_private import Stream
from cloudless.transport.limits import SLOWEST_PEER_BYTES_PER_S

if TYPE_CHECKING:
    from cloudless.transport.protocol import GuardedConnection

Headers = list[tuple[str, str]]


class PeerStalled(Exception):
    """The peer took no byte for ``send_stall_s`` seconds."""


class ConnectionGone(Exception):
    """The connection ended, or the peer reset this stream, before the call was done."""


class TruncatedMessage(Exception):
    """The peer ended its side in the middle of a message."""


class Inbox:
    """Received bytes of one stream; hands window back to the peer as they are read.

    Bytes are acknowledged when they are read, or as soon as a reader waits for more of
    the same message, so that a message may be larger than the window. A ``lazy`` one
    acknowledges only when a reader waits: nothing comes that nobody asked for.
    """

    __slots__ = ("_acknowledge", "_arrived", "_data", "_ended", "_lazy", "_unacknowledged")

    def __init__(self, acknowledge: Callable[[int], None], *, lazy: bool = False) -> None:
        self._acknowledge = acknowledge
        self._lazy = lazy
        self._arrived = asyncio.Event()
        self._data = bytearray()
        self._ended = False
        self._unacknowledged = 0

    def add(self, data: bytes, ack_size: int) -> None:
        """Append a DATA frame; ``ack_size`` counts its padding too."""
        self._data += data
        self._unacknowledged += len(data)
        if ack_size > len(data):
            self._acknowledge(ack_size - len(data))
        if data:
            self._arrived.set()

    def eof(self) -> None:
        """The peer sends no more."""
        self._ended = True
        self._arrived.set()

    @property
    def ended(self) -> bool:
        """True when the peer has ended its side and everything was read."""
        return self._ended and not self._data

    def __len__(self) -> int:
        """Bytes that wait to be read."""
        return len(self._data)

    @property
    def complete(self) -> bool:
        """True when the peer has ended its side, read or not."""
        return self._ended

    async def read(self, size: int) -> bytes:
        """Exactly ``size`` bytes, or ``b""`` at the end; raises ``TruncatedMessage``."""
        data = self._data
        while len(data) < size:
            if self._ended:
                if data:
                    raise TruncatedMessage(f"the stream ended {size - len(data)} bytes too early")
                return b""
            self._settle(0)
            self._arrived.clear()
            await self._arrived.wait()
        with memoryview(data) as view:
            taken = bytes(view[:size])
        del data[:size]
        if not self._lazy:
            self._settle(len(data))
        return taken

    async def wait_eof(self) -> bool:
        """Wait for the end or for further data; True when it was the end."""
        while not self._data and not self._ended:
            self._arrived.clear()
            await self._arrived.wait()
        return not self._data

    def _settle(self, keep: int) -> None:
        """Acknowledge all but the last ``keep`` received bytes."""
        surplus = self._unacknowledged - keep
        if surplus > 0:
            self._unacknowledged = keep
            self._acknowledge(surplus)

    def unacked_size(self) -> int:
        """Bytes that nobody will read any more; they count as acknowledged from now on."""
        rest, self._unacknowledged = self._unacknowledged, 0
        self._data.clear()
        return rest


class GuardedStream(Stream):
    """grpclib's stream with our inbox, a stall limit, and errors that say what happened."""

    connection: GuardedConnection
    #: Whether a peer that takes nothing may go on so: its connection still has to live.
    patient = False

    def init_stream(self, stream_id: int, connection: Any) -> None:
        super().init_stream(stream_id, connection)
        self.buffer = cast(Any, Inbox(lambda size: connection.ack(stream_id, size)))

    @property
    def inbox(self) -> Inbox:
        """What the peer sent on this stream."""
        return cast(Inbox, self.buffer)

    @property
    def is_narrow(self) -> bool:
        """Whether it is a call of ours that asked for a small window."""
        return bool(getattr(self.wrapper, "narrow", False))

    def be_patient(self) -> None:
        """Put up with a peer that takes nothing, as long as its connection lives."""
        self.patient = True

    def check_open(self) -> None:
        """Raise ``ConnectionGone`` when nothing can be sent on this stream any more."""
        stream = self._h2_connection.streams.get(cast(int, self.id))
        if stream is None or stream.closed or self._transport.is_closing():
            raise ConnectionGone("the stream is closed")

    async def send_request(
        self, headers: Headers, end_stream: bool = False, *, _processor: Any
    ) -> Callable[[], None]:
        """Open the stream as a client; waits a little while the peer's limit of streams is reached.

        Raises ``ConnectionGone`` and ``Exhausted`` (no stream ended for ``stream_wait_s``, or
        others got those that did); nothing was sent then, so the call may be made elsewhere.
        """
        h2, limits, end_s = self._h2_connection, self.connection.limits, 0.0
        while True:
            await self._writable()
            if _processor.closed or _processor.goaway or self._transport.is_closing():
                raise ConnectionGone("the connection is closing")
            stream_id = h2.get_next_available_stream_id()
            try:
                h2.send_headers(stream_id, headers, end_stream=end_stream)
            except TooManyStreamsError:
                now_s = asyncio.get_running_loop().time()
                end_s = end_s or now_s + limits.send_stall_s
                await self._stream_free(min(end_s, now_s + limits.stream_wait_s))
                continue
            self.init_stream(stream_id, self.connection)
            if self.is_narrow:
                self.buffer = cast(Any, Inbox(partial(self.connection.give_back, stream_id), lazy=True))
            elif limits.wide_window_bytes is not None:
                extra = limits.wide_window_bytes - limits.stream_window_bytes
                h2.increment_flow_control_window(extra, stream_id)
            release: Callable[[], None] = _processor.register(self)
            self.connection.flush()
            return release

    async def _stream_free(self, end_s: float) -> None:
        """Wait until a stream of this connection ends; raises ``Exhausted`` at ``end_s``."""
        self.connection.stream_close_waiter.clear()
        try:
            async with asyncio.timeout_at(end_s):
                await self.connection.stream_close_waiter.wait()
        except TimeoutError:
            limit = self._h2_connection.remote_settings.max_concurrent_streams
            raise Exhausted(
                f"{limit} calls are open on this connection already, as many as its other end allows",
                hint="try again when some have ended",
            ) from None

    async def send_headers(self, headers: Headers, end_stream: bool = False) -> None:
        await self._writable()
        self.check_open()
        self._h2_connection.send_headers(cast(int, self.id), headers, end_stream=end_stream)
        self.connection.flush()

    async def send_data(self, data: bytes, end_stream: bool = False) -> None:
        """Send ``data`` in frames as the peer's windows allow.

        Raises ``ConnectionGone`` when the stream ends, ``PeerStalled`` when the peer
        takes nothing for the limit's ``send_stall_s``.
        """
        h2, stream_id = self._h2_connection, cast(int, self.id)
        view, position, size = memoryview(data), 0, len(data)
        end_s: float | None = None
        while True:
            await self._writable()
            self.check_open()
            window = h2.local_flow_control_window(stream_id)
            if window <= 0 < size:
                end_s = end_s or self._latest(size)
                await self._window_open(None if self.patient else end_s)
                continue
            end = min(size, position + min(window, h2.max_outbound_frame_size))
            last = end == size
            piece = data if end - position == size else view[position:end]
            h2.send_data(stream_id, piece, end_stream=end_stream and last)
            self.connection.flush()
            self.connection.data_sent += end - position
            if last:
                return
            position = end

    async def room(self, size: int) -> None:
        """Wait until the stream's window has room for ``size`` bytes, or for what the peer is sure to allow.

        Whoever waits before a message is made keeps none for a peer that takes nothing. Of the
        connection's window only something has to be left: others may use it up for long.
        Raises as ``send_data`` does.
        """
        h2 = self._h2_connection
        end_s: float | None = None
        while True:
            await self._writable()
            self.check_open()
            window = h2.streams[cast(int, self.id)].outbound_flow_control_window
            if window >= self._returned(size) and h2.outbound_flow_control_window > 0:
                return
            end_s = end_s or self._latest(size)
            await self._window_open(None if self.patient else end_s)

    def _returned(self, size: int) -> int:
        """``size``, or what a peer that has read everything leaves open at the least."""
        granted = self._h2_connection.remote_settings.initial_window_size
        return max(min(size, int(granted * self.connection.limits.returned_share)), 1)

    def send_now(self, headers: Headers | None, data: bytes, trailers: Headers) -> bool:
        """A whole answer in one write, if the windows and the socket allow it.

        Returns False, having sent nothing, when they do not. Raises ``ConnectionGone``.
        """
        self.check_open()
        h2, stream_id = self._h2_connection, cast(int, self.id)
        room = min(h2.local_flow_control_window(stream_id), h2.max_outbound_frame_size)
        if len(data) > room or not self.connection.write_ready.is_set():
            return False
        if headers is not None:
            h2.send_headers(stream_id, headers)
        if data:
            h2.send_data(stream_id, data)
        h2.send_headers(stream_id, trailers, end_stream=True)
        self.connection.flush()
        return True

    async def end(self) -> None:
        await self._writable()
        self.check_open()
        self._h2_connection.end_stream(cast(int, self.id))
        self.connection.flush()

    async def reset(self, error_code: ErrorCodes = ErrorCodes.CANCEL) -> None:
        self.reset_nowait(error_code)

    def reset_nowait(self, error_code: ErrorCodes = ErrorCodes.CANCEL) -> None:
        """End the stream at once; harmless when it has ended already."""
        try:
            self._h2_connection.reset_stream(cast(int, self.id), error_code=error_code)
        except ProtocolError:
            return
        self.connection.flush()

    async def _writable(self) -> None:
        ready = self.connection.write_ready
        if ready.is_set():
            return
        stall_s = self.connection.limits.send_stall_s
        try:
            async with asyncio.timeout(stall_s) as patience:
                while not ready.is_set():
                    await ready.wait()
                    # Others that waited may have filled the buffer again: it is being read.
                    patience.reschedule(asyncio.get_running_loop().time() + stall_s)
        except TimeoutError:
            self.connection.abort("the peer reads nothing")
            raise PeerStalled(f"the peer read nothing for {stall_s:g} s") from None

    def _latest(self, size: int) -> float:
        """When a message of ``size`` bytes must have been taken, in the loop's time."""
        patience_s = self.connection.limits.send_stall_s + size / SLOWEST_PEER_BYTES_PER_S
        return asyncio.get_running_loop().time() + patience_s

    async def _window_open(self, end_s: float | None) -> None:
        """Wait for room in the peer's window, for the stall limit and until ``end_s`` at most."""
        stall_s = self.connection.limits.send_stall_s
        self.window_updated.clear()
        if end_s is None:
            await self.window_updated.wait()
            return
        try:
            async with asyncio.timeout_at(min(end_s, asyncio.get_running_loop().time() + stall_s)):
                await self.window_updated.wait()
        except TimeoutError:
            raise PeerStalled(f"the peer read too little for {stall_s:g} s") from None
