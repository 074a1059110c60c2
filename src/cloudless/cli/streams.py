"""Our own standard streams for the event loop: reading and writing bytes without blocking it.

A pipe or terminal is opened anew, so that nobody who shares it with us finds it non-blocking.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import fcntl
import os
import stat
import termios
from collections.abc import Callable

READ_BYTES = 64 * 1024


class InputStream:
    """A file descriptor that is read; ``close`` it."""

    def __init__(self, fd: int) -> None:
        self._fd = _opened(fd, os.O_RDONLY)

    async def read(self) -> bytes:
        """What has come, empty at the end."""
        while True:
            try:
                return os.read(self._fd, READ_BYTES)
            except BlockingIOError:
                loop = asyncio.get_running_loop()
                await _until(self._fd, loop.add_reader, loop.remove_reader)

    def close(self) -> None:
        """Give it up; the descriptor that it was made of stays."""
        os.close(self._fd)


class OutputStream:
    """A file descriptor that is written; ``close`` it."""

    def __init__(self, fd: int) -> None:
        self._fd = _opened(fd, os.O_WRONLY)

    async def write(self, data: bytes) -> None:
        """Write everything; waits for a slow reader. Raises ``BrokenPipeError`` when it has left."""
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._fd, view) :]
            except BlockingIOError:
                loop = asyncio.get_running_loop()
                await _until(self._fd, loop.add_writer, loop.remove_writer)

    def end_line(self) -> None:
        """Begin a new line on a terminal, if it takes that at once."""
        if os.isatty(self._fd):
            with contextlib.suppress(OSError):
                os.write(self._fd, b"\r\n")

    def close(self) -> None:
        """Give it up; the descriptor that it was made of stays."""
        os.close(self._fd)


def pipe_has_bytes(fd: int) -> bool:
    """Whether it is a pipe in which something waits to be read."""
    if not stat.S_ISFIFO(os.fstat(fd).st_mode):
        return False
    waiting = array.array("i", [0])
    try:
        fcntl.ioctl(fd, termios.FIONREAD, waiting)
    except OSError:
        return False
    return waiting[0] > 0


def _opened(fd: int, mode: int) -> int:
    """The same pipe or terminal, non-blocking; else a copy of the descriptor.

    A file must keep its place, which others share, and never blocks for long.
    """
    kind = os.fstat(fd).st_mode
    if stat.S_ISFIFO(kind) or stat.S_ISCHR(kind):
        with contextlib.suppress(OSError):
            return os.open(f"/proc/self/fd/{fd}", mode | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    return os.dup(fd)


async def _until(fd: int, add: Callable[..., object], remove: Callable[[int], object]) -> None:
    ready = asyncio.Event()
    add(fd, ready.set)
    try:
        await ready.wait()
    finally:
        remove(fd)
