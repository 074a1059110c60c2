"""Members of an archive made below one folder, and never anywhere else.

``copier`` uses it for what comes out of a replica, which may be hostile. A path is walked
folder by folder with handles that refuse links, so no link, whoever made it, leads a write
away. Files appear whole or not at all: each is written under another name first. What is
not made is remembered in ``left_out``, with the reason.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import NamedTuple, Self

from cloudless.domain.errors import Exhausted
from cloudless.sdk.copying.limits import MAX_DEPTH, MAX_MEMBERS, MAX_NAMED, MAX_PATH_BYTES
from cloudless.sdk.copying.tarstream import FILE, FOLDER, LINK, Member

_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_MAX_NAME_BYTES = 255
Parts = tuple[str, ...]


class LeftOut(NamedTuple):
    """A member that was not made, and why."""

    name: str
    why: str


class Refused(Exception):
    """This member is not made; the others are."""


class Unpacker:
    """Makes members below the folder ``root``, which exists. Use it as a context manager.

    ``place`` turns the clean path of a member into that of its copy below ``root``, or
    None for one that was not asked for. ``all_links`` makes links that lead out as well.
    """

    def __init__(
        self,
        root: str,
        place: Callable[[Parts], Parts | None],
        *,
        max_bytes: int,
        all_links: bool = False,
    ) -> None:
        self._place = place
        self._max_bytes = max_bytes
        self._all_links = all_links
        self._shown_root = "" if root == "." else root
        self._root = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._here: tuple[Parts, int] = ((), os.dup(self._root))
        self._made: list[tuple[Parts, int, int]] = []
        self._members = 0
        self.files = 0
        self.size_bytes = 0
        self.left_out: list[LeftOut] = []
        #: How many were left out; only so many of them are named.
        self.left_out_count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._finish_folders()
        finally:
            os.close(self._here[1])
            os.close(self._root)

    async def make(self, member: Member, data: AsyncIterator[bytes]) -> None:
        """Make one member. Raises ``Exhausted`` beyond the limits, and ``OSError`` that names its copy."""
        self._members += 1
        if self._members > MAX_MEMBERS:
            raise Exhausted(f"the archive has more than {MAX_MEMBERS} members")
        try:
            parts = self._place(clean(member.name))
            if parts is None:
                raise Refused("was not asked for")
            if not parts:
                return  # the folder that is there already
            await self._make(parts, member, data)
        except Refused as refusal:
            self.leave_out(member.name, str(refusal))

    async def _make(self, parts: Parts, member: Member, data: AsyncIterator[bytes]) -> None:
        try:
            if member.kind == FILE:
                await self._file(parts, member, data)
            elif member.kind == FOLDER:
                self._folder(parts, member)
            elif member.kind == LINK:
                self._link(parts, member)
            else:
                raise Refused(f"is a {member.what}")
        except OSError as error:
            if error.errno is None:
                raise
            # Its own name is that of an unfinished file, which says nothing to anybody.
            name = os.path.join(self._shown_root, *parts)
            raise OSError(error.errno, error.strerror, name) from None

    def leave_out(self, name: str, why: str) -> None:
        """Remember that something is not made."""
        self.left_out_count += 1
        if len(self.left_out) < MAX_NAMED:
            self.left_out.append(LeftOut(name, why))

    async def _file(self, parts: Parts, member: Member, data: AsyncIterator[bytes]) -> None:
        if self.size_bytes + member.size_bytes > self._max_bytes:
            raise Exhausted(
                f"the copy would write more than {self._max_bytes} bytes",
                hint="allow more: max_bytes, or --max-size on the command line",
            )
        folder = self._enter(parts[:-1])
        # The handle may be moved on while data is awaited.
        folder = os.dup(folder)
        temporary = _temporary(parts[-1])
        try:
            handle = os.open(temporary, _CREATE, 0o600, dir_fd=folder)
            try:
                async for piece in data:
                    _write(handle, piece)
                    self.size_bytes += len(piece)
                os.fchmod(handle, member.mode & 0o777)
                os.utime(handle, ns=(member.mtime_ns, member.mtime_ns))
                os.close(handle)
                handle = -1
                _rename(temporary, parts[-1], folder)
            except BaseException:
                os.unlink(temporary, dir_fd=folder)
                raise
            finally:
                if handle >= 0:
                    os.close(handle)
        finally:
            os.close(folder)
        self.files += 1

    def _folder(self, parts: Parts, member: Member) -> None:
        folder = self._enter(parts[:-1])
        try:
            os.mkdir(parts[-1], 0o700, dir_fd=folder)
        except FileExistsError:
            if not stat.S_ISDIR(os.lstat(parts[-1], dir_fd=folder).st_mode):
                raise Refused("something that is no folder is there") from None
            return  # what was there before keeps its mode
        self._made.append((parts, member.mode & 0o777 | 0o700, member.mtime_ns))

    def _link(self, parts: Parts, member: Member) -> None:
        target = member.target
        if not target or "\0" in target or len(os.fsencode(target)) > MAX_PATH_BYTES:
            raise Refused("is a link to nowhere")
        if not self._all_links and not self._stays(parts, target):
            raise Refused(f"is a link that leads out, to {target}")
        folder = self._enter(parts[:-1])
        temporary = _temporary(parts[-1])
        os.symlink(target, temporary, dir_fd=folder)
        try:
            os.utime(temporary, ns=(member.mtime_ns, member.mtime_ns), dir_fd=folder, follow_symlinks=False)
            _rename(temporary, parts[-1], folder)
        except BaseException:
            os.unlink(temporary, dir_fd=folder)
            raise
        self.files += 1

    def _stays(self, parts: Parts, target: str) -> bool:
        """Whether a link's target lies in what is copied.

        Steps up are allowed at its beginning only: from there on they would depend on where
        other links lead, and two links that are good by name could lead out together.
        """
        steps = [step for step in target.split("/") if step not in ("", ".")]
        up = next((at for at, step in enumerate(steps) if step != ".."), len(steps))
        if target.startswith("/") or ".." in steps[up:] or up > len(parts) - 1:
            return False
        return self._owns((*parts[: len(parts) - 1 - up], *steps[up:]))

    def _owns(self, parts: Parts) -> bool:
        """Whether a path below ``root`` is one that this copy may make."""
        base = self._place(())
        return base is not None and parts[: len(base)] == base

    def _enter(self, parts: Parts) -> int:
        """A handle of the folder ``parts``, made where it is missing; valid until the next call."""
        if self._here[0] == parts:
            return self._here[1]
        handle = os.dup(self._root)
        try:
            for name in parts:
                following = self._step(handle, name)
                os.close(handle)
                handle = following
        except BaseException:
            os.close(handle)
            raise
        os.close(self._here[1])
        self._here = (parts, handle)
        return handle

    def _step(self, handle: int, name: str) -> int:
        for _ in range(2):
            try:
                return os.open(name, _OPEN_FOLDER, dir_fd=handle)
            except FileNotFoundError:
                os.mkdir(name, 0o755, dir_fd=handle)
            except OSError as error:
                if error.errno in (errno.ELOOP, errno.ENOTDIR):
                    raise Refused(f"{name} on its way is no folder here") from None
                raise
        raise Refused(f"{name} on its way does not stay")

    def _finish_folders(self) -> None:
        """Modes and times, innermost first: making what is in them has changed the times."""
        for parts, mode, mtime_ns in sorted(self._made, key=lambda one: -len(one[0])):
            try:
                handle = self._enter(parts)
            except Refused:
                continue  # replaced since
            os.fchmod(handle, mode)
            os.utime(handle, ns=(mtime_ns, mtime_ns))


def clean(name: str) -> Parts:
    """The path of a member as its parts; raises ``Refused`` for one that no good archive has.

    >>> clean("./a//b/"), clean(".")
    (('a', 'b'), ())
    """
    if name.startswith("/"):
        raise Refused("has an absolute name")
    if "\0" in name or len(os.fsencode(name)) > MAX_PATH_BYTES:
        raise Refused("has an impossible name")
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    if ".." in parts:
        raise Refused("has a name with ..")
    if len(parts) > MAX_DEPTH or any(len(os.fsencode(part)) > _MAX_NAME_BYTES for part in parts):
        raise Refused("has an impossible name")
    return parts


def _temporary(name: str) -> str:
    """Another name for an unfinished file: hidden, and never one that the archive can know."""
    return f".{os.fsdecode(os.fsencode(name)[:200])}.{secrets.token_hex(6)}.part"


def _rename(temporary: str, name: str, folder: int) -> None:
    try:
        os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except (IsADirectoryError, FileExistsError):
        raise Refused("a folder of that name is there") from None


def _write(handle: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]
