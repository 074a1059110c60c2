"""Reads one log: from where, which lines, up to its end or for as long as it grows.

The reader holds a position and no open file: however slow whoever takes the batches is,
it costs neither memory nor disk. What was rotated away meanwhile is told as a gap. Used by
``store.LogStore.read``; it never decides whose log may be read.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path

from cloudless.agent.logs import files
from cloudless.agent.logs.place import LogPlace
from cloudless.agent.logs.record import LogBatch
from cloudless.agent.logs.watch import LogWatcher
from cloudless.domain import loglines as lines
from cloudless.domain.logrecord import LogCursor

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
    place = LogPlace(directory, await asyncio.to_thread(_begin, directory, options, stop), stop)
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
            wanted = {stream.encode() for stream in options.streams}
            if options.until_ns is not None:
                when = lines.time_text(options.until_ns + 1)
                stop = files.end_before(directory, when, stop or files.find_end(directory))
            tail = files.find_tail(directory, options.tail_lines, lambda line: line[31:37] in wanted, stop)
            found.append(tail.cursor)
    except FileNotFoundError:
        return _begin(directory, options, stop)  # rotated away while we looked: look again
    return max((cursor for cursor in found if cursor is not None), default=None)
