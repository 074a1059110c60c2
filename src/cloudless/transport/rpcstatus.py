"""google.rpc.Status and its details as bytes: what travels in ``grpc-status-details-bin``.

``errors`` uses it on both ends. It is a few messages of public numbers, so they are
written by hand here: no generated code, no protobuf import on the client side. Knows
nothing of domain errors.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

_TYPE_PREFIX = "type.googleapis.com/google.rpc."
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True)
class Details:
    """What a status says beyond its code and message.

    ``violations`` are (field path, description); ``reason`` and ``domain`` are those of
    ErrorInfo, ``metadata`` its map; ``retry_after_s`` is RetryInfo's delay.
    """

    reason: str = ""
    domain: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    violations: tuple[tuple[str, str], ...] = ()
    retry_after_s: float | None = None


def encode_status(code: int, message: str, details: Details) -> bytes:
    """A serialized google.rpc.Status.

    >>> decode_details(encode_status(3, "no", Details(reason="CL-1", violations=(("a", "b"),))))
    Details(reason='CL-1', domain='', metadata={}, violations=(('a', 'b'),), retry_after_s=None)
    """
    parts = [_number(1, code), _text(2, message)]
    if details.reason:
        entries = (_block(3, _text(1, key) + _text(2, value)) for key, value in details.metadata.items())
        info = _text(1, details.reason) + _text(2, details.domain) + b"".join(entries)
        parts.append(_block(3, _any("ErrorInfo", info)))
    if details.violations:
        listed = (_block(1, _text(1, path) + _text(2, what)) for path, what in details.violations)
        parts.append(_block(3, _any("BadRequest", b"".join(listed))))
    if details.retry_after_s is not None:
        seconds, nanos = divmod(int(details.retry_after_s * 1e9), 10**9)
        parts.append(_block(3, _any("RetryInfo", _block(1, _number(1, seconds) + _number(2, nanos)))))
    return b"".join(parts)


def decode_details(data: bytes) -> Details:
    """Read what ``encode_status`` writes; unknown details are skipped, broken bytes give none."""
    try:
        return _details(data)
    except (IndexError, ValueError):
        return Details()


def _details(data: bytes) -> Details:
    reason = domain = ""
    metadata: dict[str, str] = {}
    violations: list[tuple[str, str]] = []
    retry_after_s: float | None = None
    for number, packed in _fields(data):
        if number != 3 or not isinstance(packed, bytes):
            continue
        kind, value = _pair(packed)
        if kind == _TYPE_PREFIX + "ErrorInfo":
            for inner, content in _fields(value):
                if inner == 1:
                    reason = _string(content)
                elif inner == 2:
                    domain = _string(content)
                elif inner == 3 and isinstance(content, bytes):
                    key, text = _pair(content)
                    metadata[key] = _string(text)
        elif kind == _TYPE_PREFIX + "BadRequest":
            for inner, content in _fields(value):
                if inner == 1 and isinstance(content, bytes):
                    path, what = _pair(content)
                    violations.append((path, _string(what)))
        elif kind == _TYPE_PREFIX + "RetryInfo":
            retry_after_s = _delay_s(value)
    return Details(reason, domain, metadata, tuple(violations), retry_after_s)


def _delay_s(value: bytes) -> float:
    total = 0.0
    for number, content in _fields(value):
        if number == 1 and isinstance(content, bytes):
            for inner, amount in _fields(content):
                if isinstance(amount, int):
                    total += amount if inner == 1 else amount / 1e9
    return total


def _pair(data: bytes) -> tuple[str, bytes]:
    """Fields 1 (text) and 2 (bytes) of a message: a map entry, an Any, a violation."""
    first, second = "", b""
    for number, content in _fields(data):
        if number == 1:
            first = _string(content)
        elif number == 2 and isinstance(content, bytes):
            second = content
    return first, second


def _string(value: int | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else ""


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    position = 0
    while position < len(data):
        key, position = _read_varint(data, position)
        kind = key & 7
        if kind == _VARINT:
            value, position = _read_varint(data, position)
            yield key >> 3, value
            continue
        if kind == _BYTES:
            size, position = _read_varint(data, position)
        elif kind in (_FIXED64, _FIXED32):
            size = 8 if kind == _FIXED64 else 4
        else:
            raise ValueError("wire type")
        if position + size > len(data):
            raise ValueError("truncated")
        yield key >> 3, data[position : position + size]
        position += size


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise ValueError("varint")


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _number(number: int, value: int) -> bytes:
    return _varint(number << 3 | _VARINT) + _varint(value) if value else b""


def _text(number: int, value: str) -> bytes:
    return _block(number, value.encode("utf-8", "replace")) if value else b""


def _block(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | _BYTES) + _varint(len(value)) + value


def _any(kind: str, value: bytes) -> bytes:
    return _text(1, _TYPE_PREFIX + kind) + _block(2, value)
