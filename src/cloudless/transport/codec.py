"""``CompiledCodec``: the wire codec of every server, channel and link of this project.

It encodes and decodes betterproto2's generated messages by tables compiled per class
(``encode``, ``decode``), byte for byte what protobuf writes, and strict in what it reads.
Services may answer with ``Encoded`` bytes that they kept. Messages of protobuf's own
classes (health, reflection) go through protobuf.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from grpclib.encoding.base import CodecBase

from cloudless.transport.decode import ANSWER_BYTES_PER_TICK, BYTES_PER_TICK, read_message
from cloudless.transport.encode import Encoded, EncodeError, varint, write_message
from cloudless.transport.fieldplan import LENGTH, is_message_class
from cloudless.transport.readers import DecodeError

__all__ = ["CompiledCodec", "DecodeError", "EncodeError", "Encoded", "concat_repeated", "decode", "encode"]


def encode(message: Any) -> bytes:
    """The bytes of a generated message; raises ``EncodeError`` naming the field."""
    return write_message(message)


def decode(data: bytes, message_type: type[Any], *, trusted: bool = False) -> Any:
    """A generated message from bytes; raises ``DecodeError`` naming the field.

    ``trusted`` data is from a server of one's choice: very many small fields are let through.
    """
    return read_message(data, message_type, ANSWER_BYTES_PER_TICK if trusted else BYTES_PER_TICK)


def concat_repeated(
    field_number: int, items: Iterable[bytes], message_type: type[Any], *, tail: bytes = b""
) -> Encoded:
    """A message whose repeated field holds ``items``, encoded already, then ``tail``.

    ``tail`` is the encoding of the message's other fields. For answering a list from
    kept bytes, without decoding any of them.

    >>> concat_repeated(1, [b"ab", b""], dict, tail=b"!").data
    b'\\n\\x02ab\\n\\x00!'
    """
    key = varint(field_number << 3 | LENGTH)
    pieces: list[bytes] = []
    for item in items:
        pieces += (key, varint(len(item)), item)
    pieces.append(tail)
    return Encoded(b"".join(pieces), message_type)


class CompiledCodec(CodecBase):
    """grpclib's codec interface over ``encode`` and ``decode``.

    ``answers`` is for the calling side: what it reads comes from a server of its choice,
    so lists of very many small fields are let through.
    """

    __content_subtype__ = "proto"

    def __init__(self, *, answers: bool = False) -> None:
        self._bytes_per_tick = ANSWER_BYTES_PER_TICK if answers else BYTES_PER_TICK

    def encode(self, message: Any, message_type: Any) -> bytes:
        """Bytes of a message or of an ``Encoded`` one; raises ``EncodeError``."""
        if type(message) is Encoded:
            if message.message_type is not message_type:
                raise EncodeError(f"expected {message_type.__name__}, got {message!r}")
            return message.data
        if not isinstance(message, message_type):
            raise EncodeError(f"expected {message_type.__name__}, got {type(message).__name__}")
        if is_message_class(message_type):
            return write_message(message)
        data: bytes = message.SerializeToString()
        return data

    def decode(self, data: bytes, message_type: Any) -> Any:
        """A message of ``message_type``; raises ``DecodeError``."""
        if is_message_class(message_type):
            return read_message(data, message_type, self._bytes_per_tick)
        try:
            return message_type.FromString(data)
        except Exception as error:
            # protobuf's own DecodeError; importing it here would load protobuf on clients.
            if type(error).__name__ != "DecodeError":
                raise
            raise DecodeError(str(error)) from None
