"""A tar archive read as it comes, by a reader that believes nothing.

``unpacking`` uses it. Understood are ustar, GNU and pax archives, which is what tar
programs write; sizes of headers are bounded before they are read, and nothing is ever
sought. What the members mean for a disk is not decided here.
"""

from __future__ import annotations

import tarfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import NamedTuple

from cloudless.domain.errors import CloudlessError
from cloudless.sdk.copying.limits import MAX_EXTENSION_BYTES, MAX_PADDING_BYTES, PIECE_BYTES

BLOCK = 512
FILE, FOLDER, LINK, OTHER = "file", "folder", "link", "other"
_NAMES = {
    tarfile.LNKTYPE: "hard link",
    tarfile.CHRTYPE: "device",
    tarfile.BLKTYPE: "device",
    tarfile.FIFOTYPE: "named pipe",
    tarfile.GNUTYPE_SPARSE: "sparse file",
}
_REGULAR = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
#: Types without data, whatever size their header names.
_EMPTY = (*_NAMES, tarfile.DIRTYPE, tarfile.SYMTYPE)


class BadArchive(CloudlessError):
    """What came is no tar archive, or a broken one."""

    code = "CL-6203"


class Member(NamedTuple):
    """One member. ``kind`` is FILE, FOLDER, LINK or OTHER; ``what`` says in a word which other.

    ``name`` and ``target`` are as the archive has them, nothing of them is checked.
    """

    name: str
    kind: str
    mode: int
    mtime_ns: int
    size_bytes: int
    target: str = ""
    what: str = ""


class TarStream:
    """Reads pieces from ``read``, which gives empty bytes at the end."""

    def __init__(self, read: Callable[[], Awaitable[bytes]]) -> None:
        self._read = read
        self._waiting = bytearray()
        self._left = 0  # of the present member's data, padding not counted
        self._padding = 0
        self._ended = False

    async def next(self) -> Member | None:
        """The next member, or None at the end of the archive; what was not read is skipped."""
        await self._skip()
        extension: dict[str, str] = {}
        while True:
            header = await self._header()
            if header is None:
                return None
            if header.type in (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK):
                text = _text((await self._extension(header.size)).partition(b"\0")[0])
                extension["path" if header.type == tarfile.GNUTYPE_LONGNAME else "linkpath"] = text
            elif header.type in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE):
                extension |= _pax(await self._extension(header.size))
            elif header.type == tarfile.XGLTYPE:
                await self._extension(header.size)
            else:
                return self._member(header, extension)

    async def data(self) -> AsyncIterator[bytes]:
        """The present member's data, in pieces."""
        while self._left:
            piece = await self._take(min(self._left, PIECE_BYTES))
            self._left -= len(piece)
            yield piece

    def _member(self, header: tarfile.TarInfo, extension: Mapping[str, str]) -> Member:
        size = _number(extension.get("size"), header.size)
        mtime_ns = _nanoseconds(extension.get("mtime"), header.mtime)
        name = extension.get("path", header.name)
        sparse = any(key.startswith("GNU.sparse") for key in extension)
        kind, what = OTHER, _NAMES.get(header.type, "member of an unknown type")
        if header.type in _REGULAR and not sparse:
            kind, what = FILE, ""
        elif header.type == tarfile.DIRTYPE:
            kind, what = FOLDER, ""
        elif header.type == tarfile.SYMTYPE:
            kind, what = LINK, ""
        elif sparse or header.type == tarfile.GNUTYPE_SPARSE:
            what = "sparse file"
        if header.type in _EMPTY and header.type != tarfile.GNUTYPE_SPARSE:
            size = 0
        if size < 0:
            raise BadArchive("the archive is broken: a member has a negative size")
        self._left, self._padding = size, -size % BLOCK
        target = extension.get("linkpath", header.linkname)
        return Member(name, kind, header.mode & 0o7777, mtime_ns, size, target, what)

    async def _header(self) -> tarfile.TarInfo | None:
        block = await self._take(BLOCK, may_end=True)
        if not block or not block.strip(b"\0"):
            await self._finish()
            return None
        try:
            return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except (tarfile.TarError, ValueError) as error:
            raise BadArchive(f"the archive is broken: {error}") from None

    async def _extension(self, size: int) -> bytes:
        if not 0 <= size <= MAX_EXTENSION_BYTES:
            raise BadArchive(
                f"the archive has a header of {size} bytes, at most {MAX_EXTENSION_BYTES} may be"
            )
        data = await self._take(size + -size % BLOCK)
        return data[:size]

    async def _skip(self) -> None:
        async for _ in self.data():
            continue
        if self._padding:
            await self._take(self._padding)
            self._padding = 0

    async def _finish(self) -> None:
        """Read what fills the last record, so that whoever writes it can end well."""
        size = len(self._waiting)
        while piece := await self._read():
            size += len(piece)
            if size > MAX_PADDING_BYTES:
                raise BadArchive("the archive goes on after its end")

    async def _take(self, size: int, *, may_end: bool = False) -> bytes:
        waiting = self._waiting
        while len(waiting) < size:
            piece = await self._read()
            if not piece:
                if may_end and not waiting:
                    return b""
                raise BadArchive("the archive is cut off")
            waiting += piece
        taken = bytes(waiting[:size])
        del waiting[:size]
        return taken


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _pax(data: bytes) -> dict[str, str]:
    """Records of a pax header: ``LENGTH KEY=VALUE\\n``, the length counting all of it.

    >>> _pax(b"12 path=a/b\\n")
    {'path': 'a/b'}
    """
    found: dict[str, str] = {}
    position = 0
    while position < len(data) and data[position] != 0:
        digits, blank, _ = data[position : position + 20].partition(b" ")
        length = int(digits) if digits.isdigit() else 0
        record = data[position : position + length]
        key, equals, value = record[len(digits) + 1 : -1].partition(b"=")
        if not blank or not equals or len(record) != length or not record.endswith(b"\n"):
            raise BadArchive("the archive has a broken pax header")
        found[_text(key)] = _text(value)
        position += length
    return found


def _number(text: str | None, usual: int) -> int:
    if text is None:
        return usual
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise BadArchive("the archive has a broken pax header")
    return int(text)


def _nanoseconds(text: str | None, usual_s: float) -> int:
    """A time; one that cannot be is that of the header.

    >>> _nanoseconds("1.5", 0), _nanoseconds("nonsense", 2)
    (1500000000, 2000000000)
    """
    whole, _, part = (text or "").partition(".")
    if whole.isascii() and whole.isdigit() and len(whole) < 12:
        digits = part[:9].ljust(9, "0")
        return int(whole) * 10**9 + (int(digits) if digits.isascii() and digits.isdigit() else 0)
    return int(usual_s) * 10**9 if 0 <= usual_s < 10**11 else 0
