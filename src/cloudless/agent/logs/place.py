"""A place in the files of one log, which moves on as they are read, and over their rotation.

It holds a position and no open file: however slowly it is moved, it costs neither memory
nor disk. What was rotated away meanwhile is told as a gap. Used by ``reader``, ``live``
and ``source``; it never waits for anything to be written.
"""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path

from cloudless.agent.logs import files
from cloudless.agent.logs.limits import CHUNK_BYTES
from cloudless.agent.logs.record import LogBatch
from cloudless.domain import loglines as lines
from cloudless.domain.logrecord import LogCursor

ROTATED_AWAY = "rotated away"
NOT_WRITTEN = "could not be written to the node's disk"


class LogPlace:
    """``cursor`` None is the begin, ``stop`` where the log shall end, if not where it ends then."""

    def __init__(
        self,
        directory: Path,
        cursor: LogCursor | None,
        stop: files.End | None = None,
        *,
        chunk_bytes: int = 0,
    ) -> None:
        self._directory = directory
        self._cursor = cursor
        self._stop = stop
        self._chunk_bytes = chunk_bytes or CHUNK_BYTES
        self._path: str | None = None
        # What was passed on the way and is told with the next batch.
        self._gap_bytes = 0
        self._rotated = False

    @property
    def cursor(self) -> LogCursor | None:
        """Where it stands; None when nothing was ever read from the begin."""
        return self._cursor

    async def read(self, *, at_end: bool) -> LogBatch | None:
        """The next lines, or None when there are none (yet).

        ``at_end``: nothing more will be written, so a line without its line feed is all there is.
        """
        while True:
            if self._path is None and not self._enter():
                return None
            assert self._path is not None
            assert self._cursor is not None
            try:
                chunk, rest = await self._chunk(self._path, self._cursor.offset)
            except FileNotFoundError:
                self._path = None
                continue
            if chunk:
                return self._batch(chunk)
            # Newer files first, then this one again: it may have grown before it was rotated.
            newer = [one for one in files.segments(self._directory) if self._follows(one)]
            if newer:
                chunk, rest = await self._chunk(self._path, self._cursor.offset, missing_ok=True)
                if chunk:
                    return self._batch(chunk)
            if (newer or at_end) and len(rest) > lines.HEAD_BYTES:
                return self._torn(rest)
            if newer:
                self._move(newer[0])
                continue
            return self._told(b"", self._cursor) if self._gap_bytes else None

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

    def _enter(self) -> bool:
        """Find the file of the cursor, or the oldest after it; False when there is none."""
        known = files.segments(self._directory)
        at = self._cursor
        if at is None and known:
            self._path, self._cursor = known[0].path, files.start_of(known[0])
            self._gap_bytes += known[0].start
            return True
        later = [segment for segment in known if at is not None and segment.sequence >= at.sequence]
        if at is None or not later:
            return False
        if later[0].sequence == at.sequence:
            self._path = later[0].path
        else:
            self._move(later[0])
        return True

    def _move(self, segment: files.Segment) -> None:
        """Go on to the begin of a newer file."""
        assert self._cursor is not None
        self._gap_bytes += max(segment.start - self._cursor.position, 0)
        self._path, self._cursor, self._rotated = segment.path, files.start_of(segment), True

    def _batch(self, chunk: bytes) -> LogBatch:
        """Step over ``chunk``, or over its part before or at the first line of the system's own."""
        assert self._cursor is not None
        begin, notice = self._cursor, lines.first_notice(chunk)
        if notice is None or notice.begin:
            chunk = chunk if notice is None else chunk[: notice.begin]
            self._step(chunk)
            return self._told(chunk, begin)
        self._step(chunk[: notice.end])
        if notice.is_end:
            return self._told(b"", self._cursor, logger_lost=True)
        earlier, self._gap_bytes = self._gap_bytes, self._gap_bytes + notice.lost_bytes
        return self._told(b"", self._cursor, why="" if earlier else NOT_WRITTEN)

    def _torn(self, rest: bytes) -> LogBatch:
        """The begin of a line whose logger was killed: a piece that ends here."""
        assert self._cursor is not None
        begin = self._cursor
        written = len(rest) - lines.HEAD_BYTES
        self._cursor = LogCursor(begin.sequence, begin.offset + len(rest), begin.position + written)
        return self._told(rest[:38] + b"P" + rest[39:] + b"\n", begin)

    def _told(self, data: bytes, begin: LogCursor, *, why: str = "", logger_lost: bool = False) -> LogBatch:
        assert self._cursor is not None
        gap_bytes, rotated = self._gap_bytes, self._rotated
        self._gap_bytes, self._rotated = 0, False
        why = (why or ROTATED_AWAY) if gap_bytes else ""
        return LogBatch(data, self._cursor, gap_bytes, begin, why, rotated, logger_lost)

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
            size = min(self._readable(os.fstat(fd).st_size) - offset, self._chunk_bytes)
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
