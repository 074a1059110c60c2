"""Streams whose reader may stop for as long as it likes, and those whose reader may not."""

from __future__ import annotations

import asyncio
import dataclasses
from contextlib import aclosing
from types import ModuleType
from typing import Any

import pytest
from grpclib.const import Cardinality

from cloudless.domain.errors import CloudlessError, Unavailable
from cloudless.transport.channel import connect
from cloudless.transport.context import be_patient
from cloudless.transport.limits import CLIENT, KIB, PUBLIC

STALL_S = 0.1
#: How long the reader stops: longer than an impatient sender waits.
PAUSE_S = 5 * STALL_S
SHORT = {"send_stall_s": STALL_S, "stream_window_bytes": 32 * KIB}
QUICK = dataclasses.replace(PUBLIC, **SHORT)
PIECES = 20


@pytest.mark.parametrize("patient", [True, False])
async def test_a_caller_that_stops_reading(demo: ModuleType, serve: Any, patient: bool) -> None:
    class Sends(demo.EchoBase):  # type: ignore[misc, name-defined]
        async def many(self, message: Any) -> Any:
            if patient:
                be_patient()
            for number in range(PIECES):
                yield demo.Everything(int32_value=number, raw=bytes(16 * KIB))

    async with serve(Sends(), limits=QUICK) as (_, port):
        limits = dataclasses.replace(CLIENT, stream_window_bytes=32 * KIB)
        channel = connect(f"127.0.0.1:{port}", limits=limits)
        try:
            async with aclosing(demo.EchoStub(channel).many(demo.Everything())) as answers:
                numbers = [(await anext(answers)).int32_value]
                await asyncio.sleep(PAUSE_S)
                if not patient:
                    with pytest.raises(CloudlessError):  # cut off in the middle of something
                        async for answer in answers:
                            numbers.append(answer.int32_value)
                    return
                numbers += [answer.int32_value async for answer in answers]
                assert numbers == list(range(PIECES))
        finally:
            await channel.aclose()


@pytest.mark.parametrize("patient", [True, False])
async def test_a_handler_that_stops_reading(demo: ModuleType, serve: Any, patient: bool) -> None:
    go_on = asyncio.Event()

    class Reads(demo.EchoBase):  # type: ignore[misc, name-defined]
        async def talk(self, messages: Any) -> Any:
            yield await anext(messages)
            await go_on.wait()
            async for message in messages:
                yield demo.Everything(int32_value=message.int32_value)

    async with serve(Reads(), limits=dataclasses.replace(PUBLIC, stream_window_bytes=32 * KIB)) as (_, port):
        channel = connect(f"127.0.0.1:{port}", limits=dataclasses.replace(CLIENT, send_stall_s=STALL_S))
        call: Any = channel.request(
            "/demo.Echo/Talk", Cardinality.STREAM_STREAM, demo.Everything, demo.Everything
        )

        async def send() -> None:
            for number in range(PIECES):
                await call.send_message(demo.Everything(int32_value=number, raw=bytes(16 * KIB)))
            await call.end()

        try:
            if not patient:
                with pytest.raises(Unavailable, match="does not take"):
                    async with call:
                        await call.send_request()
                        await send()
                return
            async with call, asyncio.TaskGroup() as group:
                await call.send_request()
                call.be_patient()
                sending = group.create_task(send())
                await asyncio.sleep(PAUSE_S)
                assert not sending.done()
                go_on.set()
                assert [answer.int32_value async for answer in call] == list(range(PIECES))
        finally:
            await channel.aclose()


def test_outside_of_a_call_nothing_happens() -> None:
    be_patient()


async def test_a_server_that_closes_in_the_middle_of_a_message_says_why(demo: ModuleType, serve: Any) -> None:
    class Sends(demo.EchoBase):  # type: ignore[misc, name-defined]
        async def many(self, message: Any) -> Any:
            yield demo.Everything(raw=bytes(300 * KIB))

    async with serve(Sends()) as (server, port):
        channel = connect(
            f"127.0.0.1:{port}", limits=dataclasses.replace(CLIENT, stream_window_bytes=32 * KIB)
        )
        call: Any = channel.request(
            "/demo.Echo/Many", Cardinality.UNARY_STREAM, demo.Everything, demo.Everything
        )
        try:
            with pytest.raises(Unavailable, match="shutting down"):
                async with call:
                    await call.send_request()
                    await call.send_message(demo.Everything(), end=True)
                    while not len(call._stream.inbox):
                        await asyncio.sleep(0.01)
                    await asyncio.gather(call.recv_message(), server.close())
        finally:
            await channel.aclose()
