"""An h2 connection that counts what its peer makes it do in vain, and drains in peace.

``protocol`` makes one per socket, for both ends. It knows frames, not calls: budgets for
resets and control frames (the connection ends with GOAWAY ENHANCE_YOUR_CALM beyond
them), GOAWAY without error as a request to finish, our own GOAWAY without closing.
It never touches a socket.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, cast

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import ConnectionTerminated, Event
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings
from h2.stream import H2Stream
from hyperframe.frame import (
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from cloudless.transport.limits import Limits

#: A SETTINGS frame walks over all streams, so it counts as this many control frames.
SETTINGS_COST = 5
#: Control frames that a peer may send for each DATA frame of ours (window updates of
#: stream and connection, a bandwidth probe) and for each new stream, without any charge.
CREDIT_PER_FRAME = 4
#: h2 forgets closed streams only when asked to count the open ones; ask beyond this many.
SWEEP_STREAMS = 64
#: What a first GOAWAY names as last stream: "no new calls, and none is lost".
ANY_STREAM = 2**31 - 1


def _body_repr(frame: DataFrame) -> str:
    return f"{len(frame.data)} bytes"


# h2 makes a text of every frame that arrives, for a log that nobody keeps: hyperframe's shows
# the whole body in hexadecimal first, a quarter of what receiving bulk data costs.
DataFrame._body_repr = _body_repr  # type: ignore[assignment, method-assign]


#: Less than this is joined into one piece; more is cheaper to hand over as it is.
JOINED_BYTES = 8 * 1024
_END_STREAM = 0x1
_DATA_HEADER = struct.Struct(">HBBBL")


def _data_header(size: int, flags: int, stream_id: int) -> bytes:
    """The nine bytes before a DATA frame's data.

    >>> _data_header(5, 1, 3).hex()
    '000005000100000003'
    """
    return _DATA_HEADER.pack(size >> 8, size & 0xFF, 0, flags, stream_id)


class CalmDown(ProtocolError):
    """The peer is over a budget; h2 answers with GOAWAY ENHANCE_YOUR_CALM."""

    error_code = ErrorCodes.ENHANCE_YOUR_CALM


class Budget:
    """A count that starts again every ``window_s`` seconds.

    >>> now = [0.0]
    >>> budget = Budget(2, 10.0, lambda: now[0])
    >>> [budget.spend() for _ in range(3)]
    [True, True, False]
    >>> now[0] = 10.5
    >>> budget.spend()
    True
    """

    __slots__ = ("_now", "_start_s", "_window_s", "limit", "spent")

    def __init__(self, limit: int, window_s: float, now: Callable[[], float]) -> None:
        self.limit = limit
        self.spent = 0
        self._window_s = window_s
        self._now = now
        self._start_s = now()

    def spend(self, amount: int = 1) -> bool:
        """Count ``amount``; False when that is more than the window allows."""
        self.spent += amount
        if self.spent <= self.limit:
            return True
        now_s = self._now()
        if now_s - self._start_s < self._window_s:
            return False
        self._start_s = now_s
        self.spent = amount
        return amount <= self.limit

    def credit(self, amount: int) -> None:
        """Give back ``amount``: the peer had a reason to send that much."""
        self.spent = max(self.spent - amount, 0)


class GuardedH2(H2Connection):
    """One HTTP/2 connection; raises ``CalmDown`` out of ``receive_data`` over a budget."""

    # h2 remembers how streams ended; a few thousand are enough to judge late frames.
    MAX_CLOSED_STREAMS = 4096

    def __init__(self, config: H2Configuration, limits: Limits, now: Callable[[], float]) -> None:
        super().__init__(config)
        values: dict[SettingCodes, int] = {
            SettingCodes.MAX_CONCURRENT_STREAMS: limits.concurrent_streams,
            SettingCodes.MAX_HEADER_LIST_SIZE: limits.header_list_bytes,
            SettingCodes.INITIAL_WINDOW_SIZE: limits.stream_window_bytes,
            SettingCodes.MAX_FRAME_SIZE: limits.frame_bytes,
            SettingCodes.ENABLE_PUSH: 0,
        }
        # Set before the first SETTINGS frame is written, so that it carries our values
        # and no second exchange is needed.
        self.local_settings = Settings(client=bool(config.client_side), initial_values=values)
        self.decoder.max_header_list_size = limits.header_list_bytes
        self.max_inbound_frame_size = limits.frame_bytes
        self.resets = Budget(limits.resets, limits.budget_window_s, now)
        self.control = Budget(limits.control_frames, limits.budget_window_s, now)
        self.goaway_received = False
        self._receiving = False
        #: What the socket shall get, in order; data frames are not copied into it.
        self._outgoing: list[bytes | memoryview] = []

    def take_outgoing(self) -> list[bytes | memoryview]:
        """What is to be written now, in pieces."""
        pieces, self._outgoing = self._outgoing, []
        if self._data_to_send:  # the preface
            pieces.insert(0, bytes(self._data_to_send))
            self._data_to_send = bytearray()
        if len(pieces) > 1 and sum(map(len, pieces)) < JOINED_BYTES:
            return [b"".join(pieces)]
        return pieces

    def data_to_send(self, amount: int | None = None) -> bytes:
        """All of it in one piece, for whoever asks h2."""
        return b"".join(self.take_outgoing())

    @property
    def open_inbound_streams(self) -> int:
        """Zero for h2, which would end the connection over the limit of streams.

        The processor refuses single streams instead (RFC 9113 5.1.2). Calling the
        original now and then lets h2 forget closed streams.
        """
        if len(self.streams) > SWEEP_STREAMS:
            self._open_streams(1)
        return 0

    def drain(self, last_stream_id: int = ANY_STREAM) -> None:
        """Queue GOAWAY without closing: the peer opens no new streams, running ones go on."""
        self._prepare_for_sending([GoAwayFrame(0, last_stream_id=last_stream_id)])

    def quit(self, error: ErrorCodes, reason: str) -> None:
        """Queue a last GOAWAY with an error code and a reason for the peer's log."""
        self._prepare_for_sending(
            [
                GoAwayFrame(
                    0,
                    last_stream_id=self.highest_inbound_stream_id,
                    error_code=error,
                    additional_data=reason.encode()[:128],
                )
            ]
        )

    def send_data(self, *args: Any, **kwargs: Any) -> None:
        super().send_data(*args, **kwargs)
        self.control.credit(CREDIT_PER_FRAME)

    def give_back(self, size: int, stream_id: int) -> None:
        """Acknowledge ``size`` bytes of a stream now; h2 would wait until half of its window was read."""
        increment = self._inbound_flow_control_window_manager.process_bytes(size)
        if increment:
            frame = WindowUpdateFrame(0)
            frame.window_increment = increment
            self._prepare_for_sending([frame])
        stream = self.streams.get(stream_id)
        if stream is not None and stream.open:
            self.increment_flow_control_window(size, stream_id)

    def receive_data(self, data: Any) -> list[Event]:
        self._receiving = True
        try:
            return super().receive_data(data)
        finally:
            self._receiving = False

    def _receive_frame(self, frame: Frame) -> list[Event]:
        kind = frame.__class__
        if kind is DataFrame:
            if not cast(DataFrame, frame).data and "END_STREAM" not in frame.flags:
                self._charge_control(1)
        elif kind is HeadersFrame:
            self.control.credit(CREDIT_PER_FRAME)
        elif kind is RstStreamFrame:
            stream = self.streams.get(frame.stream_id)
            if stream is not None and stream.open and not self._answers(stream):
                self.charge_reset(frame.stream_id)
            else:
                self._charge_control(1)
        elif kind is SettingsFrame:
            self._charge_control(SETTINGS_COST)
        else:
            self._charge_control(1)
        return super()._receive_frame(frame)

    def _answers(self, stream: H2Stream) -> bool:
        """Whether we answer a call: ending a watch or a log early is no abuse, however often."""
        return not self.config.client_side and bool(stream.state_machine.headers_sent)

    def _charge_control(self, cost: int) -> None:
        if not self.control.spend(cost):
            raise CalmDown("too many control frames")

    def charge_reset(self, stream_id: int) -> None:
        """Count a stream that ends early by the peer's doing; raises ``CalmDown``."""
        if not self.resets.spend():
            raise CalmDown(f"too many resets, the last one of stream {stream_id}")

    def _prepare_for_sending(self, frames: list[Frame]) -> None:
        for frame in frames:
            if frame.__class__ is DataFrame and "PADDED" not in frame.flags:
                # Data goes to the socket as it is: h2 would copy it five times on its way.
                data = frame.data
                frame.body_len = len(data)
                ends = _END_STREAM if "END_STREAM" in frame.flags else 0
                self._outgoing += (_data_header(len(data), ends, frame.stream_id), data)
            else:
                self._outgoing.append(frame.serialize())
        if self._receiving:
            for frame in frames:
                # A reset that the peer's frames force out of us costs it as much as its own.
                if frame.__class__ is RstStreamFrame:
                    self.charge_reset(frame.stream_id)

    def _receive_goaway_frame(self, frame: GoAwayFrame) -> tuple[list[Frame], list[Event]]:
        self.goaway_received = True
        if frame.error_code != ErrorCodes.NO_ERROR:
            return super()._receive_goaway_frame(frame)
        # h2 would close its state machine; RFC 9113 6.8 lets older streams finish.
        event = ConnectionTerminated()
        event.error_code = ErrorCodes.NO_ERROR
        event.last_stream_id = frame.last_stream_id
        return [], [event]
