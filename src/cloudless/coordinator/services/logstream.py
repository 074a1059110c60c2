"""StreamLogs: the logs of all replicas of a workload, those to come included, as one stream.

Without follow the lines of all replicas are put in order of time; with follow they come
as they are written, and a new replica joins in. Each replica is read by a task of its own
into a small buffer: a slow reader slows only itself, and a node that is away is read on
from where it was when it is back.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from cloudless import api
from cloudless.aio.supervise import Supervisor
from cloudless.coordinator.limits import MAX_LOG_SOURCES
from cloudless.coordinator.services.context import Context
from cloudless.coordinator.services.logsource import LogSource
from cloudless.coordinator.services.lookup import find_replicas, find_workload
from cloudless.coordinator.state.changes import Changes
from cloudless.domain.errors import Exhausted, Invalid, NotFound
from cloudless.domain.workload import WorkloadRecord


async def stream_logs(context: Context, request: api.StreamLogsRequest) -> AsyncGenerator[api.LogEntry, None]:
    """Log lines of a workload; raises ``NotFound``, ``Unavailable`` for a node that is away."""
    if request.container_id:
        raise Invalid.field("container_id", "is for a node's own address; here, name the workload")
    if request.tail_lines is not None and request.tail_lines < 0:
        raise Invalid.field("tail_lines", "must not be negative")
    workload = find_workload(context.cache.cluster, request.namespace, request.name)
    find_replicas(context.cache.cluster, workload, request.replica)
    async with Supervisor("logs") as tasks:
        merge = LogMerge(context, workload, request, tasks)
        with context.cache.subscribed(merge.notice), context.closing.waking(merge.wake):
            entries = merge.follow() if request.follow else merge.read()
            async with aclosing(entries):
                async for entry in entries:
                    yield entry


class LogMerge:
    """The sources of one stream."""

    def __init__(
        self,
        context: Context,
        workload: WorkloadRecord,
        request: api.StreamLogsRequest,
        tasks: Supervisor,
    ) -> None:
        self._context = context
        self._workload = workload
        self._request = request
        self._tasks = tasks
        self._sources: dict[str, LogSource] = {}
        self._woken = asyncio.Event()

    def notice(self, changes: Changes) -> None:
        """Look for new replicas (the cache calls it)."""
        if self._workload.id in changes.workloads:
            self._woken.set()

    def wake(self) -> None:
        """Look again (the coordinator stops)."""
        self._woken.set()

    async def read(self) -> AsyncGenerator[api.LogEntry, None]:
        """Everything there is, in order of time."""
        self._open_new(first=True)
        waiting = list(self._sources.values())
        while waiting:
            self._woken.clear()
            waiting = [source for source in waiting if not source.finished]
            if not all(source.buffered for source in waiting):
                await self._woken.wait()
            elif waiting:
                yield min(waiting, key=LogSource.next_at).take()
        for source in self._sources.values():
            if source.error is not None:
                raise source.error

    async def follow(self) -> AsyncGenerator[api.LogEntry, None]:
        """Lines as they come, until the workload is gone."""
        self._open_new(first=True)
        while True:
            self._woken.clear()
            ready = [source for source in self._sources.values() if source.buffered]
            while ready:
                yield min(ready, key=LogSource.next_at).take()
                ready = [source for source in ready if source.buffered]
            self._open_new(first=False)
            self._context.closing.check()
            there = self._workload.id in self._context.cache.cluster.workloads
            if not there and all(source.finished for source in self._sources.values()):
                return
            if not self._woken.is_set():
                await self._woken.wait()

    def _open_new(self, *, first: bool) -> None:
        """Begin to read replicas that are placed and not read yet."""
        cluster = self._context.cache.cluster
        try:
            records = find_replicas(cluster, self._workload, self._request.replica)
        except NotFound:
            return  # the replica that was asked for is gone
        for record in records:
            if not record.node_id or record.id in self._sources:
                continue
            if len(self._sources) >= MAX_LOG_SOURCES:
                raise Exhausted(
                    f"the logs of more than {MAX_LOG_SOURCES} replicas cannot be read at once",
                    hint="name one replica",
                )
            source = LogSource(self._context, record, self._request, self._woken.set, first=first)
            self._sources[record.id] = source
            self._tasks.start(record.id, source.run())
