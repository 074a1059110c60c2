"""Archives for tests, good and bad, and a reader of them in pieces of any size."""

from __future__ import annotations

import io
import random
import tarfile

from cloudless.sdk.copying.tarstream import Member, TarStream
from cloudless.sdk.copying.unpacking import Unpacker

MTIME = 1_700_000_000


def entry(name: str, data: bytes | None = b"", **fields: object) -> tuple[tarfile.TarInfo, bytes | None]:
    """A file, or what ``type`` says."""
    info = tarfile.TarInfo(name)
    info.mtime = MTIME
    info.size = len(data or b"")
    for key, value in fields.items():
        setattr(info, key, value)
    return info, data


def folder(name: str, **fields: object) -> tuple[tarfile.TarInfo, bytes | None]:
    return entry(name, None, **{"type": tarfile.DIRTYPE, "mode": 0o755, **fields})


def link(name: str, target: str, **fields: object) -> tuple[tarfile.TarInfo, bytes | None]:
    return entry(name, None, **{"type": tarfile.SYMTYPE, "linkname": target, **fields})


def archive(*entries: tuple[tarfile.TarInfo, bytes | None], format: int = tarfile.GNU_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as made:
        for info, data in entries:
            made.addfile(info, io.BytesIO(data) if data else None)
    return buffer.getvalue()


def stream(data: bytes, seed: int = 0, largest: int = 100_000) -> TarStream:
    """The archive as it comes over a network."""
    chance, place = random.Random(seed), 0

    async def read() -> bytes:
        nonlocal place
        piece = data[place : place + chance.randint(1, largest)]
        place += len(piece)
        return piece

    return TarStream(read)


async def members(data: bytes, **options: int) -> list[tuple[Member, bytes]]:
    found, source = [], stream(data, **options)
    while (member := await source.next()) is not None:
        found.append((member, b"".join([piece async for piece in source.data()])))
    return found


async def unpack(data: bytes, unpacker: Unpacker) -> None:
    source = stream(data)
    while (member := await source.next()) is not None:
        await unpacker.make(member, source.data())
