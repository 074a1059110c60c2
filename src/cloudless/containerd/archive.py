"""Reads image archives: OCI layouts and what ``docker save`` writes, plain or gzipped.

An archive is opened and indexed once; nothing of it is extracted. ``read_images`` says
which images are in it, in the form of the OCI image spec whichever form the archive
has; the blobs stay in the file, known by their places.
"""

from __future__ import annotations

import hashlib
import os
import pathlib
import posixpath
import tempfile
import threading
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from cloudless.containerd import limits
from cloudless.containerd.errors import InvalidImage
from cloudless.containerd.layers import GZIP_MAGIC, Cancelled
from cloudless.containerd.tarwalk import HARD_LINK, REGULAR, SYMBOLIC_LINK, walk
from cloudless.containerd.untrusted import read_json

_GZIP_WINDOW = 31


@dataclass(frozen=True)
class Place:
    """Where a blob lies in the file."""

    offset: int
    size_bytes: int


class Archive:
    """An open archive: names and places. Use as a context manager, in a thread."""

    def __init__(self, path: pathlib.Path, spool_dir: pathlib.Path, cancelled: threading.Event) -> None:
        self._cancelled = cancelled
        self.handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if os.pread(self.handle, 2, 0) == GZIP_MAGIC:
                self._unpack(spool_dir)
            self.size_bytes = os.fstat(self.handle).st_size
            if self.size_bytes > limits.MAX_ARCHIVE_BYTES:
                raise InvalidImage(f"the archive is larger than {limits.MAX_ARCHIVE_BYTES} bytes")
            self._files, self._links = self._index()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; a spooled copy is gone with it."""
        if self.handle >= 0:
            os.close(self.handle)
            self.handle = -1

    def __contains__(self, name: str) -> bool:
        return _clean(name) in self._files

    def place(self, name: str) -> Place:
        """Where a file's data is; links inside the archive are followed. Raises ``InvalidImage``."""
        clean = _clean(name)
        for _ in range(limits.MAX_SYMLINKS):
            if clean in self._files:
                return self._files[clean]
            if clean not in self._links:
                break
            clean = self._links[clean]
        raise InvalidImage(f"the archive lacks {name}")

    def read(self, name: str) -> bytes:
        """A small file. Raises ``InvalidImage``."""
        place = self.place(name)
        if place.size_bytes > limits.MAX_MANIFEST_BYTES:
            raise InvalidImage(f"{name} is larger than {limits.MAX_MANIFEST_BYTES} bytes")
        data = os.pread(self.handle, place.size_bytes, place.offset)
        if len(data) != place.size_bytes:
            raise InvalidImage("the archive is shorter than it says")
        return data

    def read_json(self, name: str) -> Any:
        """A small JSON file. Raises ``InvalidImage``."""
        return read_json(self.read(name), name)

    def read_blob(self, digest: str) -> bytes:
        """A small blob of an OCI layout, checked against its digest. Raises ``InvalidImage``."""
        data = self.read(blob_name(digest))
        if f"sha256:{hashlib.sha256(data).hexdigest()}" != digest:
            raise InvalidImage(f"blob {digest} is damaged")
        return data

    def _index(self) -> tuple[dict[str, Place], dict[str, str]]:
        files: dict[str, Place] = {}
        links: dict[str, str] = {}
        source = _FileSource(self.handle, self.size_bytes)
        for entry in walk(source, max_entries=limits.MAX_ARCHIVE_ENTRIES):
            if self._cancelled.is_set():
                raise Cancelled
            name = _clean(entry.name)
            if entry.kind == REGULAR:
                files[name] = Place(entry.offset, entry.size_bytes)
            elif entry.kind == HARD_LINK:
                links[name] = _clean(entry.link)
            elif entry.kind == SYMBOLIC_LINK:
                links[name] = _clean(posixpath.join(posixpath.dirname(name), entry.link))
        return files, links

    def _unpack(self, spool_dir: pathlib.Path) -> None:
        """Replace the open file by an unpacked copy that has no name."""
        packed_size = os.fstat(self.handle).st_size
        limit = min(
            limits.MAX_ARCHIVE_BYTES, max(packed_size * limits.MAX_UNPACK_RATIO, limits.RATIO_FLOOR_BYTES)
        )
        inflate = zlib.decompressobj(_GZIP_WINDOW)
        written = 0
        with tempfile.TemporaryFile(dir=spool_dir) as spool, os.fdopen(self.handle, "rb") as packed:
            self.handle = -1  # closed by the block from here on
            try:
                while not inflate.eof and (data := packed.read(limits.CONTENT_CHUNK_BYTES)):
                    while data and not inflate.eof:
                        if self._cancelled.is_set():
                            raise Cancelled
                        written += spool.write(inflate.decompress(data, limits.CONTENT_CHUNK_BYTES))
                        data = inflate.unconsumed_tail
                        if written > limit:
                            raise InvalidImage(f"the archive unpacks to more than {limit} bytes")
            except zlib.error as error:
                raise InvalidImage(f"the archive's compressed data is damaged: {error}") from error
            spool.flush()
            self.handle = os.dup(spool.fileno())


class _FileSource:
    """See ``tarwalk.Source``."""

    def __init__(self, handle: int, size_bytes: int) -> None:
        self._handle = handle
        self._size = size_bytes
        self._position = 0

    def read(self, count: int) -> bytes:
        data = os.pread(self._handle, count, self._position)
        self._position += len(data)
        if data and len(data) < count:
            raise InvalidImage("the archive is cut off")
        return data

    def skip(self, count: int) -> None:
        self._position += count
        if self._position > self._size:
            raise InvalidImage("the archive is cut off")


def blob_name(digest: str) -> str:
    """Where an OCI layout keeps a blob. Raises ``InvalidImage`` for what is no digest."""
    algorithm, _, value = digest.partition(":")
    if algorithm != "sha256" or len(value) != 64 or not set(value) <= set("0123456789abcdef"):
        raise InvalidImage(f"{digest!r} is not a sha256 digest")
    return f"blobs/sha256/{value}"


def checked_object(value: Any, what: str) -> Mapping[str, Any]:
    """``value``, if it is a JSON object. Raises ``InvalidImage``."""
    if not isinstance(value, dict):
        raise InvalidImage(f"{what} is not an object")
    return value


def checked_list(value: Any, what: str, limit: int) -> list[Any]:
    """``value``, if it is a JSON list of at most ``limit``. Raises ``InvalidImage``."""
    if not isinstance(value, list):
        raise InvalidImage(f"{what} is not a list")
    if len(value) > limit:
        raise InvalidImage(f"{what} has more than {limit} entries")
    return value


def _clean(name: str) -> str:
    """A name inside the archive: never absolute, never above its top.

    >>> _clean("./a/../../etc/passwd")
    'etc/passwd'
    """
    return posixpath.normpath("/" + name).lstrip("/")
