"""What a hostile or broken client does to a server: judged by what it costs, and whom."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import socket
import struct
from types import ModuleType
from typing import Any

import h2.events
import pytest
from h2.errors import ErrorCodes
from hyperframe.frame import (
    DataFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from cloudless.transport.channel import connect
from cloudless.transport.codec import encode
from cloudless.transport.limits import PUBLIC, WRITE_BUFFER_BYTES

UNKNOWN_FRAME = b"\0\0\4\xfa\xff\0\0\0\0abcd"
QUICK = dataclasses.replace(PUBLIC, handshake_s=0.2, request_body_s=0.2, send_stall_s=0.2)


async def unharmed(demo: ModuleType, port: int) -> None:
    """Another client is served while and after an attack runs."""
    channel = connect(f"127.0.0.1:{port}")
    try:
        answer = await demo.EchoStub(channel).once(demo.Everything(text="still here"))
        assert answer.text == "still here"
    finally:
        await channel.aclose()


async def test_rapid_resets_end_the_connection_and_leave_nothing(
    demo: ModuleType, echo: Any, serve: Any, raw_peer: Any, eventually: Any
) -> None:
    async with serve(echo) as (server, port):
        peer = await raw_peer(port)
        for _ in range(1000):
            stream = peer.call("Once")
            peer.h2.reset_stream(stream, ErrorCodes.CANCEL)
        peer.flush()
        await peer.closed()
        assert peer.goaway().error_code == ErrorCodes.ENHANCE_YOUR_CALM
        await eventually(lambda: server.running_calls == 0)
        assert echo.started <= PUBLIC.resets
        await unharmed(demo, port)
        assert not any(protocol.processor.streams for protocol in server._protocols)


async def test_a_client_may_leave_streams_that_are_answered_as_often_as_it_likes(
    demo: ModuleType, echo: Any, serve: Any, eventually: Any
) -> None:
    async with serve(echo) as (server, port):
        channel = connect(f"127.0.0.1:{port}")
        try:
            stub = demo.EchoStub(channel)
            for _ in range(2 * PUBLIC.resets):
                call = stub.many(demo.Everything(int32_value=1, text="wait"))
                async with contextlib.aclosing(call) as answers:
                    async for _ in answers:
                        break
            await stub.once(demo.Everything(text="still here"))
            assert len(server._protocols) == 1, "it is the same connection"
        finally:
            await channel.aclose()
        await eventually(lambda: server.running_calls == 0)


async def test_resets_that_the_server_is_made_to_send_count_too(
    demo: ModuleType, echo: Any, serve: Any, raw_peer: Any, eventually: Any
) -> None:
    async with serve(echo) as (server, port):
        peer = await raw_peer(port)
        for _ in range(1000):
            stream = peer.call("Once")
            # A window that overflows is an error of the stream: the server must reset it.
            peer.raw(WindowUpdateFrame(stream, window_increment=2**31 - 1))
        await peer.closed()
        assert peer.goaway().error_code == ErrorCodes.ENHANCE_YOUR_CALM
        await eventually(lambda: server.running_calls == 0)
        await unharmed(demo, port)


@pytest.mark.parametrize(
    "frame",
    [
        PingFrame(0, opaque_data=b"12345678"),
        SettingsFrame(0, settings={4: 65535}),
        PriorityFrame(1, stream_weight=3),
        DataFrame(1),
        UNKNOWN_FRAME,
        RstStreamFrame(1, error_code=8),
        WindowUpdateFrame(0, window_increment=1),
    ],
    ids=lambda frame: type(frame).__name__,
)
async def test_floods_of_control_frames_end_the_connection(
    frame: Any, demo: ModuleType, echo: Any, serve: Any, raw_peer: Any, eventually: Any
) -> None:
    async with serve(echo) as (server, port):
        peer = await raw_peer(port)
        stream = peer.call("Collect")
        assert stream == 1
        if isinstance(frame, RstStreamFrame):
            peer.raw(frame)
        await asyncio.sleep(0)
        peer.raw(*[frame] * 2000)
        await peer.closed()
        assert peer.goaway().error_code == ErrorCodes.ENHANCE_YOUR_CALM
        await eventually(lambda: server.running_calls == 0)
        await unharmed(demo, port)


async def test_a_peer_that_never_reads_is_not_read_either(
    demo: ModuleType, echo: Any, serve: Any, raw_peer: Any, eventually: Any
) -> None:
    limits = dataclasses.replace(PUBLIC, control_frames=10**9)
    async with serve(echo, limits=limits) as (server, port):
        # Little room in the kernel, so that the server's own buffer has to fill.
        server._listeners[0].sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        peer = await raw_peer(port, receive_bytes=4096)
        peer.writer.transport.pause_reading()
        peer.raw(PingFrame(0, opaque_data=b"12345678").serialize() * 60_000)
        await eventually(lambda: any(protocol._paused for protocol in server._protocols))
        protocol = next(iter(server._protocols))
        waiting = protocol.connection._socket.get_write_buffer_size()
        assert waiting <= 1024 * 1024
        assert waiting >= WRITE_BUFFER_BYTES // 2
        await unharmed(demo, port)


async def test_unknown_frames_and_settings_are_ignored(
    demo: ModuleType, echo: Any, serve: Any, raw_peer: Any
) -> None:
    async with serve(echo) as (_, port):
        peer = await raw_peer(port)
        peer.raw(UNKNOWN_FRAME, SettingsFrame(0, settings={0x0A0A: 7}))
        stream = peer.call("Once")
        peer.raw(UNKNOWN_FRAME)
        peer.message(stream, encode(demo.Everything(text="hello")))
        assert (await peer.status(stream))["grpc-status"] == "0"


REFUSALS = [
    ((":method", "GET"), "405", "3"),
    (("content-type", "application/json"), "415", "3"),
    (("content-type", "application/grpc+json"), "415", "3"),
    (("te", "gzip"), "400", "3"),
    ((":path", "/demo.Echo/Nothing"), "200", "12"),
    ((":path", "*"), "200", "12"),
    (("grpc-timeout", "99999999999999999999H"), "200", "3"),
    (("grpc-timeout", "5"), "200", "3"),
    (("grpc-timeout", "-5S"), "200", "3"),
    (("x-bin", "a"), "200", "3"),
    (("x-bin", "!!!!"), "200", "3"),
    (("x-text", "f\u00fc"), "200", "3"),
]


@pytest.mark.parametrize(("field", "http_status", "code"), REFUSALS, ids=lambda value: str(value))
async def test_bad_headers_are_answered_at_once(
    field: tuple[str, str],
    http_status: str,
    code: str,
    demo: ModuleType,
    echo: Any,
    serve: Any,
    raw_peer: Any,
) -> None:
    async with serve(echo) as (_, port):
        peer = await raw_peer(port)
        status = await peer.status(peer.call("Once", field))
        assert status[":status"] == http_status
        assert status["grpc-status"] == code
        assert status["grpc-message"]
        assert echo.started == 0
        good = peer.call("Once")
        peer.message(good, encode(demo.Everything(text="hello")))
        assert (await peer.status(good))["grpc-status"] == "0"


BODIES = [
    (b"", 3, "no message"),
    (struct.pack(">BI", 1, 1) + b"x", 12, "compressed"),
    (struct.pack(">BI", 7, 1) + b"x", 12, "compressed"),
    (struct.pack(">BI", 0, 100) + b"x", 3, "too early"),
    (b"\0\0", 3, "too early"),
    (struct.pack(">BI", 0, 0xFFFFFFFF), 8, "at most"),
    (struct.pack(">BI", 0, PUBLIC.message_bytes + 1), 8, "at most"),
    (struct.pack(">BI", 0, 0) * 2, 3, "more than one"),
    (struct.pack(">BI", 0, 2) + b"\x72\x7f", 3, "text: the message is truncated"),
]


@pytest.mark.parametrize(("body", "code", "text"), BODIES, ids=lambda value: repr(value)[:24])
@pytest.mark.parametrize("method", ["Once", "Many"])
async def test_bad_bodies_of_unary_requests_are_answered(
    body: bytes, code: int, text: str, method: str, echo: Any, serve: Any, raw_peer: Any, eventually: Any
) -> None:
    async with serve(echo) as (server, port):
        peer = await raw_peer(port)
        stream = peer.call(method)
        peer.h2.send_data(stream, body, end_stream=True)
        peer.flush()
        status = await peer.status(stream)
        assert status["grpc-status"] == str(code)
        assert text in status["grpc-message"]
        await eventually(lambda: server.running_calls == 0)


async def test_a_message_cut_in_the_middle_of_a_stream_is_answered(
    demo: ModuleType, echo: Any, serve: Any, raw_peer: Any
) -> None:
    async with serve(echo) as (_, port):
        peer = await raw_peer(port)
        stream = peer.call("Talk")
        peer.message(stream, encode(demo.Everything(text="one")), end=False)
        await peer.until(lambda event: isinstance(event, h2.events.DataReceived))
        peer.h2.send_data(stream, struct.pack(">BI", 0, 9) + b"x", end_stream=True)
        peer.flush()
        assert (await peer.status(stream))["grpc-status"] == "3"


async def test_a_message_in_one_byte_frames_with_empty_ones_between_is_read(
    demo: ModuleType, echo: Any, serve: Any, raw_peer: Any
) -> None:
    async with serve(echo) as (_, port):
        peer = await raw_peer(port)
        stream = peer.call("Once")
        data = encode(demo.Everything(text="piecemeal"))
        for byte in struct.pack(">BI", 0, len(data)) + data:
            peer.raw(DataFrame(stream, data=bytes((byte,))), DataFrame(stream))
        peer.raw(DataFrame(stream, flags=["END_STREAM"]))
        assert (await peer.status(stream))["grpc-status"] == "0"
        assert b"piecemeal" in b"".join(
            event.data for event in peer.events if isinstance(event, h2.events.DataReceived)
        )


async def test_padding_costs_the_sender_window_but_is_given_back(
    demo: ModuleType, echo: Any, serve: Any, raw_peer: Any
) -> None:
    limits = dataclasses.replace(PUBLIC, stream_window_bytes=65536)
    async with serve(echo, limits=limits) as (_, port):
        peer = await raw_peer(port)
        await peer.until(lambda event: isinstance(event, h2.events.RemoteSettingsChanged))
        stream = peer.call("Once")
        data = encode(demo.Everything(raw=bytes(2000)))
        for byte in struct.pack(">BI", 0, len(data)) + data:
            while peer.h2.local_flow_control_window(stream) < 300:
                await peer.step()
            peer.h2.send_data(stream, bytes((byte,)), pad_length=250)
            peer.flush()
        peer.h2.end_stream(stream)
        peer.flush()
        assert (await peer.status(stream))["grpc-status"] == "0"


async def test_a_request_that_never_ends_is_answered_in_time(
    demo: ModuleType, echo: Any, serve: Any, raw_peer: Any, eventually: Any
) -> None:
    async with serve(echo, limits=QUICK) as (server, port):
        peer = await raw_peer(port)
        streams = [peer.call("Once") for _ in range(50)]
        half = peer.call("Once")
        peer.message(half, encode(demo.Everything(text="x")), end=False)
        for stream in [*streams, half]:
            assert (await peer.status(stream))["grpc-status"] == "4"
        await eventually(lambda: server.running_calls == 0)
        assert echo.started == 0


async def test_a_silent_connection_is_closed(serve: Any, echo: Any, raw_peer: Any) -> None:
    async with serve(echo, limits=QUICK) as (server, port):
        silent = await raw_peer(port, start=False)
        half = await raw_peer(port, start=False)
        half.writer.write(b"PRI * HT")
        preface_only = await raw_peer(port, start=False)
        preface_only.writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        for peer in (silent, half, preface_only):
            peer.h2.initiate_connection()
            await peer.closed()
        assert server.connections == 0


async def test_one_unread_stream_does_not_block_another(
    demo: ModuleType, echo: Any, serve: Any, raw_peer: Any, eventually: Any
) -> None:
    async with serve(echo) as (_, port):
        channel = connect(f"127.0.0.1:{port}")
        stub = demo.EchoStub(channel)
        unread = [stub.many(demo.Everything(int32_value=10**6, raw=bytes(10_000))) for _ in range(20)]
        for stream in unread:
            await anext(stream)
        answer = await stub.once(demo.Everything(raw=bytes(900_000)), timeout=5)
        assert len(answer.raw) == 900_000
        for stream in unread:
            await stream.aclose()
        await eventually(lambda: echo.closed == 20)
        await channel.aclose()


async def test_a_reader_that_stops_is_cut_off_and_its_handler_closed(
    demo: ModuleType, echo: Any, serve: Any, raw_peer: Any, eventually: Any
) -> None:
    async with serve(echo, limits=QUICK) as (server, port):
        peer = await raw_peer(port)
        stream = peer.call("Many")
        peer.message(stream, encode(demo.Everything(int32_value=10**6, raw=bytes(1000))))
        # Window of the stream used up; the connection itself is read.
        status = await peer.status(stream)
        assert status["grpc-status"] == "14"
        assert echo.closed == 1
        await eventually(lambda: server.running_calls == 0)


async def test_streams_over_the_limit_are_refused_one_by_one(
    demo: ModuleType, echo: Any, serve: Any, raw_peer: Any
) -> None:
    limits = dataclasses.replace(PUBLIC, concurrent_streams=10)
    async with serve(echo, limits=limits) as (server, port):
        peer = await raw_peer(port)
        peer.h2.remote_settings.max_concurrent_streams = 1000
        streams = [peer.call("Collect") for _ in range(15)]
        await peer.until(
            lambda event: isinstance(event, h2.events.StreamReset) and event.stream_id == streams[-1]
        )
        refused = [event.stream_id for event in peer.events if isinstance(event, h2.events.StreamReset)]
        assert refused == streams[10:]
        assert server.running_calls == 10
        peer.message(streams[0], b"")
        assert (await peer.status(streams[0]))["grpc-status"] == "0"


@pytest.mark.parametrize("change", [{"concurrent_streams": 5}, {"calls": 5}], ids=str)
async def test_refusing_a_stream_that_is_reset_in_the_same_breath(
    change: dict[str, int], demo: ModuleType, echo: Any, serve: Any, raw_peer: Any, eventually: Any
) -> None:
    async with serve(echo, limits=dataclasses.replace(PUBLIC, **change)) as (server, port):
        peer = await raw_peer(port)
        await peer.until(lambda event: isinstance(event, h2.events.RemoteSettingsChanged))
        peer.h2.remote_settings.max_concurrent_streams = 1000
        peer.h2.remote_settings.acknowledge()
        kept = [peer.call("Collect") for _ in range(5)]
        await eventually(lambda: server.running_calls == 5)
        for _ in range(5):
            stream = peer.h2.get_next_available_stream_id()
            peer.h2.send_headers(stream, [(":method", "POST"), (":path", "/demo.Echo/Once")])
            peer.h2.reset_stream(stream)
        peer.flush()
        peer.message(kept[0], b"")
        assert (await peer.status(kept[0]))["grpc-status"] == "0"


async def test_headers_over_the_limit_end_the_connection(
    demo: ModuleType, echo: Any, serve: Any, raw_peer: Any
) -> None:
    async with serve(echo) as (_, port):
        peer = await raw_peer(port)
        peer.call("Once", *[(f"x-{number}", "y" * 1000) for number in range(17)])
        await peer.closed()
        assert peer.goaway() is not None
        await unharmed(demo, port)


async def test_connections_are_counted_and_freed(
    demo: ModuleType, echo: Any, serve: Any, raw_peer: Any, eventually: Any
) -> None:
    limits = dataclasses.replace(PUBLIC, connections=5)
    async with serve(echo, limits=limits) as (server, port):
        peers = [await raw_peer(port) for _ in range(5)]
        for peer in peers:
            await peer.until(lambda event: isinstance(event, h2.events.RemoteSettingsChanged))
        sixth = await raw_peer(port)
        await sixth.closed()
        peers[0].writer.close()
        await eventually(lambda: server.connections < 5)
        await unharmed(demo, port)


async def test_a_stream_message_that_drips_is_answered(
    demo: ModuleType, echo: Any, serve: Any, raw_peer: Any
) -> None:
    async with serve(echo, limits=QUICK) as (_, port):
        peer = await raw_peer(port)
        stream = peer.call("Talk")
        peer.h2.send_data(stream, struct.pack(">BI", 0, 100) + b"x")
        peer.flush()
        assert (await peer.status(stream))["grpc-status"] == "4"


async def test_a_reader_that_takes_a_byte_at_a_time_is_cut_off(
    demo: ModuleType, echo: Any, serve: Any, raw_peer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloudless.transport.stream.SLOWEST_PEER_BYTES_PER_S", 10**9)
    async with serve(echo, limits=QUICK) as (_, port):
        peer = await raw_peer(port)
        stream = peer.call("Many")
        peer.message(stream, encode(demo.Everything(int32_value=10, raw=bytes(14_000))))

        def drip(event: Any) -> bool:
            if peer.h2.local_flow_control_window(stream) >= 0 and not peer.eof:
                peer.raw(WindowUpdateFrame(stream, window_increment=1))
            return isinstance(event, h2.events.TrailersReceived)

        trailers = await peer.until(drip)
        assert dict(trailers.headers)[b"grpc-status"] == b"14"
