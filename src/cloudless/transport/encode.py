"""Messages to bytes: a table of writers per class, which refuses what does not fit.

``codec`` calls ``write_message``. Fields are written in order of their numbers, as
protobuf does, unknown ones last. A value of a wrong type or out of its range raises
``EncodeError`` naming the field path, and so do two set members of one oneof.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from cloudless.transport.fieldplan import (
    FIXED_FORMAT,
    INTEGER_RANGE,
    LENGTH,
    FieldPlan,
    ValueType,
    plan_fields,
)
from cloudless.transport.wellknown import WrappedType, wrapped_type

#: Appends a piece of the output.
Put = Callable[[bytes], None]
#: Writes one value, with its length if it has one but without a key.
Writer = Callable[[Any, Put], None]

#: Varints of one byte, ready made.
SMALL = tuple(bytes((number,)) for number in range(128))
#: When a field is written: if it is true, if it is not None, the latter once per oneof.
_TRUE, _PRESENT, _MEMBER = 0, 1, 2


class EncodeError(ValueError):
    """A message that cannot be written: a bug of ours; ``path`` names the field."""

    def __init__(self, problem: str, path: str = "") -> None:
        super().__init__(f"{path}: {problem}" if path else problem)
        self.problem = problem
        self.path = path


class Encoded:
    """A message that is bytes already: ``codec`` sends it as it stands.

    It may stand for a whole answer, or for a message within one. Nobody checks that the
    bytes are right; only make it from what this codec wrote.
    """

    __slots__ = ("data", "message_type")

    def __init__(self, data: bytes, message_type: type[Any]) -> None:
        self.data = data
        self.message_type = message_type

    def __repr__(self) -> str:
        return f"Encoded({len(self.data)} bytes of {self.message_type.__name__})"


def varint(value: int) -> bytes:
    """The varint of a number from 0 to 2**64 - 1.

    >>> varint(150).hex()
    '9601'
    """
    if value < 128:
        return SMALL[value]
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


class MessageWriter:
    """The table of one class, compiled when its first message is written."""

    __slots__ = ("_fields", "_message")

    def __init__(self, message: type[Any]) -> None:
        self._message = message
        self._fields: list[tuple[str, int, str, Writer]] | None = None

    def _compile(self) -> list[tuple[str, int, str, Writer]]:
        fields = []
        for field in plan_fields(self._message):
            when = _MEMBER if field.group else _PRESENT if field.explicit else _TRUE
            if when == _TRUE and field.value.proto in ("float", "double") and not field.repeated:
                when = _PRESENT if field.key is None else _TRUE  # its writer knows -0.0 from 0.0
            fields.append((field.name, when, field.group, _field_writer(field)))
        self._fields = fields
        return fields

    def write(self, message: Any, put: Put) -> None:
        """Put all fields of ``message``; raises ``EncodeError``."""
        if type(message) is not self._message:
            if type(message) is Encoded and message.message_type is self._message:
                put(message.data)
                return
            raise EncodeError(f"expected {self._message.__name__}, got {type(message).__name__}")
        attributes = message.__dict__
        groups: set[str] | None = None
        name = ""
        try:
            for name, when, group, write in self._fields or self._compile():
                value = attributes[name]
                if when == _TRUE:
                    if value:
                        write(value, put)
                elif value is not None:
                    if when == _MEMBER:
                        groups = set() if groups is None else groups
                        if group in groups:
                            raise EncodeError(f"more than one member of {group} is set")
                        groups.add(group)
                    write(value, put)
        except EncodeError as error:
            path = f"{name}.{error.path}" if error.path else name
            raise EncodeError(error.problem, path) from None
        except (TypeError, ValueError, AttributeError, OverflowError, struct.error) as error:
            raise EncodeError(f"{error} ({type(attributes.get(name)).__name__})", name) from None
        if attributes["_unknown_fields"]:
            put(attributes["_unknown_fields"])


_writers_of: dict[type[Any], MessageWriter] = {}


def writer_of(message: type[Any]) -> MessageWriter:
    """The one table of a class."""
    writer = _writers_of.get(message)
    if writer is None:
        writer = _writers_of[message] = MessageWriter(message)
    return writer


def write_message(message: Any) -> bytes:
    """The bytes of a message; raises ``EncodeError``."""
    out: list[bytes] = []
    writer_of(type(message)).write(message, out.append)
    return b"".join(out)


def _field_writer(field: FieldPlan) -> Writer:
    if field.key is not None:
        return _map_writer(field.number, field.key, field.value)
    if field.packable:
        return _packed_writer(varint(field.number << 3 | LENGTH), field.value)
    key = varint(field.number << 3 | field.value.wire)
    write = _value_writer(field.value)
    if field.repeated:
        return _repeated_writer(key, write)
    if not field.explicit and field.value.proto in ("float", "double"):
        return _nonzero_writer(key, write)

    def single(value: Any, put: Put) -> None:
        put(key)
        write(value, put)

    return single


def _nonzero_writer(key: bytes, write: Writer) -> Writer:
    def number(value: Any, put: Put) -> None:
        if value or str(value) == "-0.0":
            put(key)
            write(value, put)

    return number


def _repeated_writer(key: bytes, write: Writer) -> Writer:
    def elements(values: Any, put: Put) -> None:
        for value in _sequence(values):
            put(key)
            write(value, put)

    return elements


def _packed_writer(key: bytes, kind: ValueType) -> Writer:
    write = _value_writer(kind)

    def block(values: Any, put: Put) -> None:
        pieces: list[bytes] = []
        piece = pieces.append
        for value in _sequence(values):
            write(value, piece)
        data = b"".join(pieces)
        put(key)
        put(varint(len(data)))
        put(data)

    return block


def _map_writer(number: int, key: ValueType, value: ValueType) -> Writer:
    tag = varint(number << 3 | LENGTH)
    key_tag, value_tag = SMALL[8 | key.wire], SMALL[16 | value.wire]
    write_key, write_value = _value_writer(key), _value_writer(value)

    def entries(mapping: Any, put: Put) -> None:
        if not isinstance(mapping, dict):
            raise TypeError("expected a dict")
        for name, content in mapping.items():
            pieces = [key_tag]
            piece = pieces.append
            write_key(name, piece)
            piece(value_tag)
            write_value(content, piece)
            data = b"".join(pieces)
            put(tag)
            put(varint(len(data)))
            put(data)

    return entries


def _sequence(values: Any) -> Any:
    if not isinstance(values, list | tuple):
        raise TypeError("expected a list")
    return values


def _value_writer(kind: ValueType) -> Writer:
    if kind.wrapped:
        return _wrapped_writer(wrapped_type(kind.message))
    if kind.proto == "message":
        return _message_writer(writer_of(kind.message))
    if kind.proto in FIXED_FORMAT:
        return _fixed_writer(FIXED_FORMAT[kind.proto])
    if kind.proto in ("sint32", "sint64"):
        return _zigzag_writer(*INTEGER_RANGE[kind.proto])
    if kind.proto in INTEGER_RANGE:
        return _integer_writer(*INTEGER_RANGE[kind.proto])
    return {"string": _write_string, "bytes": _write_bytes, "bool": _write_bool}[kind.proto]


def _message_writer(writer: MessageWriter) -> Writer:
    def message(value: Any, put: Put) -> None:
        pieces: list[bytes] = []
        writer.write(value, pieces.append)
        data = b"".join(pieces)
        put(varint(len(data)))
        put(data)

    return message


def _wrapped_writer(kind: WrappedType) -> Writer:
    def wrapped(value: Any, put: Put) -> None:
        data = kind.write(value)
        put(varint(len(data)))
        put(data)

    return wrapped


def _integer_writer(low: int, high: int) -> Writer:
    def integer(value: Any, put: Put) -> None:
        if 0 <= value < 128:
            put(SMALL[value])
        elif low <= value <= high:
            put(varint(value if value >= 0 else value + (1 << 64)))
        else:
            raise ValueError(f"{value} is not between {low} and {high}")

    return integer


def _zigzag_writer(low: int, high: int) -> Writer:
    def integer(value: Any, put: Put) -> None:
        if not low <= value <= high:
            raise ValueError(f"{value} is not between {low} and {high}")
        put(varint(value << 1 if value >= 0 else (value << 1) ^ -1))

    return integer


def _fixed_writer(form: str) -> Writer:
    pack = struct.Struct("<" + form).pack

    def fixed(value: Any, put: Put) -> None:
        put(pack(value))

    return fixed


def _write_string(value: Any, put: Put) -> None:
    data = value.encode()
    size = len(data)
    put(SMALL[size] if size < 128 else varint(size))
    put(data)


def _write_bytes(value: Any, put: Put) -> None:
    if not isinstance(value, bytes | bytearray | memoryview):
        raise TypeError("expected bytes")
    put(varint(len(value)))
    put(bytes(value))


def _write_bool(value: Any, put: Put) -> None:
    if value is not True and value is not False:
        raise TypeError("expected True or False")
    put(SMALL[value])
