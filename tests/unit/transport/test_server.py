"""A server as its callers see it: answers, errors, contexts, deadlines, drain, sockets."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import logging
import pathlib
import stat
from types import ModuleType
from typing import Any

import pytest

from cloudless.domain.errors import DeadlineExceeded, Denied, Invalid, NotFound, Unavailable
from cloudless.transport.channel import connect
from cloudless.transport.codec import Encoded, encode
from cloudless.transport.context import current_call
from cloudless.transport.errors import InternalError, NotSupported
from cloudless.transport.limits import PUBLIC
from cloudless.transport.listen import AddressInUse, CannotListen, InsecureListen, listen_error
from cloudless.transport.server import GuardedServer


async def test_all_four_shapes_of_calls(demo: ModuleType, echo: Any, serve: Any, client: Any) -> None:
    async with serve(echo) as (_, port), client(port) as stub:
        assert (await stub.once(demo.Everything(text="hello"))).text == "hello"
        numbers = [m.int32_value async for m in stub.many(demo.Everything(int32_value=5))]
        assert numbers == [0, 1, 2, 3, 4]
        messages = [demo.Everything(int32_value=number) for number in range(3)]
        assert (await stub.collect(messages)).int32_list == [0, 1, 2]
        assert [m.int32_value async for m in stub.talk(messages)] == [0, 1, 2]
        large = bytes(1_000_000)
        assert (await stub.once(demo.Everything(raw=large))).raw == large


async def test_errors_of_the_domain_reach_the_caller(
    demo: ModuleType, echo: Any, serve: Any, client: Any
) -> None:
    async with serve(echo) as (_, port), client(port) as stub:
        with pytest.raises(NotFound, match="no such thing") as caught:
            await stub.once(demo.Everything(text="missing"))
        assert caught.value.hint == "look elsewhere"


@pytest.mark.parametrize("method", ["once", "many"])
async def test_a_bug_is_internal_and_says_nothing_of_itself(
    method: str,
    demo: ModuleType,
    echo: Any,
    serve: Any,
    client: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serve(echo) as (_, port), client(port) as stub:
        for _ in range(5):
            with pytest.raises(InternalError) as caught:
                await _last(getattr(stub, method)(demo.Everything(text="bug")))
            assert "secret" not in str(caught.value)
    lines = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(lines) == 1  # one line a second and connection
    assert lines[0].exc_info is not None


async def _last(call: Any) -> Any:
    if not hasattr(call, "__aiter__"):
        return await call
    return [message async for message in call]


async def test_no_answer_of_a_unary_handler_is_a_bug(
    demo: ModuleType, echo: Any, serve: Any, client: Any
) -> None:
    async with serve(echo) as (_, port), client(port) as stub:
        with pytest.raises(InternalError):
            await stub.once(demo.Everything(text="none"))


async def test_an_unknown_method_is_not_supported(demo: ModuleType, descriptors: bytes, client: Any) -> None:
    async with GuardedServer([], descriptors=descriptors) as server:
        port = await server.listen("127.0.0.1", 0)
        async with client(port) as stub:
            with pytest.raises(NotSupported, match=r"/demo\.Echo/Once"):
                await stub.once(demo.Everything())


async def test_handlers_see_who_calls_and_until_when(
    demo: ModuleType, echo: Any, serve: Any, client: Any
) -> None:
    async with serve(echo) as (_, port), client(port) as stub:
        await stub.once(
            demo.Everything(), timeout=5, metadata={"x-request-id": "r-17", "x-raw-bin": b"\0\xff"}
        )
    context = echo.contexts[0]
    assert context.method == "/demo.Echo/Once"
    assert context.peer.startswith("127.0.0.1:")
    assert context.request_id == "r-17"
    assert context.metadata["x-raw-bin"] == b"\0\xff"
    assert 4 < context.remaining_s() <= 5
    with pytest.raises(LookupError):
        current_call()


async def test_deadlines_cancel_the_handler(demo: ModuleType, echo: Any, serve: Any, client: Any) -> None:
    async with serve(echo) as (_, port), client(port) as stub:
        with pytest.raises(DeadlineExceeded):
            await stub.once(demo.Everything(text="wait"), timeout=0.05)
        assert (await stub.once(demo.Everything(text="after"))).text == "after"
    assert echo.started == echo.ended == 2


async def test_a_server_bounds_unary_calls_without_a_deadline(
    demo: ModuleType, echo: Any, serve: Any, raw_peer: Any
) -> None:
    async with serve(echo, limits=dataclasses.replace(PUBLIC, call_s=0.05)) as (_, port):
        peer = await raw_peer(port)
        stream = peer.call("Once")
        peer.message(stream, encode(demo.Everything(text="wait")))
        assert (await peer.status(stream))["grpc-status"] == "4"


async def test_a_caller_that_leaves_cancels_its_handler(
    demo: ModuleType, echo: Any, serve: Any, client: Any, eventually: Any
) -> None:
    async with serve(echo) as (server, port), client(port) as stub:
        answers = stub.many(demo.Everything(int32_value=1, text="wait"))
        await anext(answers)
        await answers.aclose()
        await eventually(lambda: echo.closed == 1)
        blocked = stub.many(demo.Everything(int32_value=10**6, raw=bytes(10_000)))
        await anext(blocked)
        await blocked.aclose()
        await eventually(lambda: echo.closed == 2)
        await eventually(lambda: server.running_calls == 0)


async def test_interceptors_refuse_before_the_handler_runs(
    demo: ModuleType, echo: Any, serve: Any, client: Any
) -> None:
    async def guard(context: Any) -> None:
        if context.metadata.get("authorization") != "Bearer good":
            raise Denied("not you")

    async with serve(echo, interceptors=[guard]) as (_, port), client(port) as stub:
        with pytest.raises(Denied, match="not you"):
            await stub.once(demo.Everything())
        await stub.once(demo.Everything(), metadata={"authorization": "Bearer good"})
    assert echo.started == 1


async def test_every_call_is_counted_once(demo: ModuleType, echo: Any, serve: Any, client: Any) -> None:
    seen: list[tuple[str, str, float]] = []
    async with serve(echo, on_call=lambda *call: seen.append(call)) as (_, port), client(port) as stub:
        await stub.once(demo.Everything())
        with pytest.raises(NotFound):
            await stub.once(demo.Everything(text="missing"))
        with pytest.raises(Invalid):
            async with stub.channel.request("/x/Y", *_echo_types(demo)) as call:
                await call.send_message(demo.Everything())
                await call.recv_message()
    assert [(method, code) for method, code, _ in seen] == [
        ("/demo.Echo/Once", "OK"),
        ("/demo.Echo/Once", "NOT_FOUND"),
        ("unknown", "UNIMPLEMENTED"),
    ]
    assert all(seconds >= 0 for _, _, seconds in seen)


def _echo_types(demo: ModuleType) -> tuple[Any, Any, Any]:
    method = demo.EchoBase().__mapping__()["/demo.Echo/Once"]
    return method.cardinality, method.request_type, method.reply_type


async def test_services_may_answer_with_bytes_they_kept(
    demo: ModuleType, descriptors: bytes, client: Any
) -> None:
    class Kept(demo.EchoBase):  # type: ignore[misc, name-defined]
        async def once(self, message: Any) -> Any:
            return Encoded(encode(demo.Everything(text="kept")), demo.Everything)

    async with GuardedServer([Kept()], descriptors=descriptors) as server:
        port = await server.listen("127.0.0.1", 0)
        async with client(port) as stub:
            assert (await stub.once(demo.Everything())).text == "kept"


async def test_drain_lets_running_calls_finish_and_takes_no_new_connections(
    demo: ModuleType, echo: Any, serve: Any, client: Any, eventually: Any
) -> None:
    async with serve(echo) as (server, port), client(port) as stub:
        server.health.set(True)
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(stub.once(demo.Everything(text="wait")))
            await eventually(lambda: echo.started == 1)
            draining = group.create_task(server.drain(5))
            await eventually(lambda: not stub.channel.connected)
            with pytest.raises(Unavailable, match="connection refused"):
                await stub.once(demo.Everything())
            echo.release.set()
        assert waiting.result().text == "wait"
        assert draining.done()


async def test_what_outlives_the_drain_ends_unavailable(
    demo: ModuleType, echo: Any, serve: Any, client: Any, eventually: Any
) -> None:
    async with serve(echo) as (server, port), client(port) as stub:
        async with asyncio.TaskGroup() as group:
            unary = group.create_task(_outcome(stub.once(demo.Everything(text="wait"))))
            streamed = group.create_task(_outcome(stub.many(demo.Everything(int32_value=1, text="wait"))))
            await eventually(lambda: echo.started == 2)
            await server.close()
        for outcome in (unary.result(), streamed.result()):
            assert isinstance(outcome, Unavailable)
            assert "shutting down" in str(outcome)
    assert echo.ended == echo.closed == 1


async def _outcome(call: Any) -> Any:
    try:
        return await _last(call)
    except Unavailable as error:
        return error


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
async def test_without_tls_only_loopback_is_served(host: str, serve: Any, echo: Any) -> None:
    async with serve(echo) as (server, _):
        with pytest.raises(InsecureListen, match="without TLS"):
            await server.listen(host, 0)


async def test_a_taken_port_is_named(serve: Any, echo: Any) -> None:
    async with serve(echo) as (server, port):
        with pytest.raises(AddressInUse, match=rf"127\.0\.0\.1:{port}") as caught:
            await server.listen("127.0.0.1", port)
        assert (caught.value.host, caught.value.port) == ("127.0.0.1", port)
        with pytest.raises(CannotListen):
            await server.listen("no-such-host.invalid", 0)


def test_an_address_of_another_machine_is_said_in_words() -> None:
    error = listen_error(OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address"), "10.9.9.9", 80)
    assert str(error) == "cannot listen on 10.9.9.9:80: no such address on this machine"


async def test_a_unix_socket_serves_its_owner_only(
    demo: ModuleType, echo: Any, serve: Any, tmp_path: pathlib.Path
) -> None:
    path = tmp_path / "api.sock"
    async with serve(echo) as (server, _):
        await server.listen_unix(str(path))
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        channel = connect(f"unix:{path}")
        assert (await demo.EchoStub(channel).once(demo.Everything(text="local"))).text == "local"
        assert echo.contexts[0].peer == "unix"
        await channel.aclose()
        with pytest.raises(CannotListen):
            await server.listen_unix(str(tmp_path / "no" / "such" / "folder"))
    assert not path.exists()


async def test_http1_gets_a_plain_answer_and_garbage_none(serve: Any, echo: Any) -> None:
    async with serve(echo) as (server, port):
        for request, expected in ((b"GET / HTTP/1.1\r\n\r\n", b"gRPC"), (b"\x16\x03\x01\x00garbage", b"")):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request)
            async with asyncio.timeout(5):
                answer = b""
                try:
                    answer = await reader.read()
                except ConnectionResetError:
                    assert not expected
            assert expected in answer
            writer.close()
        assert server.running_calls == 0


async def test_idle_connections_are_closed_and_used_ones_are_not(
    demo: ModuleType, echo: Any, serve: Any, client: Any, eventually: Any
) -> None:
    async with serve(echo) as (server, port), client(port) as stub:

        def pass_the_limit(protocol: Any) -> None:
            protocol._used_s -= PUBLIC.idle_s + 1
            protocol._tick()

        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(stub.once(demo.Everything(text="wait")))
            await eventually(lambda: echo.started == 1)
            protocol = next(iter(server._protocols))
            pass_the_limit(protocol)
            assert not protocol.processor.closed
            echo.release.set()
        assert waiting.result().text == "wait"
        await eventually(lambda: not protocol.processor.streams)
        pass_the_limit(protocol)
        async with asyncio.timeout(5):
            await protocol.closed.wait()
        assert (await stub.once(demo.Everything(text="again"))).text == "again"


async def test_two_services_may_not_have_one_method(demo: ModuleType, echo: Any, descriptors: bytes) -> None:
    with pytest.raises(ValueError, match="served twice"):
        GuardedServer([echo, demo.EchoBase()], descriptors=descriptors)
