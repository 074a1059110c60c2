"""StreamLogs: the logs of all replicas that are meant, wherever they run or ran, as one stream.

What there was is put in order of time; with follow, what comes is passed on as it comes,
and new replicas and nodes join in. Each node is read by a task of its own into a small
buffer, and nothing is taken out of it before the reader has room: a slow reader slows only
itself, and holds no more than the buffers do. Lines are never looked at, but where the
histories of several nodes have to be cut at the same time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from contextlib import aclosing, closing

from cloudless import api
from cloudless.aio.supervise import Supervisor
from cloudless.aio.turns import Turns
from cloudless.coordinator.limits import (
    LOG_BUDGET_BYTES,
    LOG_MESSAGES_PER_TURN,
    LOG_ROOM_BYTES,
    MAX_LOG_SOURCES,
    MAX_LOG_STREAMS,
    MAX_LOG_STREAMS_OF_CALLER,
    MAX_PATIENT_LOGS,
)
from cloudless.coordinator.services.context import Context
from cloudless.coordinator.services.logbudget import LogBudget
from cloudless.coordinator.services.logsource import NodeLogs, node_marker
from cloudless.coordinator.services.logtargets import Targets, find_targets
from cloudless.coordinator.services.logwindow import Head, cut_window
from cloudless.coordinator.services.quota import Quota, current_caller
from cloudless.coordinator.state.changes import Changes
from cloudless.domain.errors import Exhausted, Invalid, Unavailable
from cloudless.domain.logfilter import LogFilter
from cloudless.domain.loglimit import ByteLimit
from cloudless.domain.names import ordinal_of
from cloudless.transport.context import be_patient, room_to_send
from cloudless.wire.loglines import time_to_ns
from cloudless.wire.logs import marker_to_wire, query_from_wire

Batches = AsyncGenerator[api.LogBatch, None]


class LogStreams:
    """All calls of StreamLogs of one coordinator."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._quota = Quota("readers of logs", of_caller=MAX_LOG_STREAMS_OF_CALLER, in_all=MAX_LOG_STREAMS)
        self._budget = LogBudget(LOG_BUDGET_BYTES)
        self._turns = Turns(LOG_MESSAGES_PER_TURN)

    async def stream(self, request: api.StreamLogsRequest) -> Batches:
        """Batches of lines and markers; raises ``Invalid``, ``NotFound``, ``Exhausted``.

        Without follow, ``Unavailable`` comes at the end, when a node with current replicas is away.
        """
        with self._quota.slot(current_caller()):
            if self._quota.open <= MAX_PATIENT_LOGS:
                be_patient()  # somebody may read on in a while, in a pager
            async with aclosing(_stream(self._context, request, self._budget)) as batches:
                async for batch in batches:
                    await self._turns.take()
                    yield batch
                    batch.chunks = []  # it is sent: nobody on its way shall keep it meanwhile
                    await room_to_send(LOG_ROOM_BYTES)


async def _stream(context: Context, request: api.StreamLogsRequest, budget: LogBudget) -> Batches:
    query = query_from_wire(request)
    LogFilter(query)  # a bad pattern is refused, whether a node would read with it or not
    targets = find_targets(context, request)
    limit = ByteLimit(query.limit_bytes)
    async with Supervisor("logs") as tasks:
        merge = LogMerge(context, targets, request, tasks, budget)
        with (
            closing(merge),
            context.cache.subscribed(merge.notice),
            context.closing.waking(merge.wake),
        ):
            async with aclosing(merge.batches()) as batches:
                async for batch in batches:
                    if query.limit_bytes:
                        _apply(limit, batch, context)
                    yield batch
                    if limit.reached:
                        return


def _apply(limit: ByteLimit, batch: api.LogBatch, context: Context) -> None:
    """Cut what is over the limit."""
    for number, chunk in enumerate(batch.chunks):
        before, chunk.lines = chunk.lines, limit.take(chunk.lines)
        if chunk.lines is not before:
            chunk.cursor = ""  # nobody can go on in the middle of a line
        if limit.reached:
            marker = marker_to_wire(limit.marker(time_to_ns(context.clock.now())))
            batch.chunks[number + 1 :] = [api.LogChunk(marker=marker)]
            return


class LogMerge:
    """The nodes of one stream."""

    def __init__(
        self,
        context: Context,
        targets: Targets,
        request: api.StreamLogsRequest,
        tasks: Supervisor,
        budget: LogBudget,
    ) -> None:
        self._context = context
        self._targets = targets
        self._request = request
        self._tasks = tasks
        self._budget = budget
        #: Each with the workloads that it was asked for.
        self._nodes: list[tuple[NodeLogs, frozenset[str]]] = []
        #: Calls of nodes so far: each task has a name of its own.
        self._calls = 0
        self._silent: list[str] = []
        #: Replicas of which the reader has something, and wants the rest also when they are gone.
        resume = request.resume
        self._begun = {one.replica_id for one in resume.cursors} if resume is not None else set()
        self._woken = asyncio.Event()

    def notice(self, changes: Changes) -> None:
        """Look for new replicas (the cache calls it)."""
        if changes.workloads or changes.deleted:
            self._woken.set()

    def wake(self) -> None:
        """Look again (the coordinator stops)."""
        self._woken.set()

    def close(self) -> None:
        """Let go of everything at once: what nobody read must not wait for the collector of cycles."""
        for node, _ in self._nodes:
            node.clear()
        self._nodes.clear()

    async def batches(self) -> Batches:
        """The whole stream."""
        self._begin()
        yield await self._opening()
        now = self._context.clock.now()
        declared = {chunk.replica_id for node, _ in self._nodes for chunk in node.declared}
        untold = self._request.current_only and self._begun <= declared
        for name in () if untold else self._silent:
            told = "it may keep logs of replicas that are gone"
            yield node_marker(api.LogMarkerKind.NODE_UNREACHABLE, name, now, told)
        async with aclosing(self._history()) as history:
            async for batch in history:
                yield batch
        if not self._request.follow:
            self._raise_errors()
            return
        yield api.LogBatch(caught_up=True)
        async with aclosing(self._follow()) as following:
            async for batch in following:
                yield batch

    # -- nodes -------------------------------------------------------------------------

    def _begin(self) -> None:
        """Ask every node that has replicas that are meant, or may keep logs of those that are gone."""
        cluster, targets = self._context.cache.cluster, self._targets
        ids = targets.workloads(cluster)
        placed = {record.node_id for record in targets.replicas(cluster) if record.node_id}
        asked = set(placed)
        wants_gone = not self._request.current_only or not self._begun <= cluster.replicas.keys()
        if wants_gone and (targets.selector is None or ids):
            asked |= cluster.nodes.keys()
        for node_id in sorted(asked):
            if node_id not in placed and not self._context.nodes.is_linked(node_id):
                self._silent.append(cluster.nodes[node_id].name)
                continue
            self._start(node_id, ids, follow=self._request.follow and node_id in placed)

    def _start(
        self, node_id: str, ids: frozenset[str], *, follow: bool, earlier: NodeLogs | None = None
    ) -> None:
        request = self._targets.asked(self._request, ids, follow=follow)
        node = self._source(node_id, request, lambda: self._holds(node_id))
        if earlier is not None:
            node.go_on_after(earlier)
        self._nodes.append((node, ids))
        self._calls += 1
        self._tasks.start(f"{node_id}.{self._calls}", node.run())

    def _source(self, node_id: str, request: api.ReadLogsRequest, holds: Callable[[], bool]) -> NodeLogs:
        return NodeLogs(self._context, node_id, request, self._woken.set, holds, self._budget)

    def _holds(self, node_id: str) -> bool:
        placed = self._targets.replicas(self._context.cache.cluster)
        return any(record.node_id == node_id for record in placed)

    def _follow_new(self) -> None:
        """Follow on nodes that replicas were placed on meanwhile."""
        for record in self._targets.replicas(self._context.cache.cluster):
            if not record.node_id:
                continue
            calls = [pair for pair in self._nodes if pair[0].node_id == record.node_id]
            mine = [node for node, ids in calls if record.workload_id in ids]
            if any(node.request.follow and (not node.finished or self._is_through(node)) for node in mine):
                continue
            if any(not node.finished for node in mine):
                continue  # its history is read; look again when that is done
            earlier = mine[-1] if mine else self._source(record.node_id, api.ReadLogsRequest(), lambda: True)
            self._nodes = [pair for pair in self._nodes if pair[0] not in mine]
            self._start(record.node_id, frozenset({record.workload_id}), follow=True, earlier=earlier)

    def _is_through(self, node: NodeLogs) -> bool:
        """A node follows without end unless ``until`` has passed, by its own clock."""
        return self._request.until is not None and node.error is None

    def _raise_errors(self) -> None:
        for node, _ in self._nodes:
            if node.error is not None:
                raise node.error

    # -- the beginning -----------------------------------------------------------------

    async def _opening(self) -> api.LogBatch:
        """Wait until every node that answers has said which sources it has."""
        while True:
            self._woken.clear()
            self._context.closing.check()
            for node, _ in self._nodes:
                if node.error is not None and not isinstance(node.error, Unavailable):
                    raise node.error
            if all(node.opened or node.away or node.over for node, _ in self._nodes):
                break
            await self._wait_for([node for node, _ in self._nodes])
        for node, _ in self._nodes:
            node.late = not node.opened
        chunks = [chunk for node, _ in self._nodes for chunk in node.declared]
        self._check(chunks)
        return api.LogBatch(chunks=chunks, opened=True)

    def _check(self, chunks: list[api.LogChunk]) -> None:
        targets = self._targets
        if not chunks and targets.missing is not None:
            raise targets.missing
        if len(chunks) > MAX_LOG_SOURCES:
            raise Exhausted(
                f"the logs of more than {MAX_LOG_SOURCES} replicas cannot be read at once",
                hint="name one replica, or leave out those that are gone (current_only)",
            )
        whole = any(chunk.replica_id == targets.replica for chunk in chunks)
        if len(chunks) > 1 and targets.replica and ordinal_of(targets.replica) is None and not whole:
            found = ", ".join(sorted(chunk.replica_id for chunk in chunks)[:4])
            raise Invalid.field("replica", f"{targets.replica!r} is the beginning of several ids: {found}")

    async def _wait_for(self, nodes: Iterable[NodeLogs]) -> bool:
        """Wait for anything to happen, first of all for batches of these."""
        for node in nodes:
            node.want()
        return await self._woken.wait()

    # -- history -----------------------------------------------------------------------

    async def _history(self) -> Batches:
        """What there was, in order of time over all nodes."""
        heads: dict[NodeLogs, list[Head]] = {}
        bases = {chunk.replica_id: chunk.cursor for node, _ in self._nodes for chunk in node.declared}
        while True:
            self._woken.clear()
            self._context.closing.check()
            going = [node for node, _ in self._nodes if node.has_history]
            for node, _ in self._nodes:
                while node not in heads and node.buffered and not node.caught_up:
                    batch = node.take()
                    if not (heads or [other for other in going if other is not node]):
                        # Nobody else has anything: this is in order as it is.
                        if batch.chunks:
                            bases.update({one.replica_id: one.cursor for one in batch.chunks if one.cursor})
                            batch.caught_up = False
                            yield batch
                        continue
                    heads[node] = [Head(chunk) for chunk in batch.chunks]
                    if not heads[node]:
                        del heads[node]
            missing = [node for node in going if node not in heads and node.may_send_history]
            if missing:
                await self._wait_for(missing)
            elif heads:
                yield cut_window(heads, bases)
            elif not any(node.has_history for node in going):
                return

    # -- following ---------------------------------------------------------------------

    async def _follow(self) -> Batches:
        """What comes, until the workload is gone."""
        while True:
            self._woken.clear()
            for batch in self._taken():
                yield batch
            for node, _ in self._nodes:
                if node.error is not None and not isinstance(node.error, Unavailable):
                    raise node.error
            left_s = self._left_s()
            if left_s is None or left_s > 0:
                self._follow_new()
            self._context.closing.check()
            if self._is_over() or not await self._wait(left_s):
                return

    def _taken(self) -> Iterator[api.LogBatch]:
        waiting = True
        while waiting:
            waiting = False
            for node, _ in self._nodes:
                if node.buffered:
                    waiting = True
                    batch = node.take()
                    batch.caught_up = False
                    if batch.chunks:
                        yield batch

    def _is_over(self) -> bool:
        targets, cluster = self._targets, self._context.cache.cluster
        if any(node.buffered for node, _ in self._nodes) or targets.can_grow:
            return False
        there = bool(targets.workloads(cluster))
        if targets.replica and ordinal_of(targets.replica) is None:
            there = any(True for _ in targets.replicas(cluster))
        return not there and all(node.finished or not node.open_sources for node, _ in self._nodes)

    def _left_s(self) -> float | None:
        """Seconds until the time that is asked for is over; None when it never is."""
        until = self._request.until
        return None if until is None else (until - self._context.clock.now()).total_seconds()

    async def _wait(self, left_s: float | None) -> bool:
        """Wait for anything to happen; False when the time that is asked for is over."""
        nodes = [node for node, _ in self._nodes]
        if left_s is not None and left_s <= 0:
            # What was written in time may be on its way; a node that is away was told, and not waited for.
            going = any(not (node.finished or node.away) for node, _ in self._nodes)
            return going and await self._wait_for(nodes)
        try:
            async with asyncio.timeout(left_s):
                return await self._wait_for(nodes)
        except TimeoutError:
            return True
