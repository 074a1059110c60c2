"""Values that stand for a message: ``datetime``, ``timedelta``, and the wrapper types.

betterproto2 lets a Timestamp field hold a datetime; ``encode`` and ``decode`` ask here
how to write and read such values. Timestamps and durations are checked against the
ranges of their definition; what is finer than a microsecond is cut off.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any, Protocol

from cloudless.transport.readers import DecodeError, read_key, read_long_varint

EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
#: Seconds of the years 1 to 9999, the range of google.protobuf.Timestamp.
TIMESTAMP_RANGE_S = (-62_135_596_800, 253_402_300_799)
#: About 10,000 years either way, the range of google.protobuf.Duration.
DURATION_LIMIT_S = 315_576_000_000
_DAY_S = 86_400


class WrappedType(Protocol):
    """How one such type is written and read; ``ticks`` is what reading one costs."""

    ticks: int

    def write(self, value: Any) -> bytes:
        """The message's bytes; raises ``TypeError`` or ``ValueError`` for a bad value."""
        ...

    def read(self, data: bytes, before: Any) -> Any:
        """The value; ``before`` is what an earlier occurrence of the field gave, or None."""
        ...


class TimestampType:
    """google.protobuf.Timestamp as a timezone-aware datetime."""

    ticks = 1

    def write(self, value: Any) -> bytes:
        if not isinstance(value, datetime.datetime):
            raise TypeError(f"expected datetime, got {type(value).__name__}")
        if value.tzinfo is None:
            raise ValueError("the datetime has no timezone")
        return _pair(*_since_epoch(value))

    def read(self, data: bytes, before: Any) -> Any:
        seconds, nanos = _read_pair(data, (0, 0) if before is None else _since_epoch(before))
        low_s, high_s = TIMESTAMP_RANGE_S
        if not (low_s <= seconds <= high_s and 0 <= nanos < 10**9):
            raise DecodeError("the timestamp is out of range")
        return EPOCH + datetime.timedelta(seconds // _DAY_S, seconds % _DAY_S, nanos // 1000)


class DurationType:
    """google.protobuf.Duration as a timedelta."""

    ticks = 1

    def write(self, value: Any) -> bytes:
        if not isinstance(value, datetime.timedelta):
            raise TypeError(f"expected timedelta, got {type(value).__name__}")
        seconds, nanos = _parts(value)
        if abs(seconds) > DURATION_LIMIT_S:
            raise ValueError("the duration is out of range")
        return _pair(seconds, nanos)

    def read(self, data: bytes, before: Any) -> Any:
        seconds, nanos = _read_pair(data, (0, 0) if before is None else _parts(before))
        if abs(seconds) > DURATION_LIMIT_S or abs(nanos) >= 10**9 or seconds * nanos < 0:
            raise DecodeError("the duration is out of range")
        micros = nanos // 1000 if nanos >= 0 else -(-nanos // 1000)
        return datetime.timedelta(seconds=seconds, microseconds=micros)


class GenericType:
    """Any other wrapper: by way of its message class."""

    ticks = 6

    def __init__(
        self,
        message: Any,
        write_message: Callable[[Any], bytes],
        read_message: Callable[[bytes, Any], Any],
    ) -> None:
        self._message = message
        self._write = write_message
        self._read = read_message

    def write(self, value: Any) -> bytes:
        return self._write(self._message.from_wrapped(value))

    def read(self, data: bytes, before: Any) -> Any:
        earlier = b"" if before is None else self.write(before)
        return self._read(earlier + data, self._message).to_wrapped()


def wrapped_type(message: Any) -> WrappedType:
    """How values of the message class ``message`` are written and read."""
    if hasattr(message, "to_datetime"):
        return TimestampType()
    if hasattr(message, "to_timedelta"):
        return DurationType()
    from cloudless.transport.decode import read_message
    from cloudless.transport.encode import write_message

    return GenericType(message, write_message, read_message)


def _since_epoch(value: datetime.datetime) -> tuple[int, int]:
    since = value - EPOCH
    return since.days * _DAY_S + since.seconds, since.microseconds * 1000


def _parts(value: datetime.timedelta) -> tuple[int, int]:
    """Seconds and nanoseconds of equal sign.

    >>> _parts(datetime.timedelta(seconds=-1.5))
    (-1, -500000000)
    """
    micros = value // datetime.timedelta(microseconds=1)
    seconds, rest = divmod(abs(micros), 10**6)
    return (seconds, rest * 1000) if micros >= 0 else (-seconds, -rest * 1000)


def _pair(seconds: int, nanos: int) -> bytes:
    return (b"\x08" + _varint(seconds) if seconds else b"") + (b"\x10" + _varint(nanos) if nanos else b"")


def _varint(value: int) -> bytes:
    if value < 0:
        value += 1 << 64
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_pair(data: bytes, start: tuple[int, int]) -> tuple[int, int]:
    """Fields 1 and 2 of a Timestamp or Duration; anything else is refused."""
    seconds, nanos = start
    position, end = 0, len(data)
    try:
        while position < end:
            key, position = read_key(data, position)
            value, position = read_long_varint(data, position)
            signed = (value ^ 1 << 63) - (1 << 63)
            if key == 8:
                seconds = signed
            elif key == 16:
                nanos = signed
            else:
                raise DecodeError(f"field {key >> 3} does not belong here")
    except IndexError:
        raise DecodeError("the message is truncated") from None
    return seconds, nanos
