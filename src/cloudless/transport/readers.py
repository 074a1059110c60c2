"""Readers of single values: varints, fixed numbers, text; each checks what it reads.

``decode`` builds its tables from these. A ``Reader`` takes (data, position, end) and
gives (value, new position); it raises ``DecodeError``, or ``IndexError`` at the end of
all data, which ``decode`` takes for truncation.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from cloudless.transport.fieldplan import FIXED_FORMAT

#: What a message over its ticks is told.
TOO_MANY_FIELDS = "the message has too many fields for its size"
Reader = Callable[[bytes, int, int], tuple[Any, int]]

#: Unknown numbers of one enum that are kept as members; more are made each time anew.
UNKNOWN_MEMBERS = 256
#: Packed numbers cost a tick for so many bytes, and much less when each is one byte.
PACKED_BYTES_PER_TICK = 4
PACKED_SMALL_PER_TICK = 32
_EXHAUSTED = object()


class DecodeError(ValueError):
    """Bytes that are no message of their type; ``path`` names the field, or is empty."""

    def __init__(self, problem: str, path: str = "") -> None:
        super().__init__(f"{path}: {problem}" if path else problem)
        self.problem = problem
        self.path = path

    def under(self, name: str) -> DecodeError:
        """The same problem seen from one message further out."""
        if not name:
            return self
        return DecodeError(self.problem, f"{name}.{self.path}" if self.path else name)


def read_long_varint(data: bytes, position: int) -> tuple[int, int]:
    """A varint of any length up to 64 bits.

    >>> read_long_varint(bytes([0x96, 0x01]), 0)
    (150, 2)
    """
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        if byte < 128:
            value |= byte << shift
            if value >= 1 << 64:
                raise DecodeError("a varint has more than 64 bits")
            return value, position
        value |= (byte & 127) << shift
        shift += 7
        if shift > 63:
            raise DecodeError("a varint has more than 10 bytes")


def read_key(data: bytes, position: int) -> tuple[int, int]:
    """A field's key (number and wire type), at most 32 bits."""
    key, position = read_long_varint(data, position)
    if key >= 1 << 32:
        raise DecodeError("a field number has more than 29 bits")
    return key, position


def scalar_reader(proto: str) -> Reader:
    """The reader of a scalar type; ``enum`` and messages have their own."""
    if proto in FIXED_FORMAT:
        return _fixed_reader(FIXED_FORMAT[proto])
    return _SCALARS[proto]


def enum_reader(kind: Any) -> Reader:
    """Members by number; unknown numbers are kept as nameless members."""
    member = member_lookup(kind)

    def read(data: bytes, position: int, end: int) -> tuple[Any, int]:
        number = data[position]
        if number < 128:
            return member(number), position + 1
        number, position = _read_int32(data, position, end)
        return member(number), position

    return read


def member_lookup(kind: Any) -> Callable[[int], Any]:
    """Number to enum member, without the cost of calling the enum class."""
    members: dict[int, Any] = {int(value): value for value in kind}
    room = len(members) + UNKNOWN_MEMBERS

    def member(number: int) -> Any:
        found = members.get(number)
        if found is None:
            # What betterproto2's enums make of an unknown number, without the detours
            # through the enum class, which cost microseconds.
            found = int.__new__(kind, number)
            found._value_ = number
            found._name_ = ""
            if len(members) < room:
                members[number] = found
        return found

    return member


def packed_reader(proto: str, kind: Any) -> Callable[[bytes, Iterator[None]], list[Any]]:
    """The reader of a block of packed numbers; takes its ticks by the block's size."""
    if proto in FIXED_FORMAT:
        return _packed_fixed_reader(FIXED_FORMAT[proto])
    if proto == "enum":
        member = member_lookup(kind)

        def enums(block: bytes, ticks: Iterator[None]) -> list[Any]:
            numbers = _packed_varints(block, ticks, _read_int32)
            take_ticks(ticks, len(numbers) // 4)
            return [member(number) for number in numbers]

        return enums
    read = _SCALARS[proto]
    if proto == "bool":
        return lambda block, ticks: [value != 0 for value in _packed_varints(block, ticks, read)]
    if proto in ("sint32", "sint64"):

        def signed(block: bytes, ticks: Iterator[None]) -> list[Any]:
            if block.isascii():
                take_ticks(ticks, len(block) // PACKED_BYTES_PER_TICK)
                return [(value >> 1) ^ -(value & 1) for value in block]
            return _packed_varints(block, ticks, read)

        return signed
    return lambda block, ticks: _packed_varints(block, ticks, read)


def _packed_varints(block: bytes, ticks: Iterator[None], read: Reader) -> list[Any]:
    if block.isascii():
        take_ticks(ticks, len(block) // PACKED_SMALL_PER_TICK)
        return list(block)  # every number is one byte: the common case at the speed of C
    take_ticks(ticks, len(block) // PACKED_BYTES_PER_TICK)
    values: list[Any] = []
    position, end = 0, len(block)
    while position < end:
        value, position = read(block, position, end)
        values.append(value)
    return values


def take_ticks(ticks: Iterator[None], count: int) -> None:
    """Use up ``count`` ticks; raises ``DecodeError`` when there are fewer left."""
    if count > 0 and next(islice(ticks, count - 1, count), _EXHAUSTED) is _EXHAUSTED:
        raise DecodeError(TOO_MANY_FIELDS)


def _packed_fixed_reader(form: str) -> Callable[[bytes, Iterator[None]], list[Any]]:
    size = struct.calcsize("<" + form)

    def numbers(block: bytes, ticks: Iterator[None]) -> list[Any]:
        if len(block) % size:
            raise DecodeError("the message is truncated")
        return list(struct.unpack(f"<{len(block) // size}{form}", block))

    return numbers


def _fixed_reader(form: str) -> Reader:
    layout = struct.Struct("<" + form)
    unpack, size = layout.unpack_from, layout.size

    def read(data: bytes, position: int, end: int) -> tuple[Any, int]:
        stop = position + size
        if stop > end:
            raise DecodeError("the message is truncated")
        return unpack(data, position)[0], stop

    return read


def _read_bool(data: bytes, position: int, end: int) -> tuple[bool, int]:
    value = data[position]
    if value < 128:
        return value != 0, position + 1
    value, position = read_long_varint(data, position)
    return value != 0, position


def _read_uint64(data: bytes, position: int, end: int) -> tuple[int, int]:
    value = data[position]
    if value < 128:
        return value, position + 1
    return read_long_varint(data, position)


def _read_uint32(data: bytes, position: int, end: int) -> tuple[int, int]:
    value = data[position]
    if value < 128:
        return value, position + 1
    value, position = read_long_varint(data, position)
    if value >= 1 << 32:
        raise DecodeError(f"{value} does not fit into 32 bits")
    return value, position


def _read_int64(data: bytes, position: int, end: int) -> tuple[int, int]:
    value = data[position]
    if value < 128:
        return value, position + 1
    value, position = read_long_varint(data, position)
    return (value ^ 1 << 63) - (1 << 63), position


def _read_int32(data: bytes, position: int, end: int) -> tuple[int, int]:
    value = data[position]
    if value < 128:
        return value, position + 1
    value, position = read_long_varint(data, position)
    if value < 1 << 32:
        return (value ^ 1 << 31) - (1 << 31), position
    value -= 1 << 64
    if value < -(1 << 31):
        raise DecodeError(f"{value} does not fit into 32 bits")
    return value, position


def _read_sint64(data: bytes, position: int, end: int) -> tuple[int, int]:
    value, position = _read_uint64(data, position, end)
    return (value >> 1) ^ -(value & 1), position


def _read_sint32(data: bytes, position: int, end: int) -> tuple[int, int]:
    value, position = _read_uint32(data, position, end)
    return (value >> 1) ^ -(value & 1), position


def _read_bytes(data: bytes, position: int, end: int) -> tuple[bytes, int]:
    size = data[position]
    position += 1
    if size > 127:
        size, position = read_long_varint(data, position - 1)
    stop = position + size
    if stop > end:
        raise DecodeError("the message is truncated")
    return data[position:stop], stop


def _read_string(data: bytes, position: int, end: int) -> tuple[str, int]:
    size = data[position]
    position += 1
    if size > 127:
        size, position = read_long_varint(data, position - 1)
    stop = position + size
    if stop > end:
        raise DecodeError("the message is truncated")
    try:
        return data[position:stop].decode(), stop
    except UnicodeDecodeError:
        raise DecodeError("the text is not valid UTF-8") from None


_SCALARS: dict[str, Reader] = {
    "bool": _read_bool,
    "uint64": _read_uint64,
    "uint32": _read_uint32,
    "int64": _read_int64,
    "int32": _read_int32,
    "sint64": _read_sint64,
    "sint32": _read_sint32,
    "bytes": _read_bytes,
    "string": _read_string,
}
