"""Who this node is, for ever: an id in the data directory, and a lock on that directory.

Read once at the start of the agent. The first version of this life's observations comes
from here as well: it rises with each start, whatever the wall clock does.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cloudless.aio.clock import Clock
from cloudless.domain.errors import Fatal

#: Each life may count this far; more than it could ever publish.
VERSIONS_OF_A_LIFE = 1 << 32


class DataDirTaken(Fatal):
    """Another process uses the data directory."""

    code = "CL-1005"


@dataclass(frozen=True, slots=True)
class Identity:
    """``first_version``: observations of this life are numbered from here on."""

    node_id: str
    first_version: int


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the agent's directory alone. Raises ``DataDirTaken``, ``Fatal``."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Fatal(
            f"cannot use {folder}: {error.strerror or error}", hint="choose another --data-dir"
        ) from None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise DataDirTaken(
                f"another agent uses {folder}", hint="stop it, or choose another --data-dir"
            ) from None
        yield
    finally:
        os.close(handle)


def load_identity(folder: Path, clock: Clock, new_id: Callable[[], str]) -> Identity:
    """Read the node's id, or give it one; raises ``Fatal`` when it is there but unreadable."""
    path = folder / "node.json"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        stored = json.loads(path.read_text()) if path.exists() else {}
        node_id = str(stored.get("id") or new_id())
        last = int(stored.get("first_version", 0))
    except (OSError, ValueError, AttributeError) as error:
        raise Fatal(
            f"cannot read the node's identity in {path}: {error}",
            hint="restore the file, or remove the data directory to make a new node",
        ) from None
    first = max(int(clock.now().timestamp() * 1_000_000), last + VERSIONS_OF_A_LIFE)
    fresh = path.with_suffix(".new")
    try:
        with fresh.open("w") as file:
            os.fchmod(file.fileno(), 0o600)
            json.dump({"id": node_id, "first_version": first}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, path)
    except OSError as error:
        raise Fatal(f"cannot write {path}: {error.strerror or error}") from None
    return Identity(node_id, first)
