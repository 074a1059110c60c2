"""Bringing blocks of bytes out: waits for a slow reader without holding anything else up.

While a pager or a pipe is full the event loop goes on, so that the connection lives and
Ctrl-C works. A reader that leaves is noticed at once, even when nothing is written.
"""

from __future__ import annotations

import asyncio
import os
import stat
from types import TracebackType
from typing import Any, Self

from cloudless.cli.streams import OutputStream
from cloudless.cli.terminal import Terminal


class BlockWriter:
    """Standard output while the ``async with`` block runs.

    When the reader leaves, the block is cancelled, and ends with ``BrokenPipeError``.
    """

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._stream: OutputStream | None = None
        self._watched = -1
        self._task: asyncio.Task[Any] | None = None
        self._cancelling = 0
        self._reader_is_gone = False

    async def __aenter__(self) -> Self:
        self._task = asyncio.current_task()
        assert self._task is not None
        self._cancelling = self._task.cancelling()
        self._terminal.stream.flush()
        try:
            fd = self._terminal.stream.fileno()
            self._stream = OutputStream(fd)
        except (OSError, ValueError):
            return self  # no descriptor: somebody put another object in its place
        if stat.S_ISFIFO(os.fstat(fd).st_mode):
            self._watched = os.dup(fd)
            asyncio.get_running_loop().add_reader(self._watched, self._reader_left)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._unwatch()
        if self._stream is not None:
            self._stream.close()
        if not self._reader_is_gone or self._task is None:
            return
        others = self._task.uncancel() > self._cancelling
        if kind is asyncio.CancelledError and not others:
            raise BrokenPipeError from error

    async def write(self, block: bytes) -> None:
        """Write all of it; raises ``BrokenPipeError`` when the reader has left."""
        if self._stream is not None:
            await self._stream.write(block)
            return
        stream = self._terminal.stream
        buffer = getattr(stream, "buffer", None)
        if buffer is None:
            stream.write(block.decode("utf-8", "replace"))
        else:
            buffer.write(block)
        stream.flush()

    def end_line(self) -> None:
        """Begin a new line on a terminal, if it takes that at once."""
        if self._stream is not None:
            self._stream.end_line()
        else:
            self._terminal.line()

    def _reader_left(self) -> None:
        self._unwatch()
        self._reader_is_gone = True
        if self._task is not None:
            self._task.cancel()

    def _unwatch(self) -> None:
        if self._watched >= 0:
            asyncio.get_running_loop().remove_reader(self._watched)
            os.close(self._watched)
            self._watched = -1
