"""Ends of named pipes for the event loop: how executed processes are talked to.

The shim opens the other ends. Reading takes what is there and no more, so a slow
reader holds back the writer and memory stays bounded.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import pathlib
import select
import struct
import termios
from collections.abc import Callable

from cloudless.containerd import limits


class StdinClosed(Exception):
    """The process does not read its input any more."""


class FifoReader:
    """Our end of an output pipe; open before the process is started."""

    def __init__(self, path: pathlib.Path) -> None:
        # Without O_NONBLOCK this would wait for the writer.
        self._handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        self._had_writer = False
        self.ended = asyncio.Event()

    async def read(self, limit_bytes: int = limits.FIFO_READ_BYTES) -> bytes:
        """What has arrived, at most ``limit_bytes``; empty at the end. Waits while there is nothing."""
        while not self.ended.is_set():
            if not self._had_writer:
                # Before the writer comes, a read would look like the end.
                await _ready(self._handle, write=False)
                self._had_writer = True
            try:
                data = os.read(self._handle, limit_bytes)
            except BlockingIOError:
                await _ready(self._handle, write=False)
                continue
            if data:
                return data
            self.ended.set()
        return b""

    def is_hung_up(self) -> bool:
        """Whether every writer has gone; what they wrote may still be unread."""
        poller = select.poll()
        poller.register(self._handle, 0)
        return any(event & select.POLLHUP for _, event in poller.poll(0))

    def unread_bytes(self) -> int:
        """What waits in the pipe."""
        answer = fcntl.ioctl(self._handle, termios.FIONREAD, struct.pack("i", 0))
        count: int = struct.unpack("i", answer)[0]
        return count

    def close(self) -> None:
        """Give up the end; further reads see the end of the data."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1
            self.ended.set()


class FifoWriter:
    """Our end of an input pipe."""

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path
        # Opened both ways, so that neither we nor the shim wait for each other.
        self._handle = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    def started(self) -> None:
        """The process runs: keep only the writing end, so that its end is noticed."""
        try:
            handle = os.open(self._path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:  # nobody reads any more: it has ended already
            handle = -1
        os.close(self._handle)
        self._handle = handle

    async def write(self, data: bytes) -> None:
        """Hand over everything; waits while the process does not read. Raises ``StdinClosed``."""
        view = memoryview(data)
        while view:
            if self._handle < 0:
                raise StdinClosed
            try:
                written = os.write(self._handle, view)
            except BlockingIOError:
                await _ready(self._handle, write=True)
            except BrokenPipeError:
                raise StdinClosed from None
            else:
                view = view[written:]

    def close(self) -> None:
        """Give up the end."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


async def _ready(handle: int, *, write: bool) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    add: Callable[..., object] = loop.add_writer if write else loop.add_reader
    remove: Callable[..., object] = loop.remove_writer if write else loop.remove_reader
    add(handle, ready.set)
    try:
        await ready.wait()
    finally:
        remove(handle)
