"""Several agents on one machine: each claims its mark, and clears up after the dead.

An agent that is killed without replicas leaves an empty bridge, which holds an address
range that others could use; with its data directory deleted nobody would ever remove it.
A claim is a lock on a file, so it ends with the process, however that ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path

log = logging.getLogger(__name__)

_MARK = re.compile(r"[0-9a-f]{8}")
_CLAIM = "claim"
NAMESPACES = "netns"


@contextlib.contextmanager
def in_turn(run_directory: Path) -> Iterator[None]:
    """Agents that start together choose their ranges one after the other. Raises ``OSError``."""
    run_directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    lock = os.open(run_directory / "range.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def claim(run_directory: Path, mark: str) -> int:
    """Say that this process uses ``mark`` until the returned descriptor is closed."""
    directory = run_directory / mark
    directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    held = os.open(directory / _CLAIM, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(held, fcntl.LOCK_SH)
    return held


def forget(run_directory: Path, mark: str) -> None:
    """Remove the directory of a mark of which nothing is left; what is in use stays."""
    with contextlib.suppress(OSError):
        (run_directory / mark / NAMESPACES).rmdir()
    if not (run_directory / mark / NAMESPACES).exists():
        with contextlib.suppress(OSError):
            (run_directory / mark / _CLAIM).unlink()
        with contextlib.suppress(OSError):
            (run_directory / mark).rmdir()


def abandoned(run_directory: Path, own_mark: str) -> Iterator[str]:
    """Marks that no living agent claims and that hold no namespace; each is locked while it is handled."""
    for directory in sorted(run_directory.iterdir()):
        if directory.name == own_mark or _MARK.fullmatch(directory.name) is None:
            continue
        lock = os.open(directory / _CLAIM, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue  # its agent lives
        else:
            namespaces = directory / NAMESPACES
            if not namespaces.is_dir() or not any(namespaces.iterdir()):
                yield directory.name
        finally:
            os.close(lock)
