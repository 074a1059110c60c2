"""The logs of one replica, as one source of a merged stream: read, buffered, resumed.

The buffer is bounded in entries and bytes; when it is full the node is not read any
further, and HTTP/2's flow control stops it there.
"""

from __future__ import annotations

import asyncio
import datetime
from collections import deque
from collections.abc import Callable
from contextlib import aclosing

from cloudless import api
from cloudless.coordinator.limits import LOG_BUFFER_BYTES, LOG_BUFFER_ENTRIES, LOG_RETRY_S
from cloudless.coordinator.services.context import Context
from cloudless.domain.errors import CloudlessError, NotFound, Unavailable
from cloudless.domain.replica import ReplicaRecord

_START = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_ENTRY_BYTES = 200


class LogSource:
    """One replica; ``run`` is its task, the rest is for the merging reader."""

    def __init__(
        self,
        context: Context,
        record: ReplicaRecord,
        request: api.StreamLogsRequest,
        wake: Callable[[], None],
        *,
        first: bool,
    ) -> None:
        self._context = context
        self._record = record
        self._follow = request.follow
        self._since = request.since
        self._timestamps = request.timestamps
        # A replica that comes later is read from its beginning.
        self._tail_lines = request.tail_lines if first else None
        self._wake = wake
        self._entries: deque[api.LogEntry] = deque()
        self._size_bytes = 0
        self._room = asyncio.Event()
        self._last_at: datetime.datetime | None = None
        self._at_last = 0
        self._ended = False
        self.error: CloudlessError | None = None

    @property
    def buffered(self) -> bool:
        """Whether an entry can be taken."""
        return bool(self._entries)

    @property
    def finished(self) -> bool:
        """Nothing is left and nothing will come."""
        return self._ended and not self._entries

    def next_at(self) -> datetime.datetime:
        """Time of the entry that ``take`` gives."""
        return self._entries[0].at or _START

    def take(self) -> api.LogEntry:
        """The oldest entry."""
        entry = self._entries.popleft()
        self._size_bytes -= len(entry.line) + _ENTRY_BYTES
        self._room.set()
        return entry

    async def run(self) -> None:
        """Read until the end; a broken connection is taken up again when following."""
        try:
            while True:
                try:
                    await self._read()
                    return
                except NotFound:
                    return  # nothing was ever written, or it was collected
                except Unavailable as error:
                    if not self._follow or self._record.id not in self._context.cache.cluster.replicas:
                        self.error = error
                        return
                    await self._context.clock.sleep(LOG_RETRY_S)
                except CloudlessError as error:
                    self.error = error
                    return
        finally:
            self._ended = True
            self._wake()

    async def _read(self) -> None:
        record = self._record
        node = self._context.cache.cluster.nodes.get(record.node_id)
        channel = self._context.nodes.bulk(record.node_id, node.name if node is not None else "")
        resumed, skip = self._last_at is not None, self._at_last
        request = api.StreamLogsRequest(
            replica=record.id,
            follow=self._follow,
            tail_lines=None if resumed else self._tail_lines,
            since=self._last_at if resumed else self._since,
            timestamps=self._timestamps,
        )
        async with aclosing(api.AgentServiceStub(channel).stream_logs(request)) as entries:  # type: ignore[type-var]
            async for entry in entries:
                if skip and entry.at == self._last_at:
                    skip -= 1  # seen before the connection broke
                    continue
                skip = 0
                await self._put(entry)

    async def _put(self, entry: api.LogEntry) -> None:
        while len(self._entries) >= LOG_BUFFER_ENTRIES or self._size_bytes >= LOG_BUFFER_BYTES:
            self._room.clear()
            await self._room.wait()
        entry.replica = f"{self._record.name}/{self._record.ordinal}"
        entry.replica_id = self._record.id
        self._at_last = self._at_last + 1 if entry.at == self._last_at else 1
        self._last_at = entry.at
        self._entries.append(entry)
        self._size_bytes += len(entry.line) + _ENTRY_BYTES
        self._wake()
