"""Probes against servers of this process, on loopback; namespaces are in tests/integration."""

from __future__ import annotations

import asyncio
import datetime
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.ports import free_port

from cloudless.agent.probing.grpc_probe import Answer, Question
from cloudless.agent.probing.outcome import ProbeOutcome, ProbeTarget
from cloudless.agent.probing.prober import Prober
from cloudless.domain.probes import ExecProbe, GrpcProbe, HttpProbe, Probe, TcpProbe
from cloudless.transport.server import GuardedServer

HERE = ProbeTarget("127.0.0.1", None)
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture
async def prober() -> AsyncIterator[Prober]:
    made = Prober()
    yield made
    made.close()


async def no_command(_: tuple[str, ...]) -> int:
    raise AssertionError("this probe runs no command")


def probe(timeout_s: float = 5, **action: object) -> Probe:
    return Probe.model_validate({**action, "timeout": datetime.timedelta(seconds=timeout_s)})


@asynccontextmanager
async def serving(handle: Serve, **options: Any) -> AsyncIterator[int]:
    async def guarded(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handle(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the probe left
        finally:
            writer.close()

    server = await asyncio.start_server(guarded, "127.0.0.1", 0, **options)
    async with server:
        yield int(server.sockets[0].getsockname()[1])


def answering(data: bytes, asked: list[bytes] | None = None) -> Serve:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        if asked is not None:
            asked.append(request)
        writer.write(data)
        await writer.drain()

    return handle


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


@pytest.mark.parametrize(
    ("status", "ok"), [(200, True), (204, True), (302, True), (399, True), (400, False), (503, False)]
)
async def test_http_counts_the_status(prober: Prober, status: int, ok: bool) -> None:
    text = f"HTTP/1.1 {status} Whatever\r\nContent-Length: 0\r\nLocation: http://192.0.2.9/\r\n\r\n"
    async with serving(answering(text.encode())) as port:
        outcome = await prober.attempt(probe(http=HttpProbe(port=port)), HERE, no_command)
    assert outcome == ProbeOutcome(ok, f"HTTP {status}")


async def test_http_sends_what_the_spec_says(prober: Prober) -> None:
    asked: list[bytes] = []
    async with serving(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", asked)) as port:
        action = HttpProbe(port=port, path="/a%20b?c=%2F&d", headers={"Host": "web.example", "X-Probe": "1"})
        assert (await prober.attempt(probe(http=action), HERE, no_command)).ok
    head = asked[0].split(b"\r\n")
    assert head[0] == b"GET /a%20b?c=%2F&d HTTP/1.1"
    assert {b"Host: web.example", b"X-Probe: 1", b"User-Agent: cloudless-probe"} <= set(head)


async def test_http_does_not_wait_for_the_body(prober: Prober) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n" + b"x" * 100)
        await reader.read()

    async with serving(handle) as port:
        assert await prober.attempt(probe(http=HttpProbe(port=port)), HERE, no_command) == ProbeOutcome(
            True, "HTTP 200"
        )


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"", "closed without an answer"),
        (b"HTTP/1.1", "no HTTP answer"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "no HTTP answer"),
        (b"HTTP/1.1 2x0\r\n\r\n", "no HTTP answer"),
        (b"HTTP/1.1 0200 OK\r\n\r\n", "no HTTP answer"),
        (b"\0" * 100_000, "no HTTP answer"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 10_000, "no HTTP answer"),
    ],
)
async def test_no_http_is_a_failure(prober: Prober, answer: bytes, message: str) -> None:
    async with serving(answering(answer)) as port:
        outcome = await prober.attempt(probe(http=HttpProbe(port=port)), HERE, no_command)
    assert outcome == ProbeOutcome(False, message)


async def test_http_asks_once(prober: Prober) -> None:
    asked: list[bytes] = []
    async with serving(answering(b"", asked)) as port:
        await prober.attempt(probe(http=HttpProbe(port=port)), HERE, no_command)
    assert len(asked) == 1


async def test_http_skips_what_comes_before_the_answer(prober: Prober) -> None:
    text = b"HTTP/1.1 100 Continue\r\nX: y\r\n\r\nHTTP/1.0 201\r\n\r\n"
    async with serving(answering(text)) as port:
        outcome = await prober.attempt(probe(http=HttpProbe(port=port)), HERE, no_command)
    assert outcome == ProbeOutcome(True, "HTTP 201")


async def test_https_takes_any_certificate(prober: Prober, tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj /CN=x"
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    subprocess.run(
        [*command.split(), "-keyout", key, "-out", certificate], check=True, stderr=subprocess.DEVNULL
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    async with serving(answering(b"HTTP/1.1 200 OK\r\n\r\n"), ssl=context) as port:
        outcome = await prober.attempt(probe(http=HttpProbe(port=port, scheme="https")), HERE, no_command)
    assert outcome == ProbeOutcome(True, "HTTP 200")


@pytest.mark.parametrize("kind", ["http", "tcp", "grpc"])
async def test_nobody_listens(prober: Prober, kind: str) -> None:
    action = {"http": HttpProbe, "tcp": TcpProbe, "grpc": GrpcProbe}[kind](port=free_port())
    outcome = await prober.attempt(probe(**{kind: action}), HERE, no_command)
    assert outcome == ProbeOutcome(False, "connection refused")


@pytest.mark.parametrize("kind", ["http", "grpc"])
async def test_time_is_limited(prober: Prober, kind: str) -> None:
    async with serving(silent) as port:
        action = {"http": HttpProbe, "grpc": GrpcProbe}[kind](port=port)
        outcome = await prober.attempt(probe(0.1, **{kind: action}), HERE, no_command)
    assert outcome == ProbeOutcome(False, "timed out after 0.1s")


async def test_tcp(prober: Prober) -> None:
    async with serving(silent) as port:
        outcome = await prober.attempt(probe(tcp=TcpProbe(port=port)), HERE, no_command)
    assert outcome == ProbeOutcome(True, "connected")


async def test_grpc_health(prober: Prober) -> None:
    async with GuardedServer([]) as server:
        server.health.set(True)
        port = await server.listen("127.0.0.1", 0)
        good = await prober.attempt(probe(grpc=GrpcProbe(port=port)), HERE, no_command)
        unknown = await prober.attempt(probe(grpc=GrpcProbe(port=port, service="nobody")), HERE, no_command)
    assert good == ProbeOutcome(True, "SERVING")
    assert unknown == ProbeOutcome(False, "no health answer (NotFound)")


async def test_grpc_against_something_else(prober: Prober) -> None:
    async with serving(answering(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as port:
        outcome = await prober.attempt(probe(grpc=GrpcProbe(port=port)), HERE, no_command)
    assert not outcome.ok


@pytest.mark.parametrize(("code", "ok"), [(0, True), (1, False), (137, False)])
async def test_exec(prober: Prober, code: int, ok: bool) -> None:
    ran: list[tuple[str, ...]] = []

    async def run(command: tuple[str, ...]) -> int:
        ran.append(command)
        return code

    outcome = await prober.attempt(probe(exec=ExecProbe(command=("test", "-f", "/x"))), HERE, run)
    assert outcome == ProbeOutcome(ok, f"exit code {code}")
    assert ran == [("test", "-f", "/x")]


async def test_a_command_is_ended_when_its_time_is_up(prober: Prober) -> None:
    ended = asyncio.Event()

    async def run(_: tuple[str, ...]) -> int:
        try:
            return await asyncio.Future()
        finally:
            ended.set()

    outcome = await prober.attempt(probe(0.05, exec=ExecProbe(command=("sleep",))), HERE, run)
    assert outcome == ProbeOutcome(False, "timed out after 0.05s")
    assert ended.is_set()


async def test_cancelling_is_not_swallowed(prober: Prober) -> None:
    async with serving(silent) as port:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await prober.attempt(probe(60, http=HttpProbe(port=port)), HERE, no_command)


async def test_a_namespace_that_is_gone(prober: Prober) -> None:
    target = ProbeTarget("10.0.0.1", "/run/cloudless/no-such-namespace")
    outcome = await prober.attempt(probe(tcp=TcpProbe(port=80)), target, no_command)
    assert outcome == ProbeOutcome(False, "the replica's network is gone")


def test_health_messages_are_protobuf() -> None:
    from grpc_health.v1 import health_pb2

    for name in ("", "web", "x" * 200):
        wire = Question(name).SerializeToString()
        assert health_pb2.HealthCheckRequest.FromString(wire).service == name
    for status in (0, 1, 2, 3):
        wire = health_pb2.HealthCheckResponse(status=status).SerializeToString()
        assert Answer.FromString(wire).status == status
