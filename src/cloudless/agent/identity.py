"""Who this node is, for ever: an id in the data directory, and a lock on that directory.

Read once at the start of the agent. The first version of this life's observations comes
from here as well: it rises with each start, whatever the wall clock does.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cloudless.agent.journal import node_of
from cloudless.aio.clock import Clock
from cloudless.domain.errors import Fatal

log = logging.getLogger(__name__)

#: Each life may count this far; more than it could ever publish.
VERSIONS_OF_A_LIFE = 1 << 32
#: Where the last number is lost, this is more than all lives before can have counted.
VERSIONS_OF_MANY_LIVES = 1 << 44


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
    """Read the node's id, or give it one; a lost one is taken from the journal.

    Raises ``Fatal`` when it is there but unreadable, and no journal tells it either.
    """
    path = folder / "node.json"
    now = int(clock.now().timestamp() * 1_000_000)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = _stored(path)
    except OSError as error:
        raise Fatal(f"cannot read {path}: {error.strerror or error}") from None
    if found is None:
        node_id, last = _from_journal(folder), now + VERSIONS_OF_MANY_LIVES
        if node_id:
            log.warning("the node's identity was lost, the journal tells it", extra={"path": str(path)})
        else:
            node_id, last = new_id(), 0
    else:
        node_id, last = found
    first = max(now, last + VERSIONS_OF_A_LIFE)
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


def stored_node_id(folder: Path) -> str:
    """The node's id, with nothing written; "" when there is none. Raises ``Fatal``."""
    try:
        found = _stored(folder / "node.json")
    except OSError as error:
        raise Fatal(f"cannot read {folder / 'node.json'}: {error.strerror or error}") from None
    return found[0] if found is not None else _from_journal(folder)


def _stored(path: Path) -> tuple[str, int] | None:
    """Id and last number; None when the file is not there, or damaged while a journal is there."""
    try:
        stored = json.loads(path.read_text())
        return str(stored["id"]), int(stored["first_version"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        if _from_journal(path.parent):
            return None
        raise Fatal(
            f"cannot read the node's identity in {path}: {error}",
            hint="restore the file, or remove the data directory to make a new node",
        ) from None


def _from_journal(folder: Path) -> str:
    return node_of(folder / "journal")
