"""Answers are made when there is room for them: who does not read holds next to nothing, anywhere."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
import weakref
from collections.abc import AsyncIterator, Callable
from types import ModuleType
from typing import Any

import grpc
import pytest
from grpclib.const import Cardinality

from cloudless.domain.errors import Unavailable
from cloudless.transport.channel import connect
from cloudless.transport.context import be_patient, room_to_send
from cloudless.transport.limits import CLIENT, KIB, LINK_AGENT, LINK_COORDINATOR, PUBLIC
from cloudless.transport.link import AcceptedChannel, dial_link
from cloudless.transport.server import GuardedServer

PIECE = 60 * KIB
PIECES = 40
STALL_S = 0.1
LIMIT_S = 20.0


@pytest.fixture
def paced(demo: ModuleType) -> Any:
    """``many`` gives ``PIECES`` messages of ``raw``'s size, each made when there is room for it."""

    class Paced(demo.EchoBase):  # type: ignore[misc, name-defined]
        patient = True

        def __init__(self) -> None:
            self.made_bytes = 0
            self.waiting = 0

        async def many(self, message: Any) -> Any:
            if self.patient:
                be_patient()
            for number in range(PIECES):
                self.made_bytes += len(message.raw)
                answer = demo.Everything(int32_value=number, raw=message.raw)
                yield answer
                answer.raw = b""
                self.waiting += 1
                await room_to_send(PIECE)
                self.waiting -= 1

    return Paced()


async def standing(paced: Any, calls: int) -> int:
    """Bytes that were made when nothing is made any more."""
    before = -1
    async with asyncio.timeout(LIMIT_S):
        while paced.waiting < calls or paced.made_bytes != before:
            before = paced.made_bytes
            await asyncio.sleep(0.05)
    return int(paced.made_bytes)


async def test_a_caller_that_stops_gets_its_window_and_then_the_rest(
    demo: ModuleType, serve: Any, paced: Any
) -> None:
    async with serve(paced) as (_, port):
        channel = connect(f"127.0.0.1:{port}")
        try:
            async with contextlib.aclosing(
                demo.EchoStub(channel).many(demo.Everything(raw=bytes(PIECE)))
            ) as answers:
                numbers = [(await anext(answers)).int32_value]
                made = await standing(paced, 1)
                assert made - PIECE <= PUBLIC.stream_window_bytes, "all that was made is on the caller's side"
                numbers += [answer.int32_value async for answer in answers]
                assert numbers == list(range(PIECES))
        finally:
            await channel.aclose()


async def test_one_that_takes_nothing_is_cut_off_and_told(demo: ModuleType, serve: Any, paced: Any) -> None:
    paced.patient = False
    async with serve(paced, limits=dataclasses.replace(PUBLIC, send_stall_s=STALL_S)) as (_, port):
        channel = connect(f"127.0.0.1:{port}")
        try:
            async with contextlib.aclosing(
                demo.EchoStub(channel).many(demo.Everything(raw=bytes(PIECE)))
            ) as answers:
                numbers = [(await anext(answers)).int32_value]
                await asyncio.sleep(5 * STALL_S)
                with pytest.raises(Unavailable, match="cut off: the peer read too little"):
                    async for answer in answers:
                        numbers.append(answer.int32_value)
                assert numbers == list(range(len(numbers))), "what was sent is whole"
                assert 3 <= len(numbers) < PIECES
        finally:
            await channel.aclose()


@pytest.mark.parametrize("window", [1, 1 * KIB, 16 * KIB, 65_535, 200 * KIB])
async def test_callers_with_windows_of_any_size(
    demo: ModuleType, serve: Any, paced: Any, window: int
) -> None:
    limits = dataclasses.replace(CLIENT, stream_window_bytes=window, connection_window_bytes=200 * KIB)
    raw = bytes(PIECE if window > KIB else 100)
    async with serve(paced) as (_, port), asyncio.timeout(LIMIT_S):
        channel = connect(f"127.0.0.1:{port}", limits=limits)
        try:
            got = [
                answer.int32_value async for answer in demo.EchoStub(channel).many(demo.Everything(raw=raw))
            ]
            assert got == list(range(PIECES))
        finally:
            await channel.aclose()


async def test_other_streams_that_nobody_reads_leave_little_of_the_connection(
    demo: ModuleType, serve: Any, paced: Any
) -> None:
    limits = dataclasses.replace(CLIENT, stream_window_bytes=64 * KIB, connection_window_bytes=250 * KIB)
    async with serve(paced) as (_, port), contextlib.AsyncExitStack() as stack:
        channel = connect(f"127.0.0.1:{port}", limits=limits)
        stack.push_async_callback(channel.aclose)
        stub = demo.EchoStub(channel)
        for _ in range(3):
            unread = await stack.enter_async_context(
                contextlib.aclosing(stub.many(demo.Everything(raw=bytes(80 * KIB))))
            )
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(anext(unread), 0.2)
        await standing(paced, 0)
        async with asyncio.timeout(LIMIT_S):
            got = [one.int32_value async for one in stub.many(demo.Everything(raw=bytes(PIECE)))]
    assert got == list(range(PIECES))


@pytest.mark.parametrize("options", [[], [("grpc.http2.bdp_probe", 0)]])
async def test_a_client_that_gives_back_late(
    serve: Any, paced: Any, reference: Callable[[str], Any], options: list[Any]
) -> None:
    message = reference("Everything")

    def read(port: int) -> list[int]:
        with grpc.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
            many = channel.unary_stream(
                "/demo.Echo/Many",
                request_serializer=message.SerializeToString,
                response_deserializer=message.FromString,
            )
            return [answer.int32_value for answer in many(message(raw=bytes(PIECE)), timeout=LIMIT_S)]

    async with serve(paced) as (_, port):
        assert await asyncio.to_thread(read, port) == list(range(PIECES))


@pytest.fixture
async def link(paced: Any) -> AsyncIterator[AcceptedChannel]:
    """The calling end of a link to an agent that serves ``paced``."""
    async with linked(paced) as channel:
        yield channel


@contextlib.asynccontextmanager
async def linked(service: Any) -> AsyncIterator[AcceptedChannel]:
    channels: asyncio.Queue[AcceptedChannel] = asyncio.Queue()

    class Registry:
        async def admit(self, hello: dict[str, Any], peer: str) -> dict[str, Any]:
            return {}

        def connected(self, hello: dict[str, Any], channel: AcceptedChannel) -> None:
            channels.put_nowait(channel)

    async with (
        GuardedServer([], name="coordinator", links=Registry(), link_limits=LINK_COORDINATOR) as coordinator,
        GuardedServer([service], name="agent") as agent,
    ):
        port = await coordinator.listen("127.0.0.1", 0)
        link = await dial_link("127.0.0.1", port, {}, agent, limits=LINK_AGENT)
        channel = await channels.get()
        yield channel
        await channel.aclose()
        await link.closed.wait()


def call(demo: ModuleType, link: AcceptedChannel) -> Any:
    return link.request("/demo.Echo/Many", Cardinality.UNARY_STREAM, demo.Everything, demo.Everything)


@pytest.mark.parametrize("narrow", [True, False])
async def test_calls_over_a_link_that_nobody_reads(
    demo: ModuleType, link: AcceptedChannel, paced: Any, narrow: bool
) -> None:
    count = 20
    window = LINK_COORDINATOR.stream_window_bytes if narrow else 256 * KIB
    async with contextlib.AsyncExitStack() as stack:
        calls = [await stack.enter_async_context(call(demo, link)) for _ in range(count)]
        for one in calls:
            if narrow:
                one.be_narrow()
            await one.send_message(demo.Everything(raw=bytes(PIECE)), end=True)
        made = await standing(paced, count)
        assert made <= count * window
        assert sum(len(one._stream.inbox) for one in calls) >= made, "nothing of it is with the agent"
        for one in calls:
            assert [answer.int32_value async for answer in one] == list(range(PIECES))


@pytest.mark.parametrize("size", [1, 3000, 30 * KIB, 72 * KIB, 200 * KIB])
async def test_narrow_calls_take_messages_of_any_size(
    demo: ModuleType, link: AcceptedChannel, size: int
) -> None:
    async with asyncio.timeout(LIMIT_S), call(demo, link) as one:
        one.be_narrow()
        await one.send_message(demo.Everything(raw=bytes(size)), end=True)
        answers = [answer async for answer in one]
    assert [answer.int32_value for answer in answers] == list(range(PIECES))
    assert {len(answer.raw) for answer in answers} == {size}


async def test_what_narrow_calls_leave_unread_is_given_back(demo: ModuleType, link: AcceptedChannel) -> None:
    """The link's own window does not shrink with them."""
    async with asyncio.timeout(LIMIT_S):
        for _ in range(10):
            with contextlib.suppress(EOFError):
                async with call(demo, link) as one:
                    one.be_narrow()
                    await one.send_message(demo.Everything(raw=bytes(PIECE)), end=True)
                    await one.recv_message()
                    raise EOFError  # left in the middle
    h2 = link._protocol.connection.h2  # type: ignore[union-attr]
    assert h2.inbound_flow_control_window + 1024 * KIB >= LINK_COORDINATOR.connection_window_bytes


async def test_outside_of_a_call_there_is_room() -> None:
    await room_to_send(PIECE)


class Held:
    """Something that a handler has in its hands."""


async def test_what_a_call_held_is_let_go_of_when_its_caller_leaves(
    demo: ModuleType, serve: Any, eventually: Any
) -> None:
    """At once, and not when the collector of cycles comes by: a thousand may leave together."""
    held: list[weakref.ref[Held]] = []

    class Holds(demo.EchoBase):  # type: ignore[misc, name-defined]
        async def many(self, message: Any) -> Any:
            thing = Held()
            held.append(weakref.ref(thing))
            yield demo.Everything()
            await asyncio.Event().wait()

    gc.disable()
    try:
        async with serve(Holds()) as (_, port):
            channel = connect(f"127.0.0.1:{port}")
            async with contextlib.aclosing(demo.EchoStub(channel).many(demo.Everything())) as answers:
                await anext(answers)
            await eventually(lambda: held[0]() is None)
            await channel.aclose()
    finally:
        gc.enable()
