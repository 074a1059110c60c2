"""A watch on etcd that outlives its connections.

``client`` hands these out. A child task reads the stream into a small buffer; when that
is full the stream is not read, and etcd's flow control holds the rest back. After a
lost connection it goes on after the last revision delivered; revisions seen before
are dropped, so each arrives once even where a server sends it twice.

Two precautions against etcd 3.4: the stream starts one revision early, because a delete at
exactly the compacted revision may be missing; and answers to progress requests are taken as
a sign of life only, because they can overtake events. Bookmarks come from the server's
own notices, which travel in line with the events.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from cloudless.aio.backoff import Backoff
from cloudless.aio.clock import Clock
from cloudless.aio.supervise import Supervisor
from cloudless.store.errors import AccessDenied, Compacted, Rewound, StoreError, Unavailable
from cloudless.store.etcd.codec import Codec
from cloudless.store.etcd.connection import Connection, Endpoint, sort_error
from cloudless.store.etcd.stubs import EOF, RpcError, UsageError, rpc
from cloudless.store.limits import (
    ATTEMPT_TIMEOUT_S,
    CALL_TIMEOUT_S,
    RECONNECT_BASE_S,
    RECONNECT_CAP_S,
    WATCH_BUFFER_BATCHES,
    WATCH_PROBE_S,
    WATCH_PROBE_TIMEOUT_S,
)
from cloudless.store.port import WatchBatch


class EtcdWatch:
    """An async iterator of batches; ``run`` fills it and belongs to a supervisor."""

    def __init__(self, connection: Connection, codec: Codec, clock: Clock, prefix: str, start: int) -> None:
        self._connection = connection
        self._codec = codec
        self._clock = clock
        self._prefix = prefix
        self._next = start
        self._seen = 0  # newest revision any answer of this watch carried
        self._cluster = 0
        self._backoff = Backoff(base_s=RECONNECT_BASE_S, cap_s=RECONNECT_CAP_S)
        self._buffer: deque[WatchBatch] = deque()
        self._readable = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._end: Exception | None = None

    def __aiter__(self) -> EtcdWatch:
        return self

    async def __anext__(self) -> WatchBatch:
        while not self._buffer:
            if self._end is not None:
                raise self._end
            self._readable.clear()
            await self._readable.wait()
        batch = self._buffer.popleft()
        if len(self._buffer) < WATCH_BUFFER_BATCHES:
            self._room.set()
        return batch

    def end(self, error: Exception) -> None:
        """Raise ``error`` once the buffer is read."""
        self._end = self._end or error
        self._readable.set()

    async def run(self) -> None:
        """Follow the store, stream after stream, until the place in history is gone."""
        try:
            while True:
                try:
                    await self._follow()
                except Unavailable:
                    await self._clock.sleep(self._backoff.next())
        except Exception as error:  # whatever it is, the consumer raises it
            self.end(error)

    async def _follow(self) -> None:
        endpoint = await self._connection.ready(self._clock.monotonic() + CALL_TIMEOUT_S)
        if self._seen:
            await self._check_not_rewound()
        stream = endpoint.watch.Watch(metadata=await self._connection.metadata(endpoint))
        try:
            async with Supervisor("watch-stream") as tasks:
                async with asyncio.timeout(ATTEMPT_TIMEOUT_S):
                    await stream.write(self._create_request())
                tasks.start("probe", self._probe(stream))
                await self._read(stream)
        except (RpcError, UsageError, TimeoutError, asyncio.InvalidStateError) as error:
            raise self._lost(endpoint, error) from error
        finally:
            stream.cancel()

    async def _read(self, stream: Any) -> None:
        events: list[Any] = []
        created = False
        while True:
            async with asyncio.timeout(WATCH_PROBE_S + WATCH_PROBE_TIMEOUT_S):
                answer = await stream.read()
            if answer is EOF:
                raise TimeoutError("the stream ended")
            if answer.canceled:
                if self._connection.log_in_forgotten(answer.cancel_reason):
                    raise Unavailable(f"etcd forgot our log-in: {answer.cancel_reason}")
                raise _cancelled(answer)
            if answer.created:
                created = True
                self._check_cluster(answer.header.cluster_id)
                self._backoff.reset()
            self._seen = max(self._seen, answer.header.revision)
            events += answer.events
            if answer.fragment:
                continue
            if events:
                for batch in self._codec.batches(events):
                    await self._deliver(batch)
                events = []
            elif created and not answer.created and answer.watch_id >= 0:
                await self._deliver(WatchBatch(answer.header.revision))

    async def _deliver(self, batch: WatchBatch) -> None:
        if batch.revision < self._next:
            return
        self._next = batch.revision + 1
        self._buffer.append(batch)
        self._readable.set()
        if len(self._buffer) >= WATCH_BUFFER_BATCHES:
            self._room.clear()
            await self._room.wait()

    async def _probe(self, stream: Any) -> None:
        """Ask for a sign of life; a stream that lost its server makes ``_read`` time out."""
        request = rpc.WatchRequest(progress_request=rpc.WatchProgressRequest())
        while True:
            await self._clock.sleep(WATCH_PROBE_S)
            try:
                await stream.write(request)
            except (RpcError, UsageError, asyncio.InvalidStateError):
                return  # the reader sees the same end

    async def _check_not_rewound(self) -> None:
        """A restored store is older than what we saw; a lagging member is not asked."""
        request = rpc.RangeRequest(key=self._codec.span(self._prefix)[0], limit=1, keys_only=True)
        answer = await self._connection.call(
            lambda endpoint, metadata, timeout_s: endpoint.kv.Range(
                request, metadata=metadata, timeout=timeout_s
            ),
            repeatable=True,
        )
        if answer.header.revision < self._seen:
            raise Rewound(self._seen, answer.header.revision)

    def _check_cluster(self, cluster: int) -> None:
        if self._cluster and cluster != self._cluster:
            raise Rewound(self._seen, 0)
        self._cluster = cluster

    def _create_request(self) -> Any:
        first, end = self._codec.span(self._prefix)
        create = rpc.WatchCreateRequest(
            key=first,
            range_end=end,
            start_revision=max(self._next - 1, 1),
            progress_notify=True,
            fragment=True,
        )
        return rpc.WatchRequest(create_request=create)

    def _lost(self, endpoint: Endpoint, error: Exception) -> StoreError:
        self._connection.rotate(endpoint)
        self._connection.forget_token()
        return sort_error(error)


def _cancelled(answer: Any) -> StoreError:
    if answer.compact_revision:
        return Compacted(answer.compact_revision)
    reason = answer.cancel_reason
    if "permission" in reason or "auth" in reason or answer.watch_id < 0:
        return AccessDenied(reason or "watch refused")
    return Unavailable(f"etcd ended the watch: {reason}")
