"""Volumes of a replica: folders that live as long as it, and folders of the node.

A folder of the node is reached from the prefix that the operator allowed, one step at a
time and never through a symbolic link, and bound to a place of the agent's own by its
open descriptor: nobody can swap it between the check and the mount. An ``empty_dir``
with a size is a tmpfs on the node for as long as the replica lives, since no quota works
on every file system; its pages are memory. Blocking: run it on a worker thread.
"""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

from cloudless.agent.limits import DEFAULT_TMPFS_BYTES
from cloudless.agent.replica import mounts
from cloudless.agent.replica.permission import allowed_prefix
from cloudless.agent.runtime.errors import DiskFull, NotEnforced, StartFailed
from cloudless.agent.runtime.port import ContainerMount
from cloudless.domain.workload import Volume

#: Below a replica's folder: its own folders, and the places of the node's.
OWN, BOUND = "volumes", "bound"
_STEP = os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC


def prepare(
    folder: Path, volumes: tuple[Volume, ...], allowed: tuple[str, ...], private: tuple[Path, ...] = ()
) -> list[ContainerMount]:
    """Make what the volumes need below the replica's ``folder``; again gives the same.

    ``private`` folders are the node's own: no workload gets one, whatever is allowed.
    Raises ``NotEnforced`` for a path that may not be mounted, ``StartFailed``, ``DiskFull``.
    """
    made: list[ContainerMount] = []
    for volume in volumes:
        try:
            made.append(_prepare_one(folder, volume, allowed, private))
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise DiskFull(f"volume {volume.name}: {error.strerror}") from error
            raise StartFailed(f"volume {volume.name}: {error.strerror or error}") from error
    return made


def remove(folder: Path) -> None:
    """Unmount and delete everything of a replica; gone is no error. Raises ``OSError``.

    Where folders of the node were bound, only empty folders are removed.
    """
    if not folder.is_dir() or folder.is_symlink():
        return
    mounts.unmount_below(folder)
    bound = folder / BOUND
    if bound.is_dir():
        for place in bound.iterdir():
            place.rmdir()
    # rmtree follows no links; what a container left inside is data, not paths.
    shutil.rmtree(folder)


def open_folder(path: str, prefix: str) -> int:
    """A descriptor of the folder ``path`` at or below ``prefix``, reached without any symlink.

    The prefix is the operator's and may be a link; below it whoever writes there is not
    trusted. Raises ``NotEnforced`` for a link, ``OSError``.
    """
    handle = os.open(prefix, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    for step in path[len(prefix.rstrip("/")) :].split("/"):
        if not step:
            continue
        try:
            inner = os.open(step, _STEP, dir_fd=handle)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR):
                raise NotEnforced(f"host path {path}: {step!r} is a symbolic link or no folder") from None
            raise
        finally:
            os.close(handle)
        handle = inner
    return handle


def _prepare_one(
    folder: Path, volume: Volume, allowed: tuple[str, ...], private: tuple[Path, ...]
) -> ContainerMount:
    if volume.tmpfs is not None:
        size_bytes = volume.tmpfs.size_bytes or DEFAULT_TMPFS_BYTES
        return ContainerMount(volume.mount_path, None, volume.read_only, size_bytes)
    if volume.host_path is not None:
        place = _bind(folder / BOUND / volume.name, volume, volume.host_path.path, allowed, private)
        return ContainerMount(volume.mount_path, str(place), volume.read_only)
    assert volume.empty_dir is not None
    path = folder / OWN / volume.name
    size_bytes = volume.empty_dir.size_bytes
    if not path.exists():
        path.mkdir(parents=True)
        path.chmod(0o1777)  # whichever user the container runs as may write
    if size_bytes and not mounts.mounted_below(path):
        mounts.mount_tmpfs(path, size_bytes)
    return ContainerMount(volume.mount_path, str(path), volume.read_only)


def _bind(
    place: Path, volume: Volume, path: str, allowed: tuple[str, ...], private: tuple[Path, ...]
) -> Path:
    """Bind the node's folder as it is now to ``place``."""
    prefix = allowed_prefix(path, allowed)
    if prefix is None:
        raise NotEnforced(f"volume {volume.name}: host path {path} is not allowed on this node")
    place.mkdir(parents=True, exist_ok=True)
    mounts.unmount_below(place)  # of an earlier container: the folder may be another one by now
    handle = open_folder(path, prefix)
    try:
        _refuse_private(handle, volume, private)
        mounts.bind_folder(handle, place)
    finally:
        os.close(handle)
    return place


def _refuse_private(handle: int, volume: Volume, private: tuple[Path, ...]) -> None:
    """Raise ``NotEnforced`` when the open folder lies in a private one, or holds one."""
    found = Path(os.readlink(f"/proc/self/fd/{handle}"))
    for own in private:
        real = own.resolve()
        if found.is_relative_to(real) or real.is_relative_to(found):
            raise NotEnforced(f"volume {volume.name}: {own} is the node's own, and no workload's")
