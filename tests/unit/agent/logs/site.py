"""A node's logs without a node: runs are written by a logger in this process."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from cloudless.agent.logs import logger
from cloudless.agent.logs.gather import Gather
from cloudless.agent.logs.index import LogAbout
from cloudless.agent.logs.source import Reading
from cloudless.agent.logs.store import LogStore
from cloudless.domain import loglines
from cloudless.domain.logfilter import LogFilter
from cloudless.domain.logrecord import LogRecord, SourceCursor
from cloudless.domain.logstream import LogBatch, LogChunk, LogMarker, LogQuery, LogSource, MarkerKind
from cloudless.domain.replica import ExitStatus

SECOND = 1_000_000_000
T0_NS = 1_767_225_600 * SECOND
DEADLINE_S = 5.0


class States:
    """``RunStates`` as the test says."""

    def __init__(self) -> None:
        self.here: dict[str, int] = {}
        self._watchers: list[asyncio.Future[None]] = []

    def exists(self, replica_id: str) -> bool:
        return replica_id in self.here

    def writes(self, replica_id: str, run: int) -> bool:
        return self.here.get(replica_id) == run

    def change_of(self, replica_id: str) -> asyncio.Future[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._watchers.append(future)
        return future

    def tell(self) -> None:
        watchers, self._watchers = self._watchers, []
        for one in watchers:
            if not one.done():
                one.set_result(None)


class Run:
    """One container's logger."""

    def __init__(self, site: Site, replica_id: str, number: int, file_bytes: int, files: int) -> None:
        self.site, self.replica_id, self.number = site, replica_id, number
        site.store.prepare(replica_id, number, site.about(replica_id), started_ns=site.now_ns)
        site.states.here[replica_id] = number
        self.directory = site.store.directory(replica_id, number)
        self.log = logger.Log(str(self.directory), file_bytes, files)
        self.log.put(b"", 0)
        self.written = 0
        site.states.tell()

    def write(self, *texts: bytes, stream: bytes = b"stdout", later_ns: int = SECOND) -> None:
        """Lines, each a second after the one before."""
        for text in texts:
            self.site.now_ns += later_ns
            rest = logger.take(self.log, stream, text)
            if rest:
                self.log.put(self.log.stamp(stream) + b"P " + rest + b"\n", len(rest))
            self.written += len(text)

    def end(self, code: int = 0, *, gone: bool = False, **fields: Any) -> None:
        """The container ends, its logger too; with ``gone`` the replica as well."""
        self.site.now_ns += SECOND
        at = datetime.datetime.fromtimestamp(self.site.now_ns / SECOND, datetime.UTC)
        self.site.store.exited(self.replica_id, self.number, ExitStatus(code=code, finished_at=at, **fields))
        self.log.end()
        logger.os.close(self.log.fd)
        self.log.fd = -1
        if gone:
            del self.site.states.here[self.replica_id]
            self.site.store.ended(self.replica_id, self.site.now_ns)
        self.site.states.tell()


class Site:
    """Replicas of a workload "web", ids by ordinal: r0, r1, ..."""

    def __init__(self, folder: Path) -> None:
        self.now_ns = T0_NS
        self.store = LogStore(folder / "logs", folder / "bin")
        self.states = States()

    def about(self, replica_id: str) -> LogAbout:
        return LogAbout(replica_id, "default", "web", int(replica_id[1:]), "w1", 1)

    def source(self, replica_id: str) -> LogSource:
        gone = not self.states.exists(replica_id)
        return LogSource(replica_id, "default", "web", int(replica_id[1:]), "w1", 1, "n1", gone)

    def run(self, replica_id: str = "r0", number: int = 1, *, file_bytes: int = 10**7, files: int = 5) -> Run:
        return Run(self, replica_id, number, file_bytes, files)

    def gather(
        self,
        query: LogQuery,
        *,
        only_run: int | None = None,
        choose: Callable[[str], LogSource | None] | None = None,
    ) -> Gather:
        reading = Reading(
            self.store, self.states, query, LogFilter(query), lambda: self.now_ns, only_run=only_run
        )
        return Gather(
            reading, choose or self.source, lambda replica_id, run: f"cl-{replica_id}-{run}", endless=True
        )

    @asynccontextmanager
    async def stream(self, *replicas: str, only_run: int | None = None, **query: Any) -> AsyncIterator[Lines]:
        gather = self.gather(LogQuery(**query), only_run=only_run)
        async with contextlib.aclosing(gather.batches([self.source(one) for one in replicas])) as batches:
            yield Lines(batches)

    async def read(self, *replicas: str, **query: Any) -> Lines:
        """Everything, without following."""
        async with asyncio.timeout(DEADLINE_S), self.stream(*(replicas or ("r0",)), **query) as lines:
            await lines.rest()
        return lines


class Lines:
    """What came out of a stream so far."""

    def __init__(self, batches: Any) -> None:
        self._batches = batches
        self.batches: list[LogBatch] = []
        self.chunks: list[LogChunk] = []
        self.cursors: dict[str, str] = {}

    async def next(self) -> LogBatch:
        async with asyncio.timeout(DEADLINE_S):
            batch: LogBatch = await anext(self._batches)
        self.batches.append(batch)
        self.chunks += batch.chunks
        self.cursors.update({chunk.replica_id: chunk.cursor for chunk in batch.chunks if chunk.cursor})
        return batch

    async def until(self, fits: Callable[[Lines], bool]) -> Lines:
        while not fits(self):
            await self.next()
        return self

    async def rest(self) -> Lines:
        with contextlib.suppress(StopAsyncIteration):
            while True:
                await self.next()
        return self

    @property
    def records(self) -> list[LogRecord]:
        """Lines as they came; each batch in order of time."""
        found: list[LogRecord] = []
        for batch in self.batches:
            lines = [line for chunk in batch.chunks for line in chunk.lines.splitlines(keepends=True)]
            found += loglines.parse(b"".join(sorted(lines, key=lambda line: line[:30])))
        return found

    @property
    def texts(self) -> list[bytes]:
        return [record.data for record in self.records]

    @property
    def markers(self) -> list[LogMarker]:
        return [chunk.marker for chunk in self.chunks if chunk.marker is not None]

    @property
    def kinds(self) -> list[str]:
        """Markers, but for rotation."""
        return [one.kind.value for one in self.markers if one.kind is not MarkerKind.ROTATED]

    @property
    def accounted(self) -> int:
        """Delivered and missing bytes."""
        lines = sum(len(record.data) + (not record.partial) for record in self.records)
        return lines + sum(marker.gap_bytes for marker in self.markers)

    def resume(self) -> dict[str, SourceCursor]:
        return {name: SourceCursor.parse(text) for name, text in self.cursors.items()}


@pytest.fixture
async def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    made = Site(tmp_path)
    monkeypatch.setattr(logger.time, "time_ns", lambda: made.now_ns)
    yield made
    made.store.close()
