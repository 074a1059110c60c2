"""The logs of a scripted node: what ``ReadLogs`` answers, from lists of lines and their times."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from cloudless import api
from cloudless.domain import loglines
from cloudless.domain.logrecord import LogCursor, SourceCursor
from cloudless.wire.loglines import time_to_ns

T0 = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


@dataclass
class FakeSource:
    """Lines of one replica, (seconds after T0, text) in order; ``ended`` when no more will come."""

    workload_id: str
    name: str = "web"
    namespace: str = "default"
    ordinal: int = 0
    lines: list[tuple[float, bytes]] = field(default_factory=list)
    gone: bool = False
    ended: bool = False

    def wanted(self, replica_id: str, request: api.ReadLogsRequest) -> bool:
        by_id = self.workload_id in request.workload_ids
        by_name = (self.namespace, self.name) == (request.namespace, request.name)
        one = request.replica in ("", str(self.ordinal)) or replica_id.startswith(request.replica)
        begun = replica_id in {cursor.replica_id for cursor in _cursors(request)}
        return (by_id or by_name) and one and (begun or not (self.gone and request.current_only))


class FakeLogs:
    """``sources`` by replica id; ``step`` lines make one batch. Call ``changed`` after changing them."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.sources: dict[str, FakeSource] = {}
        self.requests: list[api.ReadLogsRequest] = []
        self.step = 2
        #: Lines that were sent.
        self.given = 0
        #: By this node's clock, the time that was asked for is over.
        self.until_passed = False
        self._events: list[asyncio.Event] = []

    def changed(self) -> None:
        for event in self._events:
            event.set()

    async def read(self, request: api.ReadLogsRequest) -> AsyncIterator[api.LogBatch]:
        self.requests.append(request)
        at = {one.replica_id: SourceCursor.parse(one.cursor) for one in _cursors(request)}
        known: dict[str, int] = {}
        chunks = []
        for replica_id in self._wanted(request):
            known[replica_id] = self._begin(replica_id, at.get(replica_id))
            chunks.append(self._declared(replica_id, known[replica_id]))
        yield api.LogBatch(opened=True, chunks=chunks)
        changed, caught_up = asyncio.Event(), False
        self._events.append(changed)
        while True:
            changed.clear()
            for replica_id in self._wanted(request):
                if replica_id not in known:
                    known[replica_id] = 0
                    yield api.LogBatch(chunks=[self._declared(replica_id, 0)])
            for batch in self._rest(known):
                yield batch
            if not request.follow or self.until_passed:
                return
            if not caught_up:
                caught_up = True
                yield api.LogBatch(caught_up=True)
            await changed.wait()

    def _wanted(self, request: api.ReadLogsRequest) -> list[str]:
        return [name for name, source in self.sources.items() if source.wanted(name, request)]

    def _begin(self, replica_id: str, at: SourceCursor | None) -> int:
        if at is None:
            return 0
        rest = [_text(one) for one in self.sources[replica_id].lines[at.at.offset :]]
        older = sum(line[:30] < at.before for line in rest)
        return at.at.offset + older + at.passed

    def _declared(self, replica_id: str, position: int) -> api.LogChunk:
        one = self.sources[replica_id]
        source = api.LogSource(
            namespace=one.namespace,
            name=one.name,
            ordinal=one.ordinal,
            workload_id=one.workload_id,
            node=self.name,
            gone=one.gone,
        )
        return api.LogChunk(replica_id=replica_id, cursor=_cursor(position), source=source)

    def _rest(self, known: dict[str, int]) -> list[api.LogBatch]:
        """Batches of what is new, in order of time."""
        waiting = []
        for replica_id, position in known.items():
            for number, line in enumerate(self.sources[replica_id].lines[position:], position):
                waiting.append((line[0], replica_id, number))
            known[replica_id] = max(position, len(self.sources[replica_id].lines))
        waiting.sort()
        batches = []
        for begin in range(0, len(waiting), self.step):
            chunks: dict[str, api.LogChunk] = {}
            for _, replica_id, number in waiting[begin : begin + self.step]:
                chunk = chunks.setdefault(
                    replica_id, api.LogChunk(replica_id=replica_id, container_id=f"cl-{replica_id}-1")
                )
                chunk.lines += _text(self.sources[replica_id].lines[number])
                chunk.cursor = _cursor(number + 1)
                self.given += 1
            batches.append(api.LogBatch(chunks=list(chunks.values())))
        for replica_id in known:
            if self.sources[replica_id].ended:
                self.sources[replica_id].ended = False
                marker = api.LogMarker(kind=api.LogMarkerKind.SOURCE_ENDED, at=T0)
                batches.append(api.LogBatch(chunks=[api.LogChunk(replica_id=replica_id, marker=marker)]))
        return batches


def _cursors(request: api.ReadLogsRequest) -> list[api.LogCursor]:
    return request.resume.cursors if request.resume is not None else []


def _cursor(position: int) -> str:
    return str(SourceCursor(1, LogCursor(1, position, 0)))


def _text(line: tuple[float, bytes]) -> bytes:
    at = T0 + datetime.timedelta(seconds=line[0])
    return loglines.time_text(time_to_ns(at)) + b" stdout F " + line[1] + b"\n"
