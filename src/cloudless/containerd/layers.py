"""Looks through a layer before it is unpacked: what it really is, and whether it is bearable.

containerd unpacks whatever it is given. So the size, the ratio to the packed size, and
the number of entries are counted here first, together with both digests.
"""

from __future__ import annotations

import hashlib
import os
import threading
import zlib
from dataclasses import dataclass

from cloudless.containerd import limits
from cloudless.containerd.errors import InvalidImage
from cloudless.containerd.tarwalk import walk

GZIP_MAGIC = b"\x1f\x8b"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_GZIP_WINDOW = 31  # zlib's word for "with a gzip header"


class Cancelled(Exception):
    """The work was given up from outside; only its own thread ever sees this."""


@dataclass(frozen=True)
class LayerFacts:
    """``digest`` of the blob as it is, ``diff_id`` of the tar inside."""

    digest: str
    diff_id: str
    size_bytes: int
    unpacked_bytes: int
    compressed: bool


def inspect_layer(
    handle: int, offset: int, size_bytes: int, cancelled: threading.Event, *, unpacked_before: int = 0
) -> LayerFacts:
    """Read the blob at this place of an open file. Raises ``InvalidImage``.

    ``unpacked_before`` is what the image's lower layers take: the limit is for all.
    """
    magic = os.pread(handle, 4, offset)
    if magic == ZSTD_MAGIC:
        raise InvalidImage("a layer is compressed by zstd, which import does not support")
    compressed = magic.startswith(GZIP_MAGIC)
    reader = LayerReader(handle, offset, size_bytes, cancelled, compressed=compressed, before=unpacked_before)
    for _ in walk(reader, max_entries=limits.MAX_LAYER_ENTRIES):
        pass
    reader.finish()
    return LayerFacts(
        digest=f"sha256:{reader.packed_hash.hexdigest()}",
        diff_id=f"sha256:{reader.unpacked_hash.hexdigest()}",
        size_bytes=size_bytes,
        unpacked_bytes=reader.unpacked_bytes,
        compressed=compressed,
    )


class LayerReader:
    """The tar inside a blob, hashed and counted while it is read."""

    def __init__(
        self,
        handle: int,
        offset: int,
        size_bytes: int,
        cancelled: threading.Event,
        *,
        compressed: bool,
        before: int,
    ) -> None:
        self._handle = handle
        self._position = offset
        self._end = offset + size_bytes
        self._cancelled = cancelled
        self._inflate = zlib.decompressobj(_GZIP_WINDOW) if compressed else None
        self._pending = b""  # packed bytes that the decompressor has not taken yet
        self._buffer = b""
        self._limit_bytes = limits.MAX_UNPACKED_BYTES - before
        self._ratio_bytes = max(size_bytes * limits.MAX_UNPACK_RATIO, limits.RATIO_FLOOR_BYTES)
        self.unpacked_bytes = 0
        self.packed_hash = hashlib.sha256()
        self.unpacked_hash = hashlib.sha256()

    def read(self, count: int) -> bytes:
        """See ``tarwalk.Source``."""
        parts = []
        missing = count
        while missing and (data := self._take(missing)):
            parts.append(data)
            missing -= len(data)
        if missing and missing != count:
            raise InvalidImage("a layer ends in the middle of an entry")
        return b"".join(parts)

    def skip(self, count: int) -> None:
        """See ``tarwalk.Source``."""
        while count:
            data = self._take(count)
            if not data:
                raise InvalidImage("a layer ends in the middle of an entry")
            count -= len(data)

    def finish(self) -> None:
        """Read what follows the archive's end, so that the digests are complete."""
        while self._take(limits.CONTENT_CHUNK_BYTES):
            pass
        if self._inflate is not None and not self._inflate.eof:
            raise InvalidImage("a layer's compressed data is cut off")

    def _take(self, count: int) -> bytes:
        if not self._buffer:
            self._buffer = self._next_chunk()
        data, self._buffer = self._buffer[:count], self._buffer[count:]
        return data

    def _next_chunk(self) -> bytes:
        data = self._next_packed() if self._inflate is None else self._next_inflated()
        self.unpacked_bytes += len(data)
        self.unpacked_hash.update(data)
        if self.unpacked_bytes > self._limit_bytes:
            raise InvalidImage(f"the image unpacks to more than {limits.MAX_UNPACKED_BYTES} bytes")
        if self._inflate is not None and self.unpacked_bytes > self._ratio_bytes:
            raise InvalidImage(f"a layer unpacks to more than {limits.MAX_UNPACK_RATIO} times its size")
        return data

    def _next_packed(self) -> bytes:
        if self._cancelled.is_set():
            raise Cancelled
        data = os.pread(
            self._handle, min(limits.CONTENT_CHUNK_BYTES, self._end - self._position), self._position
        )
        if not data and self._position < self._end:
            raise InvalidImage("the archive is shorter than it says")
        self._position += len(data)
        self.packed_hash.update(data)
        return data

    def _next_inflated(self) -> bytes:
        assert self._inflate is not None
        while True:
            if self._inflate.eof:
                # gzip files may be strung together; anything else after the end is ignored.
                rest = self._inflate.unused_data or self._next_packed()
                if not rest:
                    return b""
                self._inflate = zlib.decompressobj(_GZIP_WINDOW)
                self._pending = rest
            packed = self._pending or self._next_packed()
            if not packed:
                return b""
            try:
                data = self._inflate.decompress(packed, limits.CONTENT_CHUNK_BYTES)
            except zlib.error as error:
                raise InvalidImage(f"a layer's compressed data is damaged: {error}") from error
            self._pending = self._inflate.unconsumed_tail
            if data:
                return data
