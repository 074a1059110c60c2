"""Many sources as one stream of batches: in order of time as long as it is history, then as it comes.

``streaming`` makes one for each call. It holds a share of ``GATHER_BYTES`` of each source
and reads no faster than batches are taken, so a slow reader costs that and nothing more.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import ExitStack, aclosing

from cloudless.agent.logs.limits import (
    BATCH_BYTES,
    GATHER_BYTES,
    MAX_BATCHES_AT_ONCE,
    MAX_SHARE_BYTES,
    MAX_SOURCES,
    MIN_SHARE_BYTES,
    TURNS_FOR_OTHERS,
)
from cloudless.agent.logs.piece import Piece, advance
from cloudless.agent.logs.source import Reading, SourceReader
from cloudless.domain.errors import Exhausted
from cloudless.domain.loglimit import ByteLimit
from cloudless.domain.logstream import LogBatch, LogChunk, LogSource, MarkerKind
from cloudless.planning.logorder import Span, cursor_within, window

#: What a chunk costs besides its lines.
_CHUNK_BYTES = 200
#: The source that an id belongs to, if it is wanted.
Choose = Callable[[str], LogSource | None]


class Gather:
    """``choose`` says of a replica that begins to run whether it belongs to the stream."""

    def __init__(
        self, reading: Reading, choose: Choose, container_id: Callable[[str, int], str], *, endless: bool
    ) -> None:
        self._reading = reading
        self._choose = choose
        self._container_id = container_id
        self._endless = endless
        self._sources: dict[str, SourceReader] = {}
        self._new: dict[str, LogSource] = {}
        #: Sources that may have something.
        self._ready: dict[str, None] = {}
        self._woken = asyncio.Event()
        self._limit = ByteLimit(reading.query.limit_bytes)

    async def batches(self, sources: Sequence[LogSource]) -> AsyncGenerator[LogBatch, None]:
        """Batches of these sources and those to come; close it with ``aclosing``.

        Raises ``Exhausted`` for too many sources, and ``OSError``.
        """
        query = self._reading.query
        with ExitStack() as stack:
            stack.callback(self._close)
            if query.follow:
                stack.enter_context(self._reading.store.listening(self._notice))
            resumed = query.resume is not None
            first = [await self._open(one, tail=not resumed) for one in sources]
            yield LogBatch([chunk for chunk in first if chunk is not None], opened=True)
            parts = [self._history, self._following] if query.follow else [self._history]
            for part in parts:
                async with aclosing(part()) as batches:
                    async for batch in batches:
                        yield batch
                        if self._limit.reached:
                            return

    def _close(self) -> None:
        """Let go of everything at once: chunks must not wait for the collector of cycles."""
        for source in self._sources.values():
            source.close()
        self._sources.clear()

    async def _open(self, one: LogSource, *, tail: bool) -> LogChunk | None:
        """Begin with a source; None when it is there already."""
        if one.replica_id in self._sources:
            return None
        if len(self._sources) >= MAX_SOURCES:
            raise Exhausted(
                f"the logs of more than {MAX_SOURCES} replicas of one node cannot be read at once",
                hint="name one replica, or leave out those that are gone",
            )
        source = SourceReader(self._reading, one, lambda: self._wake(one.replica_id))
        self._sources[one.replica_id] = source
        await source.open(tail_lines=self._reading.query.tail_lines if tail else None)
        for each in self._sources.values():
            each.chunk_bytes = self._share()
        return LogChunk(one.replica_id, cursor=str(source.cursor), source=one)

    def _share(self) -> int:
        return min(max(GATHER_BYTES // max(len(self._sources), 1), MIN_SHARE_BYTES), MAX_SHARE_BYTES)

    # -- history -----------------------------------------------------------------------

    async def _history(self) -> AsyncGenerator[LogBatch, None]:
        """What there was, in windows of time."""
        heads: dict[str, tuple[Piece, Span]] = {}
        waiting = dict.fromkeys(self._sources)
        while True:
            for name in tuple(waiting):
                piece = await self._sources[name].next()
                del waiting[name]
                if piece is not None:
                    heads[name] = (piece, Span(piece.data or piece.time + b"\n"))
            if not heads:
                return
            groups = [[span] for _, span in heads.values()]
            cuts = window(groups, BATCH_BYTES * min(len(groups), MAX_BATCHES_AT_ONCE))
            batch = LogBatch()
            for (name, (piece, span)), (cut,) in zip(tuple(heads.items()), cuts, strict=True):
                if cut > span.begin:
                    self._add(batch, name, piece, span.begin, cut)
                    span.begin = cut
                if not span.size:
                    del heads[name]
                    waiting[name] = None
                if self._limit.reached:
                    break
            del groups, piece, span  # a reader that pauses shall hold nothing
            yield batch
            await asyncio.sleep(0)  # a long log that is all in memory must not hold the loop

    def _add(self, batch: LogBatch, name: str, piece: Piece, begin: int, end: int) -> None:
        """Put a part of a piece into a batch."""
        chunk = LogChunk(name, self._container_id(name, piece.run), cursor=str(piece.after))
        batch.chunks.append(chunk)
        if piece.marker is not None:
            chunk.marker = piece.marker
            if piece.marker.kind is MarkerKind.SOURCE_ENDED:
                chunk.container_id = ""  # it is about the replica
            return
        line_filter = self._reading.line_filter
        if end < len(piece.data) and line_filter.has_patterns:
            chunk.cursor = str(cursor_within(piece.begin, Span(piece.data), end))
        elif end < len(piece.data):
            # The piece goes on behind it: its begin moves along, so that this costs no more than once.
            piece.begin = advance(piece.begin, piece.data[begin:end])
            chunk.cursor = str(piece.begin)
        whole = begin == 0 and end == len(piece.data)
        lines = piece.data if whole else piece.data[begin:end]
        if not (line_filter.is_open or line_filter.has_patterns):
            lines = line_filter.apply(lines)
        chunk.lines = self._limit.take(lines)
        if self._limit.reached:
            if chunk.lines is not lines:
                chunk.cursor = ""  # nobody can go on in the middle of a line
            batch.chunks.append(LogChunk("", marker=self._limit.marker(self._reading.now_ns())))

    # -- following ---------------------------------------------------------------------

    def _notice(self, replica_id: str) -> None:
        source = self._sources.get(replica_id)
        if source is not None:
            self._wake(replica_id)
            return
        chosen = self._choose(replica_id)
        if chosen is not None:
            self._new[replica_id] = chosen
            self._woken.set()

    def _wake(self, replica_id: str) -> None:
        self._ready[replica_id] = None
        self._woken.set()

    async def _following(self) -> AsyncGenerator[LogBatch, None]:
        """What comes, as it comes."""
        yield LogBatch(caught_up=True)
        for name, source in self._sources.items():
            if not source.ended:
                source.follow()
                self._ready[name] = None
        while True:
            self._woken.clear()
            batch, size = LogBatch(), 0
            await self._open_new(batch)
            for name in tuple(self._ready):
                del self._ready[name]
                piece = await self._sources[name].next()
                if piece is None:
                    continue
                self._ready[name] = None
                self._add(batch, name, piece, 0, len(piece.data))
                size += len(piece.data) + _CHUNK_BYTES
                del piece  # a reader that pauses shall hold nothing
                if size >= BATCH_BYTES or self._limit.reached:
                    yield batch
                    batch, size = LogBatch(), 0
            if batch.chunks:
                yield batch
            if self._ready:
                # Looking again takes longer than passing on: with a coordinator on the same
                # loop, what was just sent shall be on its way to the reader first.
                for _ in range(TURNS_FOR_OTHERS):
                    await asyncio.sleep(0)
            elif not self._new:
                if not self._endless and all(source.ended for source in self._sources.values()):
                    return
                if not await self._wait():
                    break
        batch = LogBatch()
        for name, source in self._sources.items():
            piece = source.finish()
            if piece is not None and not self._limit.reached:
                self._add(batch, name, piece, 0, len(piece.data))
        if batch.chunks:
            yield batch

    async def _open_new(self, batch: LogBatch) -> None:
        while self._new:
            _, one = self._new.popitem()
            chunk = await self._open(one, tail=False)
            if chunk is not None:
                batch.chunks.append(chunk)
                source = self._sources[one.replica_id]
                source.follow()
                self._ready[one.replica_id] = None

    async def _wait(self) -> bool:
        """Wait for anything to happen; False when the time that is asked for is over."""
        until_ns = self._reading.query.until_ns
        if until_ns is None:
            await self._woken.wait()
            return True
        left_s = (until_ns - self._reading.now_ns()) / 1e9
        try:
            async with asyncio.timeout(max(left_s, 0)):
                await self._woken.wait()
        except TimeoutError:
            return False
        return True
