"""Reads one log: from where, which lines, up to its end or for as long as it grows.

The reader holds a position and no open file: however slow whoever takes the batches is,
it costs neither memory nor disk. What was rotated away meanwhile is told as a gap. Used by
``store.LogStore.read``; it never decides whose log may be read.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path

from cloudless.agent.logs import files, lines
from cloudless.agent.logs.limits import CHUNK_BYTES
from cloudless.agent.logs.record import LogBatch, LogCursor
from cloudless.agent.logs.watch import LogWatcher

BOTH = frozenset({"stdout", "stderr"})


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """Which part of a log. ``cursor`` wins over ``tail_lines`` and ``since_ns``; these go together."""

    follow: bool = False
    tail_lines: int | None = None
    since_ns: int | None = None
    until_ns: int | None = None
    streams: frozenset[str] = BOTH
    cursor: LogCursor | None = None


async def read_log(
    directory: Path,
    options: ReadOptions,
    watcher: LogWatcher,
    finished: asyncio.Future[None] | None = None,
) -> AsyncGenerator[LogBatch, None]:
    """Batches of the log in ``directory``; close it with ``contextlib.aclosing``.

    Without following, what is there now is read, however fast more comes. Following ends when
    the logger or ``finished`` said that no more will come and all is read. A batch without
    lines carries only a gap. Read from the begin, what was rotated away before is a gap as
    well: delivered and missing bytes are together what the container wrote.
    """
    stop = None if options.follow else files.find_end(directory)
    place = _Place(directory, await asyncio.to_thread(_begin, directory, options, stop), stop)
    until = None if options.until_ns is None else lines.time_text(options.until_ns + 1)
    notice: asyncio.Future[None] | None = None
    try:
        while True:
            await asyncio.sleep(0)  # a long log that is all in memory must not hold the loop
            ended = files.has_ended(directory) or (finished is not None and finished.done())
            batch = await place.read(at_end=ended)
            if batch is not None:
                over = until is not None and bool(batch.data) and lines.last_time(batch.data) >= until
                data = batch.data[: lines.find_time(batch.data, until)] if over and until else batch.data
                wanted = lines.only(data, options.streams)
                if wanted or batch.gap_bytes:
                    yield LogBatch(wanted, batch.cursor, batch.gap_bytes)
                if over:
                    return
            elif ended or not options.follow or not files.exists(directory):
                return
            elif notice is None:
                notice = watcher.arm(directory)  # and look once more before waiting
            else:
                await _either(notice, finished)
                notice = None
    finally:
        if notice is not None:
            notice.cancel()


async def _either(notice: asyncio.Future[None], finished: asyncio.Future[None] | None) -> None:
    """Wait until one of the two is done."""

    def wake(_: object) -> None:
        if not notice.done():
            notice.set_result(None)

    if finished is not None:
        finished.add_done_callback(wake)
    try:
        await notice
    finally:
        if finished is not None:
            finished.remove_done_callback(wake)


def _begin(directory: Path, options: ReadOptions, stop: files.End | None) -> LogCursor | None:
    if options.cursor is not None:
        return options.cursor
    found: list[LogCursor | None] = []
    try:
        if options.since_ns is not None:
            found.append(files.find_since(directory, lines.time_text(options.since_ns)))
        if options.tail_lines is not None:
            found.append(files.find_tail(directory, options.tail_lines, options.streams, stop))
    except FileNotFoundError:
        return _begin(directory, options, stop)  # rotated away while we looked: look again
    return max((cursor for cursor in found if cursor is not None), default=None)


class _Place:
    """Where a reader stands in the files of a log."""

    def __init__(self, directory: Path, cursor: LogCursor | None, stop: files.End | None) -> None:
        self._directory = directory
        self._cursor = cursor
        self._stop = stop
        self._path: str | None = None

    async def read(self, *, at_end: bool) -> LogBatch | None:
        """The next lines, or None when there are none (yet).

        ``at_end``: nothing more will be written, so a line without its line feed is all there is.
        """
        gap_bytes = 0
        while True:
            if self._path is None:
                lost = self._enter()
                if lost is None:
                    return None
                gap_bytes += lost
            assert self._path is not None
            assert self._cursor is not None
            try:
                chunk, rest = await self._chunk(self._path, self._cursor.offset)
            except FileNotFoundError:
                self._path = None
                continue
            if chunk:
                return self._batch(chunk, gap_bytes)
            # Newer files first, then this one again: it may have grown before it was rotated.
            newer = [one for one in files.segments(self._directory) if self._follows(one)]
            if newer:
                chunk, rest = await self._chunk(self._path, self._cursor.offset, missing_ok=True)
                if chunk:
                    return self._batch(chunk, gap_bytes)
            if (newer or at_end) and len(rest) > lines.HEAD_BYTES:
                return self._torn(rest, gap_bytes)
            if newer:
                gap_bytes += max(newer[0].start - self._cursor.position, 0)
                self._path, self._cursor = newer[0].path, files.start_of(newer[0])
                continue
            return LogBatch(b"", self._cursor, gap_bytes) if gap_bytes else None

    def _follows(self, segment: files.Segment) -> bool:
        """Whether a file is to be read after the present one."""
        assert self._cursor is not None
        last = segment.sequence if self._stop is None else self._stop.sequence
        return self._cursor.sequence < segment.sequence <= last

    def _readable(self, size: int) -> int:
        """How much of the present file counts."""
        assert self._cursor is not None
        if self._stop is None or self._cursor.sequence < self._stop.sequence:
            return size
        return min(size, self._stop.size_bytes) if self._cursor.sequence == self._stop.sequence else 0

    def _enter(self) -> int | None:
        """Find the file of the cursor, or the oldest after it; how many bytes are missing between."""
        known = files.segments(self._directory)
        if not known:
            return None
        if self._cursor is None:
            self._path, self._cursor = known[0].path, files.start_of(known[0])
            return known[0].start
        at = self._cursor
        later = [segment for segment in known if segment.sequence >= at.sequence]
        if not later:
            return None
        if later[0].sequence == at.sequence:
            self._path = later[0].path
            return 0
        self._path, self._cursor = later[0].path, files.start_of(later[0])
        return max(later[0].start - at.position, 0)

    def _batch(self, chunk: bytes, gap_bytes: int) -> LogBatch:
        """Step over ``chunk``, or over its part before or at the first line that tells of a loss."""
        loss = lines.first_loss(chunk)
        if loss is not None:
            begin, end, lost = loss
            chunk = chunk[: begin or end]
            if not begin:
                self._step(chunk)
                assert self._cursor is not None
                return LogBatch(b"", self._cursor, gap_bytes + lost)
        self._step(chunk)
        assert self._cursor is not None
        return LogBatch(chunk, self._cursor, gap_bytes)

    def _torn(self, rest: bytes, gap_bytes: int) -> LogBatch:
        """The begin of a line whose logger was killed: a piece that ends here."""
        assert self._cursor is not None
        sequence, offset, position = self._cursor
        written = len(rest) - lines.HEAD_BYTES
        self._cursor = LogCursor(sequence, offset + len(rest), position + written)
        return LogBatch(rest[:38] + b"P" + rest[39:] + b"\n", self._cursor, gap_bytes)

    def _step(self, chunk: bytes) -> None:
        assert self._cursor is not None
        sequence, offset, position = self._cursor
        self._cursor = LogCursor(sequence, offset + len(chunk), position + lines.written_bytes(chunk))

    async def _chunk(self, path: str, offset: int, *, missing_ok: bool = False) -> tuple[bytes, bytes]:
        """Whole lines from ``offset`` on, and the line behind them that is not whole."""
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            if missing_ok:
                return b"", b""
            raise
        try:
            size = min(self._readable(os.fstat(fd).st_size) - offset, CHUNK_BYTES)
            data = await _read(fd, size, offset) if size > 0 else b""
        finally:
            os.close(fd)
        end = data.rfind(b"\n") + 1
        return data[:end], data[end:]


async def _read(fd: int, size: int, offset: int) -> bytes:
    """What is in memory is read at once; for the disk a thread waits."""
    buffer = bytearray(size)
    try:
        if os.preadv(fd, [buffer], offset, os.RWF_NOWAIT) == size:
            return bytes(buffer)
    except OSError as error:
        if error.errno not in (errno.EAGAIN, errno.EOPNOTSUPP):
            raise
    return await asyncio.to_thread(os.pread, fd, size, offset)
