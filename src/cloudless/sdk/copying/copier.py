"""Copies between this machine and a replica, by the program ``tar`` in the replica.

``Client.copy_from`` and ``copy_to`` make a ``Copier``. All of one copy happens in one
replica, the one that its first program ran in. What a replica sends is unpacked by
``unpacking``; what is sent to it appears there whole, under its name, or not at all.
"""

from __future__ import annotations

import asyncio
import os
import posixpath
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple

from cloudless.aio.supervise import Supervisor
from cloudless.domain.errors import CloudlessError, NotFound, PreconditionFailed
from cloudless.sdk.copying.limits import CAUSE_S, MAX_COMPLAINT_BYTES, MAX_COMPLAINT_LINES, TIDY_S
from cloudless.sdk.copying.packing import Packer
from cloudless.sdk.copying.places import Parts, Source, below, check_destination, renamed, source_of
from cloudless.sdk.copying.tarstream import FILE, FOLDER, LINK, BadArchive, Member, TarStream
from cloudless.sdk.copying.unpacking import LeftOut, Unpacker

if TYPE_CHECKING:
    from cloudless.sdk.exec import ExecProcess
    from cloudless.sdk.inside import Inside

#: Told how many bytes have been copied so far.
OnProgress = Callable[[int], None]
Place = Callable[[Parts], Parts | None]


class CopyFailed(CloudlessError):
    """The program in the replica ended badly; its own words say why."""

    code = "CL-6204"


class NoTar(PreconditionFailed):
    """The replica's image lacks a program that copying needs."""

    code = "CL-6202"


class Copied(NamedTuple):
    """What was copied; links count as files. ``left_out`` is what was not, the first thousand of it."""

    replica: str
    files: int
    size_bytes: int
    left_out: tuple[LeftOut, ...] = ()
    left_out_count: int = 0


class _Way(NamedTuple):
    """One way to ask for a source: the program, and where its members go."""

    argv: tuple[str, ...]
    place: Place
    #: A first member of this name that is a link is not wanted: the next way follows it.
    link: str = ""
    #: Whether the next way is tried when this one gives nothing.
    goes_on: bool = False


class Copier:
    """One copy."""

    def __init__(
        self,
        client: Inside,
        name: str,
        *,
        namespace: str | None,
        replica: str,
        on_progress: OnProgress | None,
    ) -> None:
        self._client = client
        self._name = name
        self._namespace = namespace
        self._replica = replica
        self._shown = ""
        self._on_progress = on_progress or (lambda size_bytes: None)

    # From a replica.

    async def download(self, path: str, local: str, *, max_bytes: int, all_links: bool) -> Copied:
        """Copy ``path`` to ``local``.

        Raises ``NotFound``, ``NoTar``, ``CopyFailed``, ``BadArchive``, ``Exhausted``, ``OSError``.
        """
        source = source_of(path)
        into, name = _local_destination(local, source)
        for way in _ways(source, name):
            async with self._run(way.argv, stdin=False) as (process, complaints):
                stream = TarStream(process.stdout.read)
                try:
                    first = await stream.next()
                    if first is None:
                        why = await self._ended(process, complaints, path)
                        if way.goes_on:
                            continue
                        raise why or CopyFailed(f"{self._shown}: {path} gave no archive")
                    if way.link and first.kind == LINK and _called(first, way.link):
                        continue
                    _check_kind(first, os.path.join(into, name), path)
                    _check_size(first, path)
                    with Unpacker(into, way.place, max_bytes=max_bytes, all_links=all_links) as unpacker:
                        await self._unpack(stream, first, unpacker)
                        why = await self._ended(process, complaints, path)
                        if why is not None:
                            raise why
                except BadArchive as error:
                    raise await self._cause(process, complaints, path) or error from None
                left_out = tuple(unpacker.left_out)
                return Copied(
                    self._shown, unpacker.files, unpacker.size_bytes, left_out, unpacker.left_out_count
                )
        raise NotFound(f"{self._shown}: {path} is a link to nothing")

    async def _unpack(self, stream: TarStream, first: Member, unpacker: Unpacker) -> None:
        member: Member | None = first
        while member is not None:
            await unpacker.make(member, self._counted(stream.data(), unpacker.size_bytes))
            member = await stream.next()
        self._on_progress(unpacker.size_bytes)

    async def _cause(
        self, process: ExecProcess, complaints: asyncio.Task[bytes], path: str
    ) -> CloudlessError | None:
        """Why an archive was cut off, if the program soon says so."""
        try:
            async with asyncio.timeout(CAUSE_S):
                return await self._ended(process, complaints, path)
        except TimeoutError:
            return None

    async def _counted(self, data: AsyncIterator[bytes], before: int) -> AsyncIterator[bytes]:
        async for piece in data:
            yield piece
            before += len(piece)
            self._on_progress(before)

    async def export(self, path: str) -> AsyncGenerator[bytes, None]:
        """The archive that tar makes of ``path``, as it is."""
        source = source_of(path)
        argv = _tar_of(source.parent, "." if source.contents else f"./{source.base}")
        async with self._run(argv, stdin=False) as (process, complaints):
            async for data in process.stdout:
                yield data
            why = await self._ended(process, complaints, path)
            if why is not None:
                raise why

    # To a replica.

    async def upload(self, local: str, path: str) -> Copied:
        """Copy ``local`` to ``path``; raises ``NotFound``, ``NoTar``, ``CopyFailed``, ``OSError``."""
        check_destination(path)
        name, folder = _local_source(local)
        if await self._is_folder(path):
            if not name:
                return await self._send(Packer(local, "."), path, path)
            if folder and await self._is_folder(posixpath.join(path, name)):
                return await self._send(Packer(local, name), path, path)
            return await self._send_whole(local, path, name, path)
        if path.endswith("/") and not folder:
            raise NotFound(
                f"{self._shown}: there is no folder {path}", hint="leave out the slash, or make it"
            )
        parent, name = posixpath.split(path.rstrip("/"))
        return await self._send_whole(local, parent or ("/" if path.startswith("/") else "."), name, path)

    async def restore(self, pieces: AsyncIterator[bytes], path: str) -> None:
        """Unpack an archive in the folder ``path`` of the replica."""
        check_destination(path)
        if not await self._is_folder(path):
            raise NotFound(f"{self._shown}: there is no folder {path}")
        async with self._run(_untar(path)) as (process, complaints):
            sent = 0
            async for piece in pieces:
                await process.stdin.write(piece)
                sent += len(piece)
                self._on_progress(sent)
            await process.stdin.close()
            why = await self._ended(process, complaints, path)
            if why is not None:
                raise why

    async def _send_whole(self, local: str, parent: str, name: str, path: str) -> Copied:
        """Under another name first, so that nobody sees half of it."""
        token = f".cloudless-cp-{secrets.token_hex(6)}"
        aside = posixpath.join(parent, token)
        try:
            try:
                copied = await self._send(Packer(local, f"{token}/{name}", (token,)), parent, path)
            except NotFound:
                if await self._is_folder(parent):
                    raise
                raise NotFound(
                    f"{self._shown}: there is no folder {parent}", hint="make it first: mkdir -p"
                ) from None
            try:
                await self._do(["mv", "-f", posixpath.join(aside, name), _folder(parent)], path)
            except CopyFailed:
                await self._check_there(posixpath.join(parent, name), local)
                raise
        finally:
            await self._tidy(aside)
        return copied

    async def _send(self, packer: Packer, folder: str, path: str) -> Copied:
        async with self._run(_untar(folder)) as (process, complaints):
            sent = 0
            for piece in packer.pieces():
                await process.stdin.write(piece)
                sent += len(piece)
                self._on_progress(min(sent, packer.size_bytes or sent))
            await process.stdin.close()
            why = await self._ended(process, complaints, path)
            if why is not None:
                raise why
        return Copied(
            self._shown, packer.files, packer.size_bytes, tuple(packer.left_out), len(packer.left_out)
        )

    async def _is_folder(self, path: str) -> bool:
        """Whether tar can step into ``path``: asked of tar itself, the one program that must be there."""
        async with self._run(_tar_of(path, "."), stdin=False) as (process, complaints):
            if await TarStream(process.stdout.read).next() is not None:
                return True
            why = await self._ended(process, complaints, path)
            if isinstance(why, NoTar):
                raise why
            return False

    async def _check_there(self, path: str, local: str) -> None:
        """Raise ``CopyFailed`` when what is at ``path`` is of another kind than the local one."""
        source, (_, folder) = source_of(path), _local_source(local)
        async with self._run(_tar_of(source.parent, f"./{source.base}"), stdin=False) as (process, _):
            there = await TarStream(process.stdout.read).next()
        if there is not None and (there.kind == FOLDER) is not folder:
            kinds = ("a file", "a folder") if folder else ("a folder", "a file")
            raise CopyFailed(f"{self._shown}: {path} is {kinds[0]}, and {local} is {kinds[1]}")

    async def _do(self, argv: Sequence[str], path: str) -> None:
        async with self._run(argv, stdin=False) as (process, complaints):
            why = await self._ended(process, complaints, path)
            if why is not None:
                raise why

    async def _tidy(self, aside: str) -> None:
        """Remove what is left; the copy's own outcome is what counts."""
        async with Supervisor("tidy") as tasks:
            await asyncio.wait({tasks.start("rm", self._remove(aside))}, timeout=TIDY_S)

    async def _remove(self, aside: str) -> None:
        try:
            await self._do(["rm", "-rf", aside], aside)
        except CloudlessError:
            return

    # Programs.

    @asynccontextmanager
    async def _run(
        self, argv: Sequence[str], *, stdin: bool = True
    ) -> AsyncIterator[tuple[ExecProcess, asyncio.Task[bytes]]]:
        """A program in the replica, and the task that collects its complaints."""
        process = self._client.open_exec(
            self._name, list(argv), namespace=self._namespace, replica=self._replica, stdin=stdin
        )
        async with process, Supervisor("copy") as tasks:
            if process.started is not None:
                self._replica = process.started.replica_id
                self._shown = process.replica
            yield process, tasks.start("complaints", process.stderr.collect(MAX_COMPLAINT_BYTES))

    async def _ended(
        self, process: ExecProcess, complaints: asyncio.Task[bytes], path: str
    ) -> CloudlessError | None:
        """None when the program ended well, else what to say about it."""
        end = await process.wait()
        if end.exit_code == 0:
            return None
        if end.reason == "CannotExecute":
            return NoTar(
                f"cannot copy: {end.message}",
                hint="copying needs the programs tar, mv and rm in the image",
            )
        said = (await complaints).decode("utf-8", "replace").strip()
        lines = [line for line in said.splitlines() if "error exit delayed" not in line]
        text = "; ".join(lines[:MAX_COMPLAINT_LINES]) or end.message or f"exit code {end.exit_code}"
        if "o such file or directory" in text:
            return NotFound(f"{self._shown}: {path} does not exist ({text})")
        return CopyFailed(f"{self._shown}: {text}")


def _tar_of(folder: str, member: str, *options: str) -> tuple[str, ...]:
    return ("tar", "-c", *options, "-f", "-", "-C", _folder(folder), member)


def _untar(folder: str) -> tuple[str, ...]:
    """Keeps modes, leaves everything to whom the program runs as."""
    return ("tar", "-x", "-o", "-p", "-f", "-", "-C", _folder(folder))


def _folder(path: str) -> str:
    """A folder's path that no program takes for an option, and that is no file by mistake.

    >>> _folder("-x"), _folder("/"), _folder("/data/")
    ('./-x/', '/', '/data/')
    """
    plain = path if path.startswith("/") else f"./{path}"
    return plain.rstrip("/") + "/"


def _ways(source: Source, name: str) -> list[_Way]:
    """How to ask for a source, one after the other: as it is, then what a link leads to."""
    as_folder = _Way(_tar_of(posixpath.join(source.parent, source.base), "."), below(name))
    if source.contents or source.folder:
        return [as_folder]
    member, place = f"./{source.base}", renamed(source.base, name)
    return [
        _Way(_tar_of(source.parent, member), place, link=source.base),
        as_folder._replace(goes_on=True),
        _Way(_tar_of(source.parent, member, "-h"), place),
    ]


def _check_kind(first: Member, local: str, path: str) -> None:
    """Refuse a folder where a file is, before everything in it is refused one by one."""
    if first.kind == FOLDER and os.path.exists(local) and not os.path.isdir(local):
        raise CopyFailed(f"{path} is a folder, but {local} here is none")


def _check_size(first: Member, path: str) -> None:
    """Refuse a file whose size the kernel does not say: tar believes that it is empty."""
    if first.kind == FILE and not first.size_bytes and posixpath.normpath(path).startswith("/proc/"):
        raise CopyFailed(
            f"{path} cannot be copied: what is in /proc has no size",
            hint=f"cloudless exec NAME -- cat {path}",
        )


def _called(member: Member, name: str) -> bool:
    return member.name.removeprefix("./") == name


def _local_source(local: str) -> tuple[str, bool]:
    """The name of a local file or folder, empty for what is in a folder, and whether it is one.

    Raises ``NotFound``.
    """
    if not os.path.exists(local):
        raise NotFound(f"{local} does not exist here")
    if os.path.basename(local) == ".":
        return "", True
    trimmed = local.rstrip("/")
    named = trimmed if os.path.basename(trimmed) not in ("", "..") else os.path.realpath(local)
    return os.path.basename(named), os.path.isdir(local)


def _local_destination(local: str, source: Source) -> tuple[str, str]:
    """The folder to unpack in, and the name that the source gets there; empty: its members as they are.

    Raises ``NotFound`` when the folder does not exist.
    """
    if os.path.isdir(local):
        return local, source.base
    parent, name = os.path.split(local.rstrip("/"))
    if local.endswith("/") and not (source.contents or source.folder):
        raise NotFound(f"there is no folder {local} here", hint="make it, or leave out the slash")
    if not os.path.isdir(parent or "."):
        raise NotFound(f"there is no folder {parent} here", hint="make it first")
    if os.path.islink(local):
        parent, name = os.path.split(os.path.realpath(local))
    return parent or ".", name
