"""A line to a registry that can be made bad: slow, silent, cut, damaged, or answering errors."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

PIECE_BYTES = 64 * 1024


@dataclass
class Proxy:
    """``host`` stands for the registry; set the attributes at any time, they count at once."""

    target_port: int
    host: str = ""
    #: Bytes a second of each connection towards the client; 0: as fast as it goes.
    rate: int = 0
    #: Says nothing any more, to anybody.
    silent: bool = False
    #: Answers everything with this status; "" asks the registry.
    status: str = ""
    #: Connections break after so many bytes of answers; 0: never.
    cut_after: int = 0
    #: Flips a bit of every answer beyond its first piece.
    damage: bool = False
    #: Bytes that went to clients.
    sent: int = 0
    requests: int = 0
    _open: dict[asyncio.StreamWriter, asyncio.Task[None]] = field(default_factory=dict)

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open[writer] = asyncio.ensure_future(self._serve(reader, writer))

    async def close(self) -> None:
        """Break every connection, and wait until nothing is left of them."""
        tasks = list(self._open.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await (self._refuse(reader, writer) if self.status else self._carry(reader, writer))
        finally:
            del self._open[writer]
            writer.transport.abort()

    def cut(self) -> None:
        """Break every connection now."""
        for writer in self._open:
            writer.transport.abort()

    async def _refuse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readuntil(b"\r\n\r\n"):
            self.requests += 1
            head = f"HTTP/1.1 {self.status}\r\nContent-Length: 0\r\nRetry-After: 1\r\n\r\n"
            writer.write(head.encode())
            await writer.drain()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self.target_port)
        asking = asyncio.ensure_future(self._ask(reader, back))
        try:
            while data := await there.read(PIECE_BYTES):
                await self._answer(data, writer)
        finally:
            asking.cancel()
            back.close()
            await asyncio.gather(asking, return_exceptions=True)

    async def _ask(self, reader: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        while data := await reader.read(PIECE_BYTES):
            self.requests += data.count(b" HTTP/1.1\r\n")
            back.write(data)
            await back.drain()

    async def _answer(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        while self.silent:
            await asyncio.sleep(0.05)
        if self.cut_after and self.sent >= self.cut_after:
            raise ConnectionResetError
        if self.damage and len(data) == PIECE_BYTES:
            data = data[:-1] + bytes([data[-1] ^ 1])
        self.sent += len(data)
        writer.write(data)
        await writer.drain()
        if self.rate:
            await asyncio.sleep(len(data) / self.rate)


@contextlib.asynccontextmanager
async def running_proxy(target_port: int) -> AsyncIterator[Proxy]:
    """A proxy on a port of its own."""
    proxy = Proxy(target_port)
    server = await asyncio.start_server(proxy.accept, "127.0.0.1", 0)
    proxy.host = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        server.close()
        await proxy.close()
