"""Local files as a tar archive, in pieces as they are sent.

``copier`` uses it for what goes into a replica. Modes and times are kept, links inside a
folder stay links, and everything belongs to nobody in particular: whoever unpacks it owns
it. What is neither file, folder nor link is left out, and said to be.
"""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Iterator

from cloudless.sdk.copying.limits import PIECE_BYTES
from cloudless.sdk.copying.unpacking import LeftOut

BLOCK = 512
#: An archive without members; also what every archive ends with.
END = bytes(2 * BLOCK)
_LAST_RECORD = 20 * BLOCK


class Packer:
    """The archive of ``source`` under the name ``name``; "." leaves out the folder's own name.

    A source that is a link is followed. ``parents`` are folders that come before it.
    """

    def __init__(self, source: str, name: str, parents: tuple[str, ...] = ()) -> None:
        self._source = os.path.realpath(source)
        self._name = name
        self._parents = parents
        self.files = 0
        self.size_bytes = 0
        self.left_out: list[LeftOut] = []

    def pieces(self) -> Iterator[bytes]:
        """The archive; raises ``OSError`` for what cannot be read."""
        sent, waiting = 0, bytearray()
        for piece in self._members():
            waiting += piece
            if len(waiting) >= PIECE_BYTES:
                sent += len(waiting)
                yield bytes(waiting)
                waiting.clear()
        sent += len(waiting)
        yield bytes(waiting) + END + bytes(-(sent + len(END)) % _LAST_RECORD)

    def _members(self) -> Iterator[bytes]:
        for parent in self._parents:
            info = tarfile.TarInfo(parent)
            info.type, info.mode = tarfile.DIRTYPE, 0o700
            yield _header(info)
        yield from self._member(self._source, self._name)

    def _member(self, path: str, name: str) -> Iterator[bytes]:
        found = os.lstat(path)
        info = tarfile.TarInfo(name)
        info.mode = stat.S_IMODE(found.st_mode)
        info.mtime = int(found.st_mtime)
        if stat.S_ISREG(found.st_mode):
            yield from self._file(path, info)
        elif stat.S_ISLNK(found.st_mode):
            info.type, info.linkname = tarfile.SYMTYPE, os.readlink(path)
            self.files += 1
            yield _header(info)
        elif stat.S_ISDIR(found.st_mode):
            info.type = tarfile.DIRTYPE
            yield _header(info)
            for entry in sorted(os.listdir(path)):
                yield from self._member(os.path.join(path, entry), f"{name}/{entry}")
        else:
            self.left_out.append(LeftOut(path, "is neither file, folder nor link"))

    def _file(self, path: str, info: tarfile.TarInfo) -> Iterator[bytes]:
        # Not held up by a pipe that has taken the file's place meanwhile.
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            info.size = os.fstat(handle).st_size
            yield _header(info)
            left = info.size
            while left and (piece := os.read(handle, min(left, PIECE_BYTES))):
                left -= len(piece)
                yield piece
            if left:
                self.left_out.append(LeftOut(path, "became shorter while it was read: zeros follow"))
            while left:
                piece = bytes(min(left, PIECE_BYTES))
                left -= len(piece)
                yield piece
            yield bytes(-info.size % BLOCK)
        finally:
            os.close(handle)
        self.files += 1
        self.size_bytes += info.size


def _header(info: tarfile.TarInfo) -> bytes:
    # GNU's form of long names is understood by every tar program, busybox's too.
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")
