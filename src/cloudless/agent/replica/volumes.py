"""Volumes of a replica: folders that live as long as it, and folders of the node.

A folder of the node is reached from the prefix that the operator allowed, one step at a
time and never through a symbolic link, and is handed on as an open descriptor, so that
nobody can swap it between the check and the mount. An ``empty_dir`` with a size is a
tmpfs on the node that is mounted for as long as the replica lives, since no quota works
on every file system; its pages are memory. Blocking: run it on a worker thread.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import stat
from dataclasses import dataclass, field
from pathlib import Path

from cloudless.agent.limits import DEFAULT_TMPFS_BYTES
from cloudless.agent.replica.permission import allowed_prefix
from cloudless.agent.runtime.errors import DiskFull, NotEnforced, StartFailed
from cloudless.agent.runtime.port import ContainerMount
from cloudless.domain.workload import Volume

_MS_NOSUID, _MS_NODEV = 2, 4
_MNT_DETACH, _UMOUNT_NOFOLLOW = 2, 8
_STEP = os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass
class MountedVolumes:
    """Mounts for the container; ``close`` once the container holds them itself."""

    mounts: list[ContainerMount] = field(default_factory=list)
    _handles: list[int] = field(default_factory=list)

    def hold(self, handle: int) -> str:
        """Keep a descriptor open, and name it so that other processes can mount it."""
        self._handles.append(handle)
        return f"/proc/{os.getpid()}/fd/{handle}"

    def close(self) -> None:
        """Let go of the descriptors."""
        while self._handles:
            os.close(self._handles.pop())


def prepare(folder: Path, volumes: tuple[Volume, ...], allowed: tuple[str, ...]) -> MountedVolumes:
    """Make and open what the volumes need; ``folder`` is the replica's own, for its empty dirs.

    Raises ``NotEnforced`` for a path that may not be mounted, ``StartFailed``, ``DiskFull``.
    """
    result = MountedVolumes()
    try:
        for volume in volumes:
            result.mounts.append(_prepare_one(result, folder, volume, allowed))
    except OSError as error:
        result.close()
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f"volume {volume.name}: {error.strerror}") from error
        raise StartFailed(f"volume {volume.name}: {error.strerror or error}") from error
    except BaseException:
        result.close()
        raise
    return result


def remove(folder: Path) -> None:
    """Unmount and delete a replica's own volumes; gone is no error. Raises ``OSError``."""
    if not folder.is_dir() or folder.is_symlink():
        return
    for path in sorted(folder.iterdir()):
        while not path.is_symlink() and os.path.ismount(path):
            _umount(path)
    # rmtree follows no links; what a container left inside is data, not paths.
    shutil.rmtree(folder)


def open_folder(path: str, prefix: str) -> int:
    """A descriptor of the folder ``path`` at or below ``prefix``, reached without any symlink.

    The prefix is the operator's and may be a link; below it whoever writes there is not
    trusted. Raises ``NotEnforced``.
    """
    handle = os.open(prefix, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for step in [step for step in path[len(prefix.rstrip("/")) :].split("/") if step]:
            inner = os.open(step, _STEP, dir_fd=handle)
            os.close(handle)
            handle = inner
    except OSError as error:
        os.close(handle)
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise NotEnforced(f"host path {path}: {step!r} is a symbolic link or no folder") from None
        raise
    return handle


def _prepare_one(
    result: MountedVolumes, folder: Path, volume: Volume, allowed: tuple[str, ...]
) -> ContainerMount:
    if volume.tmpfs is not None:
        size_bytes = volume.tmpfs.size_bytes or DEFAULT_TMPFS_BYTES
        return ContainerMount(volume.mount_path, None, volume.read_only, size_bytes)
    if volume.host_path is not None:
        prefix = allowed_prefix(volume.host_path.path, allowed)
        if prefix is None:
            raise NotEnforced(f"volume {volume.name}: host path {volume.host_path.path} is not allowed")
        source = result.hold(open_folder(volume.host_path.path, prefix))
        return ContainerMount(volume.mount_path, source, volume.read_only)
    assert volume.empty_dir is not None
    path = folder / volume.name
    path.mkdir(mode=0o777, parents=True, exist_ok=True)
    if volume.empty_dir.size_bytes and not os.path.ismount(path):
        _mount_tmpfs(path, volume.empty_dir.size_bytes)
    elif not stat.S_IMODE(path.stat().st_mode) & stat.S_ISVTX:
        path.chmod(0o1777)  # whichever user the container runs as may write
    return ContainerMount(volume.mount_path, str(path), volume.read_only)


def _mount_tmpfs(path: Path, size_bytes: int) -> None:
    options = f"size={size_bytes},mode=1777".encode()
    if _libc.mount(b"tmpfs", bytes(path), b"tmpfs", _MS_NOSUID | _MS_NODEV, options) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"cannot mount a tmpfs: {os.strerror(number)}")


def _umount(path: Path) -> None:
    if _libc.umount2(bytes(path), _MNT_DETACH | _UMOUNT_NOFOLLOW) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"cannot unmount {path}: {os.strerror(number)}")
