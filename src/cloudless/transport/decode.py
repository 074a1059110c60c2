"""Bytes to messages: a table of readers per class, strict, and bounded in time and depth.

``codec`` calls ``read_message``. What protobuf forbids is refused with ``DecodeError``
naming the field path: wrong wire types, truncation, field number 0, groups, varints over
64 bits, invalid UTF-8, numbers out of range. Work is bounded by ticks, one for each
field, in proportion to the size of the input. Nothing here reads or writes sockets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import repeat
from typing import Any

from cloudless.transport.fieldplan import (
    END_GROUP,
    FIXED32,
    FIXED64,
    LENGTH,
    START_GROUP,
    VARINT,
    FieldPlan,
    ValueType,
    plan_fields,
)
from cloudless.transport.readers import (
    TOO_MANY_FIELDS,
    DecodeError,
    Reader,
    enum_reader,
    packed_reader,
    read_key,
    read_long_varint,
    scalar_reader,
    take_ticks,
)
from cloudless.transport.wellknown import WrappedType, wrapped_type

#: Messages may be nested this deep.
MAX_DEPTH = 64
#: Ticks of a message: a base, and one for each so many bytes. A tick is about 0.5 us, so
#: 256 KiB of the worst input take less than 50 ms. Answers from a server that the caller
#: chose may hold long lists of small fields, and get four times as many.
BASE_TICKS = 4096
BYTES_PER_TICK = 4
ANSWER_BYTES_PER_TICK = 1

#: Sets one field: (attributes, data, position, end, ticks, depth) -> new position.
FieldReader = Callable[[dict[str, Any], bytes, int, int, Iterator[None], int], int]


class MessageReader:
    """The table of one class, compiled when the first message of it comes."""

    __slots__ = ("_blank", "_containers", "_extra_ticks", "_fields", "_message", "_readers")

    def __init__(self, message: type[Any]) -> None:
        self._message = message
        self._readers: dict[int, FieldReader] | None = None
        self._fields: dict[int, tuple[str, int]] = {}  # number -> name, usual wire type
        self._blank: dict[str, Any] = {}
        self._containers: tuple[tuple[str, Callable[[], Any]], ...] = ()
        self._extra_ticks = 0

    def compile(self) -> dict[int, FieldReader]:
        """Build the table: one reader for each allowed combination of number and wire type."""
        fields = plan_fields(self._message)
        groups: dict[str, list[str]] = {}
        for field in fields:
            if field.group:
                groups.setdefault(field.group, []).append(field.name)
        readers: dict[int, FieldReader] = {}
        containers: list[tuple[str, Callable[[], Any]]] = []
        for field in fields:
            others = tuple(name for name in groups.get(field.group, ()) if name != field.name)
            for wire, reader in _field_readers(field, others):
                readers[field.number << 3 | wire] = reader
                self._fields[field.number] = field.name, wire
            if field.key is not None or field.repeated:
                containers.append((field.name, list if field.repeated else dict))
            else:
                self._blank[field.name] = None if field.explicit else field.value.default()
        self._blank["_unknown_fields"] = b""
        self._containers = tuple(containers)
        self._extra_ticks = (len(fields) + 4 * len(containers)) // 8
        self._readers = readers
        return readers

    def new(self, ticks: Iterator[None]) -> Any:
        """An empty message; costs ticks by the size of the class."""
        if self._readers is None:
            self.compile()
        take_ticks(ticks, self._extra_ticks)
        message = object.__new__(self._message)
        attributes = self._blank.copy()
        for name, container in self._containers:
            attributes[name] = container()
        message.__dict__ = attributes
        return message

    def read(
        self,
        attributes: dict[str, Any],
        data: bytes,
        position: int,
        end: int,
        ticks: Iterator[None],
        depth: int,
    ) -> None:
        """Merge the fields in ``data[position:end]`` into a message's attributes."""
        if depth > MAX_DEPTH:
            raise DecodeError(f"messages are nested deeper than {MAX_DEPTH}")
        readers = self._readers or self.compile()
        unknown: list[bytes] = []
        start = position
        try:
            for _ in ticks:
                if position >= end:
                    break
                start = position
                key = data[position]
                position += 1
                if key > 127:
                    key, position = read_key(data, start)
                reader = readers.get(key)
                if reader is not None:
                    position = reader(attributes, data, position, end, ticks, depth)
                else:
                    position = self._skip(key, data, position, end)
                    unknown.append(data[start:position])
            else:
                raise DecodeError(TOO_MANY_FIELDS)
        except IndexError:
            raise DecodeError("the message is truncated", self._name_at(data, start)) from None
        except DecodeError as error:
            raise error.under(self._name_at(data, start)) from None
        if position > end:
            raise DecodeError("the message is truncated")
        if unknown:
            attributes["_unknown_fields"] += b"".join(unknown)

    def _skip(self, key: int, data: bytes, position: int, end: int) -> int:
        """The end of an unknown field; raises for what is no field, or one of a wrong type."""
        number, wire = key >> 3, key & 7
        if number == 0:
            raise DecodeError("field number 0")
        if number in self._fields:
            raise DecodeError(f"wire type {wire}, not {self._fields[number][1]}")
        if wire == VARINT:
            return read_long_varint(data, position)[1]
        if wire == LENGTH:
            size, position = read_long_varint(data, position)
            position += size
        elif wire == FIXED64:
            position += 8
        elif wire == FIXED32:
            position += 4
        elif wire in (START_GROUP, END_GROUP):
            raise DecodeError(f"field {number} is a group")
        else:
            raise DecodeError(f"field {number} has the wire type {wire}")
        if position > end:
            raise DecodeError("the message is truncated")
        return position

    def _name_at(self, data: bytes, start: int) -> str:
        """Name of the field whose key stands at ``start``, for an error; may be empty."""
        try:
            return self._fields[read_key(data, start)[0] >> 3][0]
        except (DecodeError, IndexError, KeyError):
            return ""


_readers_of: dict[type[Any], MessageReader] = {}


def reader_of(message: type[Any]) -> MessageReader:
    """The one table of a class."""
    reader = _readers_of.get(message)
    if reader is None:
        reader = _readers_of[message] = MessageReader(message)
    return reader


def read_message(data: bytes, message: type[Any], bytes_per_tick: int = BYTES_PER_TICK) -> Any:
    """A message of the given class; raises ``DecodeError``."""
    ticks = repeat(None, BASE_TICKS + len(data) // bytes_per_tick)
    reader = reader_of(message)
    made = reader.new(ticks)
    reader.read(made.__dict__, data, 0, len(data), ticks, 1)
    return made


def _field_readers(field: FieldPlan, others: tuple[str, ...]) -> list[tuple[int, FieldReader]]:
    """Wire types that may carry a field, each with its reader; the usual one is last."""
    value = field.value
    if field.key is not None:
        return [(LENGTH, _map_field(field.name, field.key, value))]
    if value.proto == "message" and not value.wrapped:
        reader = reader_of(value.message)
        if field.repeated:
            return [(LENGTH, _repeated_message_field(field.name, reader))]
        return [(LENGTH, _message_field(field.name, reader, others))]
    if value.wrapped:
        if field.repeated:
            return [(LENGTH, _repeated_wrapped_field(field.name, wrapped_type(value.message)))]
        return [(LENGTH, _wrapped_field(field.name, wrapped_type(value.message), others))]
    read = _scalar(value)
    if field.packable:
        packed = packed_reader(value.proto, value.message)
        return [(value.wire, _repeated_field(field.name, read)), (LENGTH, _packed_field(field.name, packed))]
    if field.repeated:
        return [(value.wire, _repeated_field(field.name, read))]
    return [(value.wire, _field(field.name, read, others))]


def _scalar(value: ValueType) -> Reader:
    return enum_reader(value.message) if value.proto == "enum" else scalar_reader(value.proto)


def _field(name: str, read: Reader, others: tuple[str, ...]) -> FieldReader:
    def plain(
        attributes: dict[str, Any], data: bytes, position: int, end: int, ticks: Iterator[None], depth: int
    ) -> int:
        attributes[name], position = read(data, position, end)
        return position

    def member(
        attributes: dict[str, Any], data: bytes, position: int, end: int, ticks: Iterator[None], depth: int
    ) -> int:
        attributes[name], position = read(data, position, end)
        for other in others:
            attributes[other] = None
        return position

    return member if others else plain


def _repeated_field(name: str, read: Reader) -> FieldReader:
    def element(
        attributes: dict[str, Any], data: bytes, position: int, end: int, ticks: Iterator[None], depth: int
    ) -> int:
        value, position = read(data, position, end)
        attributes[name].append(value)
        return position

    return element


def _packed_field(name: str, read: Callable[[bytes, Iterator[None]], list[Any]]) -> FieldReader:
    def block(
        attributes: dict[str, Any], data: bytes, position: int, end: int, ticks: Iterator[None], depth: int
    ) -> int:
        position, stop = _block(data, position, end)
        attributes[name] += read(data[position:stop], ticks)
        return stop

    return block


def _message_field(name: str, reader: MessageReader, others: tuple[str, ...]) -> FieldReader:
    def message(
        attributes: dict[str, Any], data: bytes, position: int, end: int, ticks: Iterator[None], depth: int
    ) -> int:
        position, stop = _block(data, position, end)
        value = attributes[name]
        if value is None:
            value = attributes[name] = reader.new(ticks)
            for other in others:
                attributes[other] = None
        reader.read(value.__dict__, data, position, stop, ticks, depth + 1)
        return stop

    return message


def _repeated_message_field(name: str, reader: MessageReader) -> FieldReader:
    def element(
        attributes: dict[str, Any], data: bytes, position: int, end: int, ticks: Iterator[None], depth: int
    ) -> int:
        position, stop = _block(data, position, end)
        value = reader.new(ticks)
        attributes[name].append(value)
        reader.read(value.__dict__, data, position, stop, ticks, depth + 1)
        return stop

    return element


def _repeated_wrapped_field(name: str, kind: WrappedType) -> FieldReader:
    def element(
        attributes: dict[str, Any], data: bytes, position: int, end: int, ticks: Iterator[None], depth: int
    ) -> int:
        position, stop = _block(data, position, end)
        take_ticks(ticks, kind.ticks)
        attributes[name].append(kind.read(data[position:stop], None))
        return stop

    return element


def _wrapped_field(name: str, kind: WrappedType, others: tuple[str, ...]) -> FieldReader:
    def wrapped(
        attributes: dict[str, Any], data: bytes, position: int, end: int, ticks: Iterator[None], depth: int
    ) -> int:
        position, stop = _block(data, position, end)
        take_ticks(ticks, kind.ticks)
        attributes[name] = kind.read(data[position:stop], attributes[name])
        for other in others:
            attributes[other] = None
        return stop

    return wrapped


def _map_field(name: str, key: ValueType, value: ValueType) -> FieldReader:
    read_key_value = scalar_reader(key.proto)
    key_tag, value_tag = 8 | key.wire, 16 | value.wire
    is_message = value.proto == "message" and not value.wrapped
    message = reader_of(value.message) if is_message else None
    wrapped = wrapped_type(value.message) if value.wrapped else None
    read_value = None if message or wrapped else _scalar(value)

    def entry(
        attributes: dict[str, Any], data: bytes, position: int, end: int, ticks: Iterator[None], depth: int
    ) -> int:
        position, stop = _block(data, position, end)
        found_key = key.default()
        found: Any = None
        for _ in ticks:
            if position >= stop:
                break
            tag = data[position]
            position += 1
            if tag == key_tag:
                found_key, position = read_key_value(data, position, stop)
            elif tag != value_tag:
                raise DecodeError(f"a map entry has the key {tag}")
            elif message is not None:
                position, inner = _block(data, position, stop)
                found = found if found is not None else message.new(ticks)
                message.read(found.__dict__, data, position, inner, ticks, depth + 1)
                position = inner
            elif wrapped is not None:
                position, inner = _block(data, position, stop)
                take_ticks(ticks, wrapped.ticks)
                found = wrapped.read(data[position:inner], found)
                position = inner
            elif read_value is not None:
                found, position = read_value(data, position, stop)
        else:
            raise DecodeError(TOO_MANY_FIELDS)
        if position > stop:
            raise DecodeError("the message is truncated")
        if found is None:
            found = message.new(ticks) if message else wrapped.read(b"", None) if wrapped else value.default()
        attributes[name][found_key] = found
        return stop

    return entry


def _block(data: bytes, position: int, end: int) -> tuple[int, int]:
    """Start and end of a length-delimited block whose length stands at ``position``."""
    size = data[position]
    position += 1
    if size > 127:
        size, position = read_long_varint(data, position - 1)
    stop = position + size
    if stop > end:
        raise DecodeError("the message is truncated")
    return position, stop
