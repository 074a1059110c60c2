"""The logs of replicas as their life needs them: a place to write to, and the last lines.

A thin layer over ``agent.logs``; the container's number in its id is the log's attempt.
"""

from __future__ import annotations

import asyncio
import re
from contextlib import aclosing
from pathlib import Path

from cloudless.agent.limits import LOG_TAIL_BYTES, LOG_TAIL_LINES
from cloudless.agent.logs import lines
from cloudless.agent.logs.reader import ReadOptions
from cloudless.agent.logs.store import LogStore
from cloudless.agent.runtime.errors import DiskFull
from cloudless.domain.replica import Assignment

_CONTAINER = re.compile(r"cl-(?P<replica>.+)-(?P<attempt>\d+)")
#: The end of a log must not keep a restart waiting.
TAIL_TIMEOUT_S = 1.0


class ContainerLogs:
    """``tools.Logs`` on a ``LogStore``."""

    def __init__(self, store: LogStore, root: Path) -> None:
        self._store = store
        self._root = root

    def containers(self) -> tuple[str, ...]:
        """Ids of all containers whose logs are kept, the dead included."""
        try:
            replicas = sorted(path.name for path in self._root.iterdir() if path.is_dir())
        except FileNotFoundError:
            return ()
        return tuple(
            f"cl-{replica}-{attempt}" for replica in replicas for attempt in self._store.attempts(replica)
        )

    def log_uri(self, replica_id: str, container_id: str, assignment: Assignment) -> str:
        try:
            return self._store.prepare(replica_id, attempt_of(container_id))
        except OSError as error:
            raise DiskFull(f"cannot make room for logs: {error.strerror or error}") from error

    async def tail(self, container_id: str) -> str:
        replica_id, attempt = split_id(container_id)
        found: list[bytes] = []
        options = ReadOptions(tail_lines=LOG_TAIL_LINES)
        try:
            async with (
                asyncio.timeout(TAIL_TIMEOUT_S),
                aclosing(self._store.read(replica_id, attempt, options)) as batches,
            ):
                async for batch in batches:
                    found += [record.data for record in lines.parse(batch.data)]
        except (OSError, TimeoutError):
            return ""
        return b"\n".join(found)[-LOG_TAIL_BYTES:].decode(errors="replace")

    async def remove(self, replica_id: str) -> None:
        # Logs of the gone stay readable for a while: housekeeping collects them by age and size.
        return


def split_id(container_id: str) -> tuple[str, int]:
    """Replica and attempt of a container's id; raises ``ValueError``.

    >>> split_id("cl-abc-12")
    ('abc', 12)
    """
    found = _CONTAINER.fullmatch(container_id)
    if found is None:
        raise ValueError(f"not a container of ours: {container_id[:80]!r}")
    return found["replica"], int(found["attempt"])


def attempt_of(container_id: str) -> int:
    """The number in a container's id.

    >>> attempt_of("cl-abc-12")
    12
    """
    return split_id(container_id)[1]
