"""Much data in both directions of one connection: nobody waits for ever, buffers stay small."""

from __future__ import annotations

import asyncio
import socket
from types import ModuleType
from typing import Any

from grpclib.const import Cardinality

from cloudless.transport.channel import connect
from cloudless.transport.limits import KIB, READ_PAUSE_BYTES

STREAMS = 150
PIECES = 4
PIECE = bytes(60 * KIB)


async def test_two_ends_that_are_both_full_go_on(demo: ModuleType, echo: Any, serve: Any) -> None:
    """Each end has more to send than the other takes at once, on many streams."""
    fullest = 0

    async with serve(echo) as (server, port):
        server._listeners[0].sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * KIB)
        channel = connect(f"127.0.0.1:{port}")

        async def converse() -> int:
            nonlocal fullest
            call: Any = channel.request(
                "/demo.Echo/Talk", Cardinality.STREAM_STREAM, demo.Everything, demo.Everything
            )

            async def send() -> None:
                for _ in range(PIECES):
                    await call.send_message(demo.Everything(raw=PIECE))
                await call.end()

            async with call, asyncio.TaskGroup() as group:
                await call.send_request()
                group.create_task(send())
                received = 0
                async for answer in call:
                    received += len(answer.raw)
                    sizes = [one.connection.waiting_bytes for one in server._protocols]
                    fullest = max(fullest, *sizes)
                return received

        try:
            await channel.connect()
            async with asyncio.timeout(30), asyncio.TaskGroup() as group:
                talks = [group.create_task(converse()) for _ in range(STREAMS)]
            assert {talk.result() for talk in talks} == {PIECES * len(PIECE)}
            assert fullest < READ_PAUSE_BYTES, "data alone never stops the reading"
        finally:
            await channel.aclose()
