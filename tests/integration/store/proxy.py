"""A TCP proxy that can cut a client off, while others still reach the server."""

from __future__ import annotations

import asyncio
from typing import Self


class Proxy:
    """Passes bytes to ``port`` unless cut; use as ``async with``."""

    def __init__(self, port: int) -> None:
        self._target = port
        self.mute = False  # swallow what the server answers
        self._open = True
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        await self._server.wait_closed()

    @property
    def address(self) -> str:
        assert self._server is not None
        host, port = self._server.sockets[0].getsockname()
        return f"{host}:{port}"

    def cut(self) -> None:
        """End every connection, and every new one at once."""
        self._open = False
        for writer in self._writers:
            writer.transport.abort()

    def heal(self) -> None:
        self._open = True

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._open:
            writer.transport.abort()
            return
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._target)
        ends = {writer, up_writer}
        self._writers |= ends
        try:
            await asyncio.gather(pump(reader, up_writer), self._answer(up_reader, writer))
        except ConnectionError:
            pass
        finally:
            self._writers -= ends
            for end in ends:
                end.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            if not self.mute:
                writer.write(data)
                await writer.drain()
        raise ConnectionResetError


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    raise ConnectionResetError
