"""The logs of one node, as one source of a merged stream: read, buffered, resumed.

The node is read when the merging reader waits for it, and ahead of that as far as the
buffer's and the shared budget's bytes go; else HTTP/2's flow control stops it there. A
followed node that is away is told in its place, and read on from where it was when it is
back.
"""

from __future__ import annotations

import asyncio
import datetime
from collections import deque
from collections.abc import Callable

from grpclib.const import Cardinality

from cloudless import api
from cloudless.coordinator.limits import LOG_BUFFER_BYTES, LOG_RETRY_S
from cloudless.coordinator.services.context import Context
from cloudless.coordinator.services.logbudget import LogBudget
from cloudless.domain.errors import CloudlessError, Unavailable
from cloudless.transport.limits import LINK_COORDINATOR
from cloudless.wire.logs import resume_to_wire

ROUTE = "/cloudless.api.AgentService/ReadLogs"
#: What makes a narrow window of the link a wide one.
WIDER_BYTES = (LINK_COORDINATOR.wide_window_bytes or 0) - LINK_COORDINATOR.stream_window_bytes
K = api.LogMarkerKind
#: What a chunk takes besides its lines, at most.
_CHUNK_BYTES = 500


class NodeLogs:
    """One call of one node; ``run`` is its task, the rest is for the merging reader.

    ``holds`` says whether replicas that are meant are placed on the node now, ``budget`` is
    what all streams share.
    """

    def __init__(
        self,
        context: Context,
        node_id: str,
        request: api.ReadLogsRequest,
        wake: Callable[[], None],
        holds: Callable[[], bool],
        budget: LogBudget,
    ) -> None:
        node = context.cache.cluster.nodes.get(node_id)
        self.node_id = node_id
        self.node_name = node.name if node is not None else node_id
        self.request = request
        #: Every source it had at the beginning was declared: these are the chunks that did it.
        self.opened = False
        self.declared: list[api.LogChunk] = []
        #: The stream has begun without it: what it declares comes like everything else.
        self.late = False
        #: The history is over, and everything of it was taken.
        self.caught_up = False
        #: It cannot be reached now.
        self.away = False
        self.error: CloudlessError | None = None
        #: Sources by replica: where they stand, and those that have not ended.
        self.cursors: dict[str, str] = {}
        self.open_sources: set[str] = set()
        self._context = context
        self._wake = wake
        self._holds = holds
        self._budget = budget
        self._batches: deque[api.LogBatch] = deque()
        self._size_bytes = 0
        self._room = asyncio.Event()
        #: The merging reader waits for a batch.
        self._wanted = False
        #: Nothing more will come.
        self.over = False

    @property
    def buffered(self) -> bool:
        """Whether a batch can be taken."""
        return bool(self._batches)

    @property
    def finished(self) -> bool:
        """Nothing is left and nothing will come."""
        return self.over and not self._batches

    @property
    def may_send_history(self) -> bool:
        """Whether lines may still come that are as old as what others have."""
        return not (self.over or self.caught_up or self.away)

    @property
    def has_history(self) -> bool:
        """Whether such lines may still come, or wait to be taken."""
        return self.may_send_history or (self.buffered and not self.caught_up)

    def take(self) -> api.LogBatch:
        """The oldest batch."""
        batch = self._batches.popleft()
        self._account(-_size(batch))
        self._room.set()
        if batch.caught_up:
            self.caught_up = True
        return batch

    def want(self) -> None:
        """Read a batch, whether there is room to read ahead or not: somebody waits for it."""
        self._wanted = True
        self._room.set()

    def clear(self) -> None:
        """Forget what was not taken."""
        self._batches.clear()
        self._account(-self._size_bytes)
        self.declared = []

    def go_on_after(self, earlier: NodeLogs) -> None:
        """Resume where another call of the same node stopped."""
        self.opened, self.cursors = True, dict(earlier.cursors)

    async def run(self) -> None:
        """Read until the end; a broken connection is taken up again when following."""
        wide = self._budget.take(WIDER_BYTES)
        try:
            while not await self._read_or_fail(wide=wide):
                await self._context.clock.sleep(LOG_RETRY_S)
        finally:
            if wide:
                self._budget.give(WIDER_BYTES)
            self.over = True
            self._wake()

    async def _read_or_fail(self, *, wide: bool) -> bool:
        """Whether it is over, for good or ill."""
        try:
            await self._read(wide=wide)
        except Unavailable as error:
            over = not self.request.follow or self._is_obsolete()
            if not self.away:
                self.away = not over
                self._put(self._about_node(K.NODE_UNREACHABLE, error.message))
            if over:
                self.error = error
            return over
        except CloudlessError as error:
            self.error = error
        return True

    def _is_obsolete(self) -> bool:
        """Nothing more can come from a node that is away: what it held runs elsewhere, or nowhere."""
        cluster = self._context.cache.cluster
        there = any(replica_id in cluster.replicas for replica_id in self.open_sources)
        return not there and not self._holds()

    async def _read(self, *, wide: bool) -> None:
        channel = await self._context.nodes.bulk(self.node_id, self.node_name)
        request = self.request
        if self.opened:
            request.resume = resume_to_wire(self.cursors)
        # Not by a stub: its generators would keep the last batch while nobody wants the next one.
        async with channel.request(
            ROUTE, Cardinality.UNARY_STREAM, api.ReadLogsRequest, api.LogBatch
        ) as call:
            if not wide:
                call.be_narrow()
            await call.send_message(request, end=True)
            while (batch := await call.recv_message()) is not None:
                self._take_up(batch)
                del batch
                await self._readable()

    def _take_up(self, batch: api.LogBatch) -> None:
        """What came from the node."""
        if self.away:
            self.away = False
            self._put(self._about_node(K.NODE_BACK, ""))
        first = batch.opened and not self.opened
        if batch.opened:
            batch.opened, self.opened = False, True
            batch.chunks = [chunk for chunk in batch.chunks if chunk.replica_id not in self.cursors]
        self._note(batch)
        if first and not self.late:
            self.declared = batch.chunks
            self._wake()
        elif batch.chunks or batch.caught_up:
            self._put(batch)

    def _note(self, batch: api.LogBatch) -> None:
        """Remember where the sources stand."""
        for chunk in batch.chunks:
            if chunk.cursor:
                self.cursors[chunk.replica_id] = chunk.cursor
            if chunk.source is not None:
                self.open_sources.add(chunk.replica_id)
            if chunk.marker is not None and chunk.marker.kind == K.SOURCE_ENDED:
                self.open_sources.discard(chunk.replica_id)

    def _put(self, batch: api.LogBatch) -> None:
        self._batches.append(batch)
        self._account(_size(batch))
        self._wanted = False
        self._wake()

    async def _readable(self) -> None:
        """Wait until somebody wants the next batch, or there is room to read ahead."""
        while not (self._wanted or (self._size_bytes < LOG_BUFFER_BYTES and self._budget.has_room)):
            self._room.clear()
            await self._room.wait()

    def _account(self, change_bytes: int) -> None:
        self._size_bytes += change_bytes
        self._budget.hold(change_bytes)

    def _about_node(self, kind: api.LogMarkerKind, message: str) -> api.LogBatch:
        return node_marker(kind, self.node_name, self._context.clock.now(), message)


def node_marker(kind: api.LogMarkerKind, node: str, at: datetime.datetime, message: str = "") -> api.LogBatch:
    """A batch that tells of a node."""
    marker = api.LogMarker(kind=kind, at=at, node=node, message=message)
    return api.LogBatch(chunks=[api.LogChunk(marker=marker)])


def _size(batch: api.LogBatch) -> int:
    return sum(len(chunk.lines) + _CHUNK_BYTES for chunk in batch.chunks)
