"""Reads single files of images and containers from outside, without being led outside.

An image's layers are looked through as overlayfs would, but nothing is mounted; a
running container's files are opened through its own root, by a call of the kernel
that does not leave it. Neither follows a link out, waits for a pipe, or reads more
than its limit.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass

from cloudless.containerd import limits
from cloudless.containerd.errors import InvalidImage
from cloudless.containerd.snapshots import Mount

_SYS_OPENAT2 = 437  # the same number on every machine
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_IN_ROOT = 0x10
_OPEN_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY


class _OpenHow(ctypes.Structure):
    _fields_ = [("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64)]


@dataclass(frozen=True)
class _Found:
    """Where a name leads: folders that are merged (topmost first), or one file or link."""

    folders: tuple[str, ...] = ()
    file: str = ""
    link: str = ""


def layer_folders(mounts: Sequence[Mount]) -> tuple[str, ...]:
    """The folders of a snapshot's layers, topmost first. Raises ``InvalidImage`` for other kinds.

    >>> layer_folders([Mount("overlay", "overlay", ("upperdir=/u", "lowerdir=/a:/b"))])
    ('/u', '/a', '/b')
    """
    if len(mounts) != 1:
        raise InvalidImage(f"a root file system of {len(mounts)} mounts cannot be read")
    mount = mounts[0]
    if mount.type == "bind":
        return (mount.source,)
    if mount.type != "overlay":
        raise InvalidImage(f"a root file system of type {mount.type!r} cannot be read")
    options = dict(option.split("=", 1) for option in mount.options if "=" in option)
    upper = [options["upperdir"]] if "upperdir" in options else []
    return (*upper, *options.get("lowerdir", "").split(":"))


def read_layers(folders: Sequence[str], path: str, limit_bytes: int) -> bytes | None:
    """A regular file as the merged layers show it; ``None`` when there is none.

    The layers must be committed ones, that nobody writes to. A file over the limit is
    ``InvalidImage``.
    """
    found = _resolve(tuple(folders), path)
    if not found.file:
        return None
    return _read(os.open(found.file, _OPEN_FLAGS), path, limit_bytes)


def read_container(pid: int, path: str, limit_bytes: int) -> bytes | None:
    """The same from the root of a running process, whose files may change at any time."""
    root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        handle = _open_in_root(root, path)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EACCES, errno.EXDEV):
            return None
        raise
    finally:
        os.close(root)
    return _read(handle, path, limit_bytes)


def _read(handle: int, path: str, limit_bytes: int) -> bytes | None:
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            return None
        data = bytearray()
        while chunk := os.read(handle, min(limit_bytes + 1 - len(data), limits.MIB)):
            data += chunk
            if len(data) > limit_bytes:
                raise InvalidImage(f"{path} is larger than {limit_bytes} bytes")
        return bytes(data)
    finally:
        os.close(handle)


def _open_in_root(root: int, path: str) -> int:
    how = _OpenHow(_OPEN_FLAGS & ~os.O_NOFOLLOW, 0, _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS)
    libc = ctypes.CDLL(None, use_errno=True)
    handle: int = libc.syscall(_SYS_OPENAT2, root, os.fsencode(path), ctypes.byref(how), ctypes.sizeof(how))
    if handle < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
    return handle


def _resolve(layers: tuple[str, ...], path: str) -> _Found:
    done: list[str] = []  # names of folders from the root to where we stand
    folders: list[tuple[str, ...]] = [layers]  # for each of them, and the root before
    pending = _names(path)
    links = 0
    while pending:
        name = pending.pop(0)
        if name == "..":
            if done:
                done.pop()
                folders.pop()
            continue
        found = _look(folders[-1], name)
        if found.link:
            links += 1
            if links > limits.MAX_SYMLINKS:
                return _Found()
            pending = _names(found.link) + pending
            if found.link.startswith("/"):
                done, folders = [], [layers]
        elif found.folders:
            done.append(name)
            folders.append(found.folders)
        else:
            return found if not pending else _Found()
    return _Found(folders=folders[-1])


def _names(path: str) -> list[str]:
    return [name for name in path.split("/") if name not in ("", ".")]


def _look(folders: tuple[str, ...], name: str) -> _Found:
    merged: list[str] = []
    for folder in folders:
        path = os.path.join(folder, name)
        try:
            info = os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:  # a name too long, for example
            return _Found()
        if stat.S_ISCHR(info.st_mode) and info.st_rdev == 0:
            break  # a whiteout: layers below do not have it any more
        if stat.S_ISDIR(info.st_mode):
            merged.append(path)
            if _is_opaque(path):
                break
        elif merged:
            break  # a folder above hides it
        elif stat.S_ISLNK(info.st_mode):
            return _Found(link=os.readlink(path))
        else:
            return _Found(file=path)
    return _Found(folders=tuple(merged))


def _is_opaque(path: str) -> bool:
    try:
        return os.getxattr(path, "trusted.overlay.opaque", follow_symlinks=False) == b"y"
    except OSError:
        return False
