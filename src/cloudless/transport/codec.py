"""Placeholder codec until the compiled one lands in this file."""

from __future__ import annotations

from typing import Any

from grpclib.encoding.base import CodecBase


class DecodeError(ValueError):
    """Bytes are no message of this type; the text names the field path."""


class CompiledCodec(CodecBase):
    """Encodes and decodes messages."""

    __content_subtype__ = "proto"

    def encode(self, message: Any, message_type: Any) -> bytes:
        """Bytes of a message."""
        return message.SerializeToString()

    def decode(self, data: bytes, message_type: Any) -> Any:
        """Message of bytes."""
        return message_type.FromString(data)
