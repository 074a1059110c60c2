"""The logs of replicas as their life needs them: a place to write to, and the last lines.

A thin layer over ``agent.logs``; the container's number in its id is the log's attempt.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections import deque
from contextlib import aclosing
from pathlib import Path

from cloudless.agent.limits import LOG_TAIL_BYTES, LOG_TAIL_LINES
from cloudless.agent.logs import files
from cloudless.agent.logs.index import LogAbout
from cloudless.agent.logs.reader import ReadOptions
from cloudless.agent.logs.store import LogStore
from cloudless.agent.runtime.errors import DiskFull
from cloudless.aio.clock import Clock
from cloudless.domain.loglines import Joiner, parse
from cloudless.domain.replica import Assignment, ExitStatus

log = logging.getLogger(__name__)

_CONTAINER = re.compile(r"cl-(?P<replica>.+)-(?P<attempt>\d+)")
#: The end of a log must not keep a restart waiting for long.
TAIL_TIMEOUT_S = 1.0
QUIET_TIMEOUT_S = 2.0
#: The last lines of a container that ended may still be on their way to the file, and its logger
#: ends only with the container's record: no more for so many looks, which is longer than it
#: waits for a line feed, and they are all there.
QUIET_LOOKS = 12
LOOK_S = 0.01


class ContainerLogs:
    """``tools.Logs`` on a ``LogStore``."""

    def __init__(self, store: LogStore, root: Path, clock: Clock) -> None:
        self._store = store
        self._root = root
        self._clock = clock

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
        about = LogAbout(
            replica_id=replica_id,
            namespace=assignment.namespace,
            name=assignment.name,
            ordinal=assignment.ordinal,
            workload_id=assignment.workload_id,
            revision=assignment.revision,
        )
        try:
            return self._store.prepare(replica_id, attempt_of(container_id), about, started_ns=self._now_ns())
        except OSError as error:
            raise DiskFull(f"cannot make room for logs: {error.strerror or error}") from error

    async def tail(self, container_id: str, *, ended: bool = False) -> str:
        replica_id, attempt = split_id(container_id)
        found: deque[bytes] = deque(maxlen=LOG_TAIL_LINES)
        options, joiner = ReadOptions(tail_lines=LOG_TAIL_LINES), Joiner(LOG_TAIL_BYTES)
        with contextlib.suppress(OSError, TimeoutError):
            if ended:
                await _until_quiet(self._store.directory(replica_id, attempt))
            async with asyncio.timeout(TAIL_TIMEOUT_S):
                async with aclosing(self._store.read(replica_id, attempt, options)) as batches:
                    async for batch in batches:
                        found.extend(record.data for record in joiner.join(parse(batch.data)))
        found.extend(record.data for record in joiner.flush())
        return b"\n".join(found)[-LOG_TAIL_BYTES:].decode(errors="replace")

    def exited(self, container_id: str, status: ExitStatus) -> None:
        try:
            self._store.exited(*split_id(container_id), status)
        except OSError as error:
            log.warning("a log will not tell its end", extra={"container": container_id, "why": str(error)})

    async def remove(self, replica_id: str) -> None:
        # Logs of the gone stay readable for a while: housekeeping collects them by age and size.
        self._store.ended(replica_id, self._now_ns())

    def _now_ns(self) -> int:
        return int(self._clock.now().timestamp() * 1_000_000) * 1000


async def _until_quiet(directory: Path) -> None:
    """Wait until a log does not grow any more; not for ever."""
    before, quiet = None, 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(QUIET_TIMEOUT_S):
            while quiet < QUIET_LOOKS and not files.has_ended(directory):
                now = files.find_end(directory)
                # On a machine that has other work, a logger may not have had its turn yet.
                grows = now != before or files.has_busy_logger(directory)
                before, quiet = now, 0 if grows else quiet + 1
                await asyncio.sleep(LOOK_S)


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
