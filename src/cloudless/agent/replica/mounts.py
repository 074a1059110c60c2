"""Mounts that the agent makes on the node for its replicas, and how they are taken away.

Called by ``volumes`` on a worker thread. What is mounted is read from the kernel each
time: a bind of the same file system looks like an ordinary folder, and deleting through
it would delete what is not ours.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable
from pathlib import Path

_MS_NOSUID, _MS_NODEV, _MS_BIND = 2, 4, 4096
_MNT_DETACH, _UMOUNT_NOFOLLOW = 2, 8
_MOUNTINFO = Path("/proc/self/mountinfo")

_libc = ctypes.CDLL(None, use_errno=True)


def mount_tmpfs(path: Path, size_bytes: int) -> None:
    """Memory of at most this size at ``path``, for everybody to write. Raises ``OSError``."""
    options = f"size={size_bytes},mode=1777".encode()
    _mount(b"tmpfs", bytes(path), b"tmpfs", _MS_NOSUID | _MS_NODEV, options)


def bind_folder(handle: int, path: Path) -> None:
    """The folder that the descriptor ``handle`` stands for, also at ``path``. Raises ``OSError``."""
    _mount(f"/proc/self/fd/{handle}".encode(), bytes(path), None, _MS_BIND, None)


def mounted_below(folder: Path) -> tuple[str, ...]:
    """Mount points at or below ``folder``, the deepest first. Raises ``OSError``."""
    return mount_points(_MOUNTINFO.read_text().splitlines(), os.path.realpath(folder))


def mount_points(mountinfo: Iterable[str], folder: str) -> tuple[str, ...]:
    """The points of a mountinfo table at or below ``folder``; one for each mount, deepest first.

    >>> mount_points(["1 0 0:1 / /a rw - tmpfs x rw", "2 1 0:2 / /a/b\\\\040c rw - tmpfs x rw"], "/a")
    ('/a/b c', '/a')
    >>> mount_points(["1 0 0:1 / /ab rw - tmpfs x rw"], "/a")
    ()
    """
    points = [_unescape(line.split(" ")[4]) for line in mountinfo]
    inside = [point for point in points if point == folder or point.startswith(f"{folder}/")]
    return tuple(sorted(inside, key=lambda point: -point.count("/")))


def unmount_below(folder: Path) -> None:
    """Unmount everything at or below ``folder``; raises ``OSError`` when something stays."""
    for point in mounted_below(folder):
        _umount(point)
    left = mounted_below(folder)
    if left:
        raise OSError(f"still mounted: {left[0]}")


def _mount(source: bytes, target: bytes, kind: bytes | None, flags: int, options: bytes | None) -> None:
    if _libc.mount(source, target, kind, flags, options) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"cannot mount: {os.strerror(number)}")


def _umount(point: str) -> None:
    if _libc.umount2(os.fsencode(point), _MNT_DETACH | _UMOUNT_NOFOLLOW) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"cannot unmount {point}: {os.strerror(number)}")


def _unescape(text: str) -> str:
    """Undo the octal escapes of the kernel's tables (space, tab, newline, backslash)."""
    head, *rest = text.split("\\")
    return head + "".join(chr(int(part[:3], 8)) + part[3:] for part in rest)
