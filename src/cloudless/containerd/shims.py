"""Shims that nobody asks any more: their containerd has ended, or has forgotten them.

A shim outlives its containerd, as it shall. But one whose container was never finished,
because the program that asked for it died meanwhile, may be in no list of tasks, and stays
for ever with what it runs. ``Strays`` looks for these beside a daemon that runs;
``end_shims`` is for the end of a private containerd, when nothing under it may run.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from cloudless.containerd.containers import Containers
from cloudless.containerd.limits import SHIM_CLEANUP_S, SHIM_END_S
from cloudless.containerd.rpc import Connection

PROC = Path("/proc")
_NAME = "containerd-shim"
#: The folder that holds a bundle of each container of a shim of this kind.
_BUNDLES = "io.containerd.runtime.v2.task"


class Shim(NamedTuple):
    """A shim that runs: its process, and which container it is for."""

    pid: int
    namespace: str
    container_id: str


class Strays:
    """Ends shims of containers that have no record (any more)."""

    def __init__(self, connection: Connection, containers: Containers) -> None:
        self._connection = connection
        self._containers = containers
        self._suspects: frozenset[str] = frozenset()

    async def collect(self, prefix: str) -> tuple[str, ...]:
        """End those whose container id begins with ``prefix``; returns their ids.

        Only one that was a stray the last time as well is ended: a record may go shortly
        before its shim. Raises ``Unavailable``.
        """
        socket, namespace = Path(self._connection.socket), self._connection.namespace
        shims = {
            shim.container_id: shim
            for shim in await asyncio.to_thread(lambda: list(shims_of(socket)))
            if shim.namespace == namespace and shim.container_id.startswith(prefix)
        }
        if shims:
            for record in await self._containers.list():
                shims.pop(record.id, None)
        confirmed = tuple(sorted(self._suspects.intersection(shims)))
        self._suspects = frozenset(shims).difference(confirmed)
        for container_id in confirmed:
            await asyncio.to_thread(_end_with_bundle, shims[container_id], socket)
        return confirmed


def end_shims(socket: Path) -> int:
    """Kill every shim of the containerd at ``socket``, and what it has started; how many there were.

    Returns when they have ended: until then they may still write to their folders.
    """
    found = list(shims_of(socket))
    with contextlib.ExitStack() as stack:
        ends = select.poll()
        waiting = 0
        for pid in [one for shim in found for one in (*_children(shim.pid), shim.pid)]:
            with contextlib.suppress(OSError):  # it has ended, or the kernel is older than this (5.3)
                end = os.pidfd_open(pid)
                stack.callback(os.close, end)
                ends.register(end, select.POLLIN)
                waiting += 1
        for shim in found:
            _kill(shim.pid)
        give_up_s = time.monotonic() + SHIM_END_S
        while waiting and (left_s := give_up_s - time.monotonic()) > 0:
            for end, _ in ends.poll(left_s * 1000):
                ends.unregister(end)
                waiting -= 1
    return len(found)


def _kill(pid: int) -> None:
    for one in (*_children(pid), pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(one, signal.SIGKILL)


def _end_with_bundle(shim: Shim, socket: Path) -> None:
    """Kill it, and do what its containerd does after a shim's death: remove what the OCI runtime keeps."""
    try:
        bundle = (PROC / str(shim.pid) / "cwd").readlink()
        program = (PROC / str(shim.pid) / "exe").readlink()
    except OSError:
        return  # it has ended by itself
    folders = [bundle]
    with contextlib.suppress(OSError):
        folders.append((bundle / "work").readlink())  # below the daemon's root; the bundle is below its state
    _kill(shim.pid)
    if not all(one.name == shim.container_id and _BUNDLES in one.parts for one in folders):
        return
    words = ("-namespace", shim.namespace, "-address", str(socket), "-id", shim.container_id)
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        subprocess.run(
            [program, *words, "-bundle", bundle, "delete"],
            cwd=bundle,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=SHIM_CLEANUP_S,
        )
    if os.path.ismount(bundle / "rootfs"):
        return
    # The daemon does the same when it notices the end; where one of us has deleted already, the
    # other's attempt fails and leaves its folders.
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def shims_of(socket: Path) -> Iterator[Shim]:
    """Every shim of the containerd at ``socket``."""
    for folder in PROC.glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:  # it ends while we look
            continue
        if Path(words[0]).name.startswith(_NAME) and _value(words, "-address") == str(socket):
            yield Shim(int(folder.name), _value(words, "-namespace"), _value(words, "-id"))


def _value(words: list[str], flag: str) -> str:
    """What stands behind a flag.

    >>> _value(["containerd-shim-runc-v2", "-address", "/run/c.sock"], "-address")
    '/run/c.sock'
    """
    return words[words.index(flag) + 1] if flag in words[:-1] else ""


def _children(pid: int) -> list[int]:
    found = []
    for folder in PROC.glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if int((folder / "stat").read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(folder.name))
    return found
