"""Channels: addresses, errors that name them, drain, and calls that end badly elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import struct
from collections.abc import AsyncIterator, Callable
from types import ModuleType
from typing import Any

import h2.config
import h2.connection
import h2.events
import pytest

from cloudless.domain.errors import CloudlessError, DeadlineExceeded, Exhausted, Invalid, Unavailable
from cloudless.transport.bidi import converse
from cloudless.transport.channel import UNREACHABLE, connect, parse_address
from cloudless.transport.errors import InternalError
from cloudless.transport.limits import CLIENT


class RawServer(asyncio.Protocol):
    """Answers each request's headers as the test says; or ``first`` at once, and no more."""

    def __init__(self, answer: Callable[[Any, int], None], first: bytes | None = None) -> None:
        self.answer = answer
        self.first = first

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.peer = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        if self.first is None:
            self.peer.initiate_connection()
        transport.write(self.peer.data_to_send() if self.first is None else self.first)
        if self.first:
            transport.close()

    def data_received(self, data: bytes) -> None:
        if self.first is not None:
            return
        for event in self.peer.receive_data(data):
            if isinstance(event, h2.events.RequestReceived):
                self.answer(self.peer, event.stream_id)
        self.transport.write(self.peer.data_to_send())


@contextlib.asynccontextmanager
async def raw_server(answer: Callable[[Any, int], None], first: bytes | None = None) -> AsyncIterator[int]:
    peer = RawServer(answer, first)
    server = await asyncio.get_running_loop().create_server(lambda: peer, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]
    if hasattr(peer, "transport"):
        peer.transport.abort()


OK_HEADERS = [(":status", "200"), ("content-type", "application/grpc")]
OK_TRAILERS = [("grpc-status", "0")]


def goaway(peer: Any, stream: int) -> None:
    peer.close_connection(error_code=2)


def http_error(peer: Any, stream: int) -> None:
    peer.send_headers(stream, [(":status", "503")], end_stream=True)


def no_grpc(peer: Any, stream: int) -> None:
    peer.send_headers(stream, [(":status", "200"), ("content-type", "text/html")], end_stream=True)


def no_status(peer: Any, stream: int) -> None:
    peer.send_headers(stream, OK_HEADERS)
    peer.send_headers(stream, [("other", "x")], end_stream=True)


def reset(peer: Any, stream: int) -> None:
    peer.reset_stream(stream, 7)


def huge(peer: Any, stream: int) -> None:
    peer.send_headers(stream, OK_HEADERS)
    peer.send_data(stream, struct.pack(">BI", 0, 2**31))


def compressed(peer: Any, stream: int) -> None:
    peer.send_headers(stream, OK_HEADERS)
    peer.send_data(stream, struct.pack(">BI", 1, 1) + b"x")


def garbage(peer: Any, stream: int) -> None:
    peer.send_headers(stream, OK_HEADERS)
    peer.send_data(stream, struct.pack(">BI", 0, 2) + b"\x72\x7f")
    peer.send_headers(stream, OK_TRAILERS, end_stream=True)


def half(peer: Any, stream: int) -> None:
    peer.send_headers(stream, OK_HEADERS)
    peer.send_data(stream, struct.pack(">BI", 0, 9) + b"x", end_stream=True)


def strange_status(peer: Any, stream: int) -> None:
    peer.send_headers(stream, [*OK_HEADERS, ("grpc-status", "77")], end_stream=True)


def unknown(peer: Any, stream: int) -> None:
    fields = [("grpc-status", "2"), ("grpc-message", "50 %25 %zz"), ("grpc-status-details-bin", "!!")]
    peer.send_headers(stream, [*OK_HEADERS, *fields], end_stream=True)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (goaway, Unavailable),
        (http_error, Unavailable),
        (no_grpc, Unavailable),
        (no_status, InternalError),
        (reset, Unavailable),
        (huge, Exhausted),
        (compressed, InternalError),
        (garbage, InternalError),
        (half, InternalError),
        (strange_status, InternalError),
        (unknown, InternalError),
    ],
    ids=lambda value: value.__name__,
)
async def test_bad_servers_give_errors_of_the_domain(
    answer: Any, kind: type[CloudlessError], demo: ModuleType, client: Any
) -> None:
    async with raw_server(answer) as port, client(port) as stub:
        with pytest.raises(kind):
            await stub.once(demo.Everything(), timeout=5)


async def test_a_complete_answer_counts_though_the_stream_is_reset(demo: ModuleType, client: Any) -> None:
    def answer(peer: Any, stream: int) -> None:
        peer.send_headers(stream, OK_HEADERS)
        peer.send_data(stream, struct.pack(">BI", 0, 0) * 3)
        peer.send_headers(stream, OK_TRAILERS, end_stream=True)
        peer.reset_stream(stream, 0)

    async with raw_server(answer) as port, client(port) as stub:
        endless = [message async for message in stub.talk(_forever(demo))]
        assert endless == [demo.Everything()] * 3


async def _forever(demo: ModuleType) -> AsyncIterator[Any]:
    while True:
        yield demo.Everything()
        await asyncio.sleep(0)


async def test_calls_above_the_goaway_fail_and_those_below_finish(demo: ModuleType, client: Any) -> None:
    seen: list[int] = []

    def answer(peer: Any, stream: int) -> None:
        seen.append(stream)
        if len(seen) == 1:
            return
        peer._data_to_send += b"\0\0\x08\x07\0\0\0\0\0" + struct.pack(">II", seen[0], 0)
        peer.send_headers(seen[0], OK_HEADERS)
        peer.send_data(seen[0], struct.pack(">BI", 0, 0))
        peer.send_headers(seen[0], OK_TRAILERS, end_stream=True)

    async with raw_server(answer) as port, client(port) as stub, asyncio.TaskGroup() as group:
        below = group.create_task(stub.once(demo.Everything(), timeout=5))
        await asyncio.sleep(0)
        with pytest.raises(Unavailable, match="going away"):
            await stub.once(demo.Everything(), timeout=5)
        assert await below == demo.Everything()
        assert not stub.channel.connected


async def test_a_server_that_says_nothing_is_not_waited_for(demo: ModuleType, client: Any) -> None:
    async with raw_server(goaway, first=b"") as port, client(port, connect_s=0.1) as stub:
        with pytest.raises(Unavailable, match="no answer") as caught:
            await stub.once(demo.Everything())
        assert caught.value.code == UNREACHABLE


async def test_refused_and_wrong_ports_name_the_address(demo: ModuleType, client: Any) -> None:
    async with client(1) as stub:
        with pytest.raises(
            Unavailable, match=r"cannot reach 127\.0\.0\.1:1 \(connection refused\)"
        ) as caught:
            await stub.once(demo.Everything())
        assert caught.value.code == UNREACHABLE

    http1 = b"HTTP/1.1 400 Bad Request\r\n\r\n"
    async with raw_server(goaway, first=http1) as port, client(port) as stub:
        with pytest.raises(Unavailable, match="does not speak gRPC"):
            await stub.once(demo.Everything())
    channel = connect("unix:/no/such/socket")
    with pytest.raises(Unavailable, match="no such file"):
        await demo.EchoStub(channel).once(demo.Everything())


@pytest.mark.parametrize("address", ["", "host", "host:", ":80", "host:x", "host:70000", "unix:", "host:-1"])
def test_bad_addresses_are_named(address: str) -> None:
    with pytest.raises(Invalid, match="address"):
        parse_address(address)


async def test_metadata_and_deadlines_of_the_channel(
    demo: ModuleType, echo: Any, serve: Any, client: Any
) -> None:
    def metadata(method: str) -> dict[str, str | bytes]:
        return {"x-method": method}

    async with serve(echo) as (_, port), client(port, metadata=metadata, unary_s=1) as stub:
        await stub.once(demo.Everything())
        assert echo.contexts[0].metadata["x-method"] == "/demo.Echo/Once"
        with pytest.raises(DeadlineExceeded):
            await stub.once(demo.Everything(text="wait"))
        with pytest.raises(DeadlineExceeded):
            await stub.once(demo.Everything(), timeout=0)


async def test_a_server_that_never_answers_is_named(demo: ModuleType, client: Any) -> None:
    async with raw_server(lambda peer, stream: None) as port, client(port) as stub:
        with pytest.raises(DeadlineExceeded, match=rf"no answer from 127\.0\.0\.1:{port}"):
            await stub.once(demo.Everything(), timeout=0.02)


async def test_a_lost_connection_ends_calls_and_the_next_call_dials_again(
    demo: ModuleType, echo: Any, serve: Any, client: Any, eventually: Any
) -> None:
    async with serve(echo) as (server, port), client(port) as stub:
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(_error(stub.once(demo.Everything(text="wait"))))
            await eventually(lambda: echo.started == 1)
            for protocol in tuple(server._protocols):
                protocol.connection.abort("test")
        assert isinstance(waiting.result(), Unavailable)
        assert (await stub.once(demo.Everything(text="again"))).text == "again"


async def _error(call: Any) -> Any:
    try:
        return await call
    except CloudlessError as error:
        return error


async def test_cancelling_a_call_is_no_error_and_leaves_no_trace(
    demo: ModuleType, echo: Any, serve: Any, client: Any, eventually: Any
) -> None:
    async with serve(echo) as (server, port), client(port) as stub:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(stub.once(demo.Everything(text="wait")))
            await eventually(lambda: echo.started == 1)
            task.cancel()
        assert task.cancelled()
        await eventually(lambda: echo.ended == 1 and server.running_calls == 0)
        assert not stub.channel._protocol.processor.streams


async def test_a_failed_call_leaves_its_task_uncancelled(
    demo: ModuleType, echo: Any, serve: Any, client: Any
) -> None:
    async with serve(echo) as (_, port), client(port) as stub:
        with pytest.raises(DeadlineExceeded):
            await stub.once(demo.Everything(text="wait"), timeout=0.02)
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0


async def test_an_answer_over_the_limit_is_refused(
    demo: ModuleType, echo: Any, serve: Any, client: Any
) -> None:
    limits = dataclasses.replace(CLIENT, message_bytes=1000)
    async with serve(echo) as (_, port), client(port, limits=limits) as stub:
        with pytest.raises(Exhausted, match="at most 1000"):
            await stub.once(demo.Everything(raw=bytes(2000)))
        assert (await stub.once(demo.Everything(text="fine"))).text == "fine"


def talk(demo: ModuleType, stub: Any, requests: Any) -> Any:
    return converse(stub.channel, "/demo.Echo/Talk", requests, demo.Everything, demo.Everything, timeout=5)


async def test_a_conversation_whose_server_ends_first(
    demo: ModuleType, echo: Any, serve: Any, client: Any
) -> None:
    closed = []

    async def requests() -> AsyncIterator[Any]:
        try:
            yield demo.Everything(text="one")
            yield demo.Everything(text="bye")
            while True:
                await asyncio.sleep(0)
                yield demo.Everything(text="late", raw=bytes(1000))
        finally:
            closed.append(True)

    async with serve(echo) as (server, port), client(port) as stub:
        async with contextlib.aclosing(talk(demo, stub, requests())) as replies:
            assert [reply.text async for reply in replies] == ["one"]
        assert closed == [True]
        assert server.running_calls == 0


async def test_a_conversation_whose_requests_raise(
    demo: ModuleType, echo: Any, serve: Any, client: Any, eventually: Any
) -> None:
    async def requests() -> AsyncIterator[Any]:
        yield demo.Everything(text="one")
        raise LookupError("out of words")

    async with serve(echo) as (server, port), client(port) as stub:
        with pytest.raises(LookupError, match="out of words"):
            async with contextlib.aclosing(talk(demo, stub, requests())) as replies:
                async for _ in replies:
                    continue
        await eventually(lambda: server.running_calls == 0)


async def test_leaving_a_conversation_cancels_it(
    demo: ModuleType, echo: Any, serve: Any, client: Any, eventually: Any
) -> None:
    async with serve(echo) as (server, port), client(port) as stub:
        async with contextlib.aclosing(talk(demo, stub, _forever(demo))) as replies:
            await anext(replies)
        await eventually(lambda: server.running_calls == 0)
