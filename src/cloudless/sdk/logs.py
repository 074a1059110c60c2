"""``LogStream``: what replicas write, as one stream that goes on over lost connections.

``Client.logs`` and ``Workload.logs`` make it. Each source has a cursor; after a gap the
stream is asked for again with all of them, so that nothing is lost and nothing comes
twice. The one owner of retries for logs.
"""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from types import AsyncGeneratorType, TracebackType
from typing import Any, Literal, Self, TypedDict, TypeVar, cast

from cloudless import api
from cloudless.domain.errors import CloudlessError, DeadlineExceeded, Invalid, Unavailable
from cloudless.domain.loglines import written_bytes
from cloudless.sdk.calling import Caller, retry_delay_s
from cloudless.sdk.limits import LOG_LEAVE_S, LOG_NODE_PATIENCE_S, LOG_OUTAGE_S, MAX_LOG_COUNT
from cloudless.sdk.logbatch import LogBatch, LogChunk, Part, PieceJoiner, in_order
from cloudless.sdk.logentry import LogLine, LogMarker, LogOrigin, LogSource, marker_of, new_lines

_T = TypeVar("_T")

#: Told when the connection is lost (why) and when the stream goes on (None).
OnConnection = Callable[[CloudlessError | None], None]


class LogOptions(TypedDict, total=False):
    """What ``logs`` of a client and of a workload take, all of it optional."""

    #: One replica only: its ordinal, or a unique prefix of its id.
    replica: str
    #: Go on with what is written from now on, by replicas and restarts to come too.
    follow: bool
    #: Newest lines of each source to begin with; all when None.
    tail: int | None
    #: Lines at or after, and at or before, this time.
    since: datetime.datetime | None
    until: datetime.datetime | None
    #: Only runs before the present (or last) one of each replica; not with ``follow``.
    previous: bool
    stream: Literal["", "stdout", "stderr"]
    #: Regular expressions (RE2): lines that any of them is found in, and that none is found in.
    include: str | Sequence[str]
    exclude: str | Sequence[str]
    #: End after this many bytes of lines, line feeds included.
    limit_bytes: int
    #: Leave out replicas that are gone. By default so when following or with ``tail``.
    current_only: bool | None
    #: ``LogStream.cursors`` of an earlier stream with the same options: go on after it.
    resume: Mapping[str, str] | None
    on_connection: OnConnection | None


def logs_request(namespace: str, name: str, selector: str, options: LogOptions) -> api.StreamLogsRequest:
    """The message that asks for ``options``; raises ``Invalid``, ``TypeError`` for options that are none."""
    unknown = set(options) - set(LogOptions.__annotations__)
    if unknown:
        raise TypeError(f"logs() has no option {', '.join(sorted(unknown))}")
    if bool(name) == bool(selector):
        raise Invalid.field("name", "give either the name of a workload or a selector of labels")
    follow, tail, current = options.get("follow", False), options.get("tail"), options.get("current_only")
    resume = options.get("resume")
    for field, count in (("tail", tail), ("limit_bytes", options.get("limit_bytes", 0))):
        if count is not None and not 0 <= count <= MAX_LOG_COUNT:
            raise Invalid.field(field, f"must be from 0 to {MAX_LOG_COUNT}")
    return api.StreamLogsRequest(
        namespace=namespace,
        name=name,
        label_selector=selector,
        replica=options.get("replica", ""),
        follow=follow,
        tail_lines=tail,
        since=options.get("since"),
        until=options.get("until"),
        previous=options.get("previous", False),
        stream=options.get("stream", ""),
        include=_patterns(options.get("include", ())),
        exclude=_patterns(options.get("exclude", ())),
        limit_bytes=options.get("limit_bytes", 0),
        current_only=follow or tail is not None if current is None else current,
        resume=_resume(resume) if resume is not None else None,
    )


class LogStream:
    """``async with`` it, then ``async for line in`` it; leaving the block ends the call.

    Another task that still reads then comes to an ordinary end of its loop.

    Read it in one way: line by line, with markers among the lines (``entries``), or as
    batches (``batches``). Raises ``CloudlessError``: ``NotFound``, ``Invalid``, and ``Unavailable``
    when the coordinator stays away, or a node that a finished stream needs.
    """

    def __init__(
        self,
        caller: Caller,
        request: api.StreamLogsRequest,
        on_connection: OnConnection | None = None,
    ) -> None:
        self._caller = caller
        self._request = request
        self._on_connection = on_connection
        self._resumable = request.resume is not None
        self._positions: dict[str, str] = {}
        if request.resume is not None:
            self._positions = {one.replica_id: one.cursor for one in request.resume.cursors}
        self._cursors = dict(self._positions)
        self._sources: dict[str, LogSource] = {}
        self._joiner = PieceJoiner()
        self._received_bytes = 0
        #: What was told of once and need not be told again after a gap.
        self._ended: set[str] = set()
        self._away: set[str] = set()
        self._lost: Unavailable | None = None
        self._give_up_s = 0.0
        self._reader: AsyncGeneratorType[Any, None] | None = None
        self._way = ""
        self._entered = False
        #: The block was left while another task was reading: its wait, and told when it has ended.
        self._left = False
        self._waiting: asyncio.Timeout | None = None
        self._ended_reading = asyncio.Event()
        #: Bytes that are missing, the sum of all gaps so far.
        self.lost_bytes = 0

    @property
    def sources(self) -> tuple[LogSource, ...]:
        """The replicas that are in the stream so far."""
        return tuple(self._sources.values())

    @property
    def cursors(self) -> dict[str, str]:
        """Where the stream stands: after the last batch whose lines were all taken.

        Opaque texts by replica id, for ``resume`` of a later stream with the same options.
        """
        return dict(self._cursors)

    async def __aenter__(self) -> Self:
        self._entered = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._reader is None:
            return
        if self._reader.ag_running:  # another task waits in it, and only that task can end it
            self._left = True
            if self._waiting is not None:
                self._waiting.reschedule(asyncio.get_running_loop().time())
            async with asyncio.timeout(LOG_LEAVE_S):
                await self._ended_reading.wait()
        await self._reader.aclose()

    def __aiter__(self) -> AsyncIterator[LogLine]:
        return cast(AsyncIterator[LogLine], self._read("lines", lambda: self._entries(markers=False)))

    async def __anext__(self) -> LogLine:
        return await anext(self.__aiter__())

    def entries(self) -> AsyncIterator[LogLine | LogMarker]:
        """Lines, and markers in their places among them."""
        return self._read("entries", lambda: self._entries(markers=True))

    def batches(self) -> AsyncIterator[LogBatch]:
        """Lines as they arrive, thousands at once and not yet taken apart."""
        return self._read("batches", self._batches)

    def _read(self, way: str, reader: Callable[[], AsyncGenerator[Any, None]]) -> AsyncIterator[Any]:
        """The one reader; a loop that was left may be entered again."""
        if not self._entered:
            raise RuntimeError("use 'async with client.logs(...) as lines'")
        if self._reader is None:
            self._way, self._reader = way, cast("AsyncGeneratorType[Any, None]", reader())
        elif self._way != way:
            raise RuntimeError(f"these logs are read as {self._way} already")
        return self._reader

    async def _entries(self, *, markers: bool) -> AsyncGenerator[LogLine | LogMarker, None]:
        async with aclosing(self._batches()) as batches:
            async for batch in batches:
                for entry in self._joined(batch, markers=markers):
                    yield entry
        for line in [] if self._left else self._joiner.flush():
            yield line

    def _joined(self, batch: LogBatch, *, markers: bool) -> list[LogLine | LogMarker]:
        """The lines of a batch in order, long ones put together, and the markers if wanted."""
        parts: list[Part[LogLine | LogMarker]] = []
        for chunk in batch.chunks:
            if chunk.marker is None:
                raws = self._joiner.join(chunk)
                parts.append(Part(chunk.source_id, raws, new_lines(chunk.origin, raws)))
                continue
            broken_off = self._joiner.cut(chunk.marker)
            parts.append(Part(chunk.source_id, [line.raw for line in broken_off], broken_off))
            if markers:
                parts.append(Part(chunk.source_id, [chunk.marker.place], [chunk.marker]))
        return in_order(parts)

    # The connection.

    async def _messages(self) -> AsyncGenerator[api.LogBatch, None]:
        """One call; its first message, which comes whether there are logs or not, has a deadline."""
        with self._caller.streams.lease() as channel:
            stub = api.CoordinatorServiceStub(channel)
            async with aclosing(stub.stream_logs(self._request)) as messages:  # type: ignore[type-var]
                try:
                    async with self._caller.beginning("no answer about logs"):
                        first = await anext(messages, None)
                except DeadlineExceeded as error:
                    if self._resumable:  # a coordinator that hangs is away like any other
                        raise Unavailable(error.message) from None
                    raise
                if first is not None:
                    yield first
                    async for message in messages:
                        yield message

    async def _unless_left(self, what: Awaitable[_T]) -> _T | None:
        """What is waited for; None once the block is left.

        A timeout that ``__aexit__`` sets off, as it tells its own cancelling from one that
        the reading task is to see.
        """
        try:
            async with asyncio.timeout(None) as self._waiting:
                got = await what
        except TimeoutError:
            if not self._left:
                raise
        finally:
            self._waiting = None
        return None if self._left else got

    async def _batches(self) -> AsyncGenerator[LogBatch, None]:
        try:
            async with aclosing(self._connections()) as batches:
                async for batch in batches:
                    yield batch
        finally:
            self._ended_reading.set()

    async def _connections(self) -> AsyncGenerator[LogBatch, None]:
        """Batches of one call after another, over gaps."""
        loop = asyncio.get_running_loop()
        backoff, self._give_up_s = self._caller.backoff(), loop.time() + self._caller.patience_s
        while True:
            try:
                async with aclosing(self._messages()) as messages:
                    while (message := await self._unless_left(anext(messages, None))) is not None:
                        batch = self._batch(message)
                        if batch.chunks or self._request.follow:  # an answer alone reads nothing to its end
                            backoff.reset()
                            self._went_on()
                        if batch.chunks or batch.caught_up:
                            yield batch
                        self._advance(message)
                return
            except Unavailable as error:
                if self._left:
                    return
                delay_s = retry_delay_s(error, backoff)
                if self._lost is None and self._resumable:
                    self._give_up_s = loop.time() + self._outage_s()
                if loop.time() + delay_s >= self._give_up_s:
                    raise
                self._interrupted(error)
            await self._unless_left(asyncio.sleep(delay_s))
            if self._left or not self._ask_again():
                return

    def _outage_s(self) -> float:
        """How long a gap may last."""
        if self._request.follow:
            return max(LOG_OUTAGE_S, self._caller.patience_s)
        return LOG_NODE_PATIENCE_S if self._away else self._caller.patience_s

    def _interrupted(self, error: Unavailable) -> None:
        if self._lost is None and self._resumable and self._on_connection is not None:
            self._on_connection(error)
        self._lost = error

    def _went_on(self) -> None:
        if self._lost is not None and self._resumable and self._on_connection is not None:
            self._on_connection(None)
        self._lost = None

    def _ask_again(self) -> bool:
        """Make the request go on where the stream broke; False when nothing is left to ask for."""
        if not self._resumable:
            return True  # nothing has come: the same once more
        self._request.resume = _resume(self._positions)
        if self._request.limit_bytes:
            self._request.limit_bytes -= self._received_bytes
            self._received_bytes = 0
            return self._request.limit_bytes > 0
        return True

    # What came.

    def _batch(self, message: api.LogBatch) -> LogBatch:
        chunks = []
        for one in message.chunks:
            if one.source is not None:
                self._sources[one.replica_id] = LogSource.of(one.replica_id, one.source)
            if one.marker is None and not one.lines:
                continue
            origin = LogOrigin(self._source(one.replica_id), one.container_id)
            if one.marker is None:
                chunks.append(LogChunk(origin, one.lines))
                continue
            marker = marker_of(one.marker, origin.source, one.container_id)
            self.lost_bytes += marker.gap_bytes
            if self._is_new(marker):
                chunks.append(LogChunk(origin, marker=marker))
        return LogBatch(chunks, message.caught_up)

    def _source(self, replica_id: str) -> LogSource:
        return self._sources.get(replica_id) or LogSource(replica_id)

    def _is_new(self, marker: LogMarker) -> bool:
        """False for what a stream says again because it was asked again."""
        if marker.kind == "NODE_BACK":
            self._away.discard(marker.node)
        before = {"SOURCE_ENDED": self._ended, "NODE_UNREACHABLE": self._away}.get(marker.kind)
        if before is None:
            return True
        what = marker.node if before is self._away else marker.source.replica_id
        is_new = what not in before
        before.add(what)
        return is_new

    def _advance(self, message: api.LogBatch) -> None:
        """All of the message was taken."""
        self._resumable = self._resumable or message.opened
        for chunk in message.chunks:
            if chunk.cursor and chunk.replica_id:
                self._positions[chunk.replica_id] = chunk.cursor
                if self._way == "batches" or not self._joiner.waits(chunk.replica_id):
                    self._cursors[chunk.replica_id] = chunk.cursor
        if self._request.limit_bytes:
            self._received_bytes += sum(written_bytes(chunk.lines) for chunk in message.chunks)


def _resume(cursors: Mapping[str, str]) -> api.LogResume:
    return api.LogResume(
        cursors=[api.LogCursor(replica_id=name, cursor=cursor) for name, cursor in cursors.items()]
    )


def _patterns(given: str | Sequence[str]) -> list[str]:
    return [given] if isinstance(given, str) else list(given)
