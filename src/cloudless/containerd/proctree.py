"""Finds and signals everything that one executed process has started.

Descendants are known by their parents; those that cut themselves loose (a daemon's
double fork) by a variable that they inherited. Signals go through process handles,
so that a number that was given away anew is never hit.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
from collections.abc import Collection, Iterable, Mapping

MAX_ENVIRON_BYTES = 256 * 1024


def signal_tree(pids: Iterable[int], root: int | None, marker: str, number: signal.Signals) -> int:
    """Signal those of ``pids`` that belong to the tree of ``root`` or carry ``marker``; returns how many.

    ``root`` is ``None`` once that process is known to have ended.
    """
    handles: dict[int, int] = {}
    try:
        for pid in pids:
            with contextlib.suppress(OSError):
                handles[pid] = os.pidfd_open(pid)
        # Only now look at who they are: a handle stays with its process.
        count = 0
        for pid in find_tree(handles, root, marker):
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(handles[pid], number)
                count += 1
        return count
    finally:
        for handle in handles.values():
            os.close(handle)


def find_tree(
    pids: Collection[int], root: int | None, marker: str, proc: pathlib.Path = pathlib.Path("/proc")
) -> set[int]:
    """Of ``pids``, what ``root`` started or has ``marker`` ("NAME=value") in its environment."""
    parents = {pid: parent for pid in pids if (parent := _parent(proc, pid)) is not None}
    wanted = os.fsencode(marker)
    roots = {pid for pid in pids if pid == root or wanted in _environment(proc, pid)}
    return descendants(parents, roots)


def descendants(parents: Mapping[int, int], roots: Iterable[int]) -> set[int]:
    """The roots and everything below them.

    >>> sorted(descendants({2: 1, 3: 2, 9: 1}, [2]))
    [2, 3]
    """
    children: dict[int, list[int]] = {}
    for pid, parent in parents.items():
        children.setdefault(parent, []).append(pid)
    found: set[int] = set()
    pending = list(roots)
    while pending:
        pid = pending.pop()
        if pid not in found:
            found.add(pid)
            pending += children.get(pid, ())
    return found


def _parent(proc: pathlib.Path, pid: int) -> int | None:
    try:
        stat = (proc / str(pid) / "stat").read_bytes()
    except OSError:
        return None
    # The name, in brackets, may itself hold blanks and brackets.
    return int(stat.rpartition(b")")[2].split()[1])


def _environment(proc: pathlib.Path, pid: int) -> list[bytes]:
    try:
        with (proc / str(pid) / "environ").open("rb") as file:
            return file.read(MAX_ENVIRON_BYTES).split(b"\0")
    except OSError:
        return []
