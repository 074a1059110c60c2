"""Ends of named pipes for the event loop: how executed processes are talked to.

The shim opens the other ends. Reading takes what is there and no more, so a slow
reader holds back the writer and memory stays bounded.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pathlib
import select
import struct
import termios

from cloudless.containerd import limits


class StdinClosed(Exception):
    """The process does not read its input any more."""


class FifoReader:
    """Our end of an output pipe; open before the process is started."""

    def __init__(self, path: pathlib.Path) -> None:
        # Without O_NONBLOCK this would wait for the writer.
        self._handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with contextlib.suppress(OSError):  # more than this machine allows: it stays as it is
            fcntl.fcntl(self._handle, fcntl.F_SETPIPE_SZ, limits.FIFO_BYTES)
        self._had_writer = False
        self._finishing = False
        self._ready = asyncio.Event()
        self.ended = asyncio.Event()

    async def read(self, limit_bytes: int = limits.FIFO_BYTES) -> bytes:
        """What has arrived, at most ``limit_bytes``; empty at the end. Waits while there is nothing."""
        while not self.ended.is_set():
            if not self._had_writer and not self._finishing:
                # Before the writer comes, a read would look like the end.
                await self._readable()
                self._had_writer = True
            try:
                data = os.read(self._handle, limit_bytes)
            except BlockingIOError:
                if not self._finishing:
                    await self._readable()
                    continue
                data = b""
            if data:
                return data
            self.ended.set()
        return b""

    def finish(self) -> None:
        """What has arrived is all that counts: reading ends there, writer or not."""
        self._finishing = True
        self._ready.set()

    async def _readable(self) -> None:
        loop, ready = asyncio.get_running_loop(), self._ready
        ready.clear()
        loop.add_reader(self._handle, ready.set)
        try:
            await ready.wait()
        finally:
            if self._handle >= 0:
                loop.remove_reader(self._handle)

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
            asyncio.get_running_loop().remove_reader(self._handle)
            os.close(self._handle)
            self._handle = -1
            self.ended.set()
            self._ready.set()


class FifoWriter:
    """Our end of an input pipe.

    ``joining``: somebody reads already; raises ``OSError`` when nobody does.
    """

    def __init__(self, path: pathlib.Path, *, joining: bool = False) -> None:
        self._path = path
        # Opened both ways, so that neither we nor the shim wait for each other.
        mode = os.O_WRONLY if joining else os.O_RDWR
        self._handle = os.open(path, mode | os.O_NONBLOCK | os.O_CLOEXEC)
        self._met = joining

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
        await self._meet()
        while view:
            if self._handle < 0:
                raise StdinClosed
            try:
                written = os.write(self._handle, view)
            except BlockingIOError:
                await _writable(self._handle)
            except BrokenPipeError:
                raise StdinClosed from None
            else:
                view = view[written:]

    async def _meet(self) -> None:
        """Wait for the shim to open its end, which it may do after it has said that the process runs."""
        loop = asyncio.get_running_loop()
        end_s = loop.time() + limits.FIFO_MEET_S
        while not self._met and self._handle >= 0:
            self._met = not self._has_no_reader() or loop.time() > end_s
            if not self._met:
                await asyncio.sleep(limits.FIFO_MEET_POLL_S)

    def _has_no_reader(self) -> bool:
        poller = select.poll()
        poller.register(self._handle, 0)
        return any(event & select.POLLERR for _, event in poller.poll(0))

    def close(self) -> None:
        """Give up the end."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


async def _writable(handle: int) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_writer(handle, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_writer(handle)
