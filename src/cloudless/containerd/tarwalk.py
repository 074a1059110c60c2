"""Walks the entries of a tar, as a stream and with limits; it writes nothing anywhere.

Archives come from strangers: headers are checked, long names and pax records are
bounded, and who calls says how many entries it bears. The data of entries is skipped
by the source, which may seek (a file) or read on (a compressed layer).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from cloudless.containerd import limits
from cloudless.containerd.errors import InvalidImage

BLOCK = 512

REGULAR, HARD_LINK, SYMBOLIC_LINK = b"0", b"1", b"2"
_OLD_REGULAR = b"\0"
_PAX, _PAX_GLOBAL, _GNU_NAME, _GNU_LINK = b"x", b"g", b"L", b"K"
_GNU_SPARSE = b"S"


class Source(Protocol):
    """Bytes in order; both answer ``InvalidImage`` when they end too early."""

    def read(self, count: int) -> bytes:
        """Exactly ``count`` bytes; empty only at the very end."""
        ...

    def skip(self, count: int) -> None:
        """Pass over ``count`` bytes."""
        ...


@dataclass(frozen=True)
class Entry:
    """One entry; ``offset`` of its data counts from where the walk began."""

    name: str
    kind: bytes
    size_bytes: int
    offset: int
    link: str


def walk(source: Source, *, max_entries: int) -> Iterator[Entry]:
    """The entries in order. Raises ``InvalidImage``."""
    offset = count = 0
    extra: dict[str, str] = {}
    while True:
        header = source.read(BLOCK)
        offset += BLOCK
        if len(header) < BLOCK or not header.strip(b"\0"):
            return  # blocks of zeros end an archive
        _check(header)
        kind = header[156:157]
        size = _number(header[124:136])
        if kind in (_PAX, _PAX_GLOBAL, _GNU_NAME, _GNU_LINK):
            data = _extension(source, size)
            offset += _padded(size)
            if kind == _PAX:
                extra |= _pax_records(data)
            elif kind == _GNU_NAME:
                extra["path"] = _text(data)
            elif kind == _GNU_LINK:
                extra["linkpath"] = _text(data)
            continue
        if "size" in extra:
            size = _decimal(extra["size"])
        if kind == _GNU_SPARSE or "GNU.sparse.major" in extra:
            raise InvalidImage("the archive holds sparse files, which are not supported")
        count += 1
        if count > max_entries:
            raise InvalidImage(f"the archive has more than {max_entries} entries")
        name = extra.get("path") or _name(header)
        link = extra.get("linkpath") or _text(header[157:257])
        regular = kind in (REGULAR, _OLD_REGULAR)
        yield Entry(name, REGULAR if regular else kind, size, offset, link)
        extra = {}
        if kind not in (HARD_LINK, SYMBOLIC_LINK):
            source.skip(_padded(size))
            offset += _padded(size)


def _check(header: bytes) -> None:
    wanted = _number(header[148:156])
    if sum(header) - sum(header[148:156]) + 8 * 0x20 != wanted:
        raise InvalidImage("the archive is damaged: a header's checksum is wrong")


def _extension(source: Source, size: int) -> bytes:
    if size > limits.MAX_TAR_HEADER_BYTES:
        raise InvalidImage(f"the archive has a header larger than {limits.MAX_TAR_HEADER_BYTES} bytes")
    return source.read(_padded(size))[:size]


def _number(field: bytes) -> int:
    """Octal digits, or GNU's binary form for what they cannot hold.

    >>> _number(b"0000644\\0")
    420
    """
    if field[0] & 0x80:
        value = int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
    else:
        digits = field.strip(b"\0 ")
        try:
            value = int(digits, 8) if digits else 0
        except ValueError:
            raise InvalidImage("the archive is damaged: a header holds no number") from None
    if not 0 <= value <= limits.MAX_ARCHIVE_BYTES:
        raise InvalidImage("the archive claims an impossible size")
    return value


def _decimal(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > 20 or int(text) > limits.MAX_ARCHIVE_BYTES:
        raise InvalidImage("the archive claims an impossible size")
    return int(text)


def _pax_records(data: bytes) -> dict[str, str]:
    """Records "length key=value\\n" (POSIX pax)."""
    records: dict[str, str] = {}
    position = 0
    while position < len(data):
        blank = data.find(b" ", position, position + 8)
        digits = data[position:blank]
        if blank < 0 or not digits.isdigit() or int(digits) <= blank - position:
            raise InvalidImage("the archive is damaged: a pax header is malformed")
        record = data[blank + 1 : position + int(digits)]
        key, _, value = record.rstrip(b"\n").partition(b"=")
        records[_text(key)] = _text(value)
        position += int(digits)
    return records


def _name(header: bytes) -> str:
    name = _text(header[0:100])
    prefix = _text(header[345:500]) if header[257:263] == b"ustar\0" else ""
    return f"{prefix}/{name}" if prefix else name


def _text(data: bytes) -> str:
    return data.split(b"\0", 1)[0].decode(errors="surrogateescape")


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK
