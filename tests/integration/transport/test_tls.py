"""TLS on both kinds of connections: the rooms are ready for it."""

from __future__ import annotations

import asyncio
import pathlib
import shutil
import ssl
import subprocess
from typing import Any

import pytest

from cloudless.domain.errors import Unavailable
from cloudless.transport.channel import connect
from cloudless.transport.limits import PUBLIC, Limits
from cloudless.transport.link import dial_link
from cloudless.transport.server import GuardedServer

HEALTH = "/grpc.health.v1.Health/Check"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[pathlib.Path, pathlib.Path]:
    """A self-signed certificate for localhost and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("tls")
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    files = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    subprocess.run([*command, *files, "-days", "1", *subject], check=True, capture_output=True)
    return folder / "cert.pem", folder / "key.pem"


@pytest.fixture
def contexts(certificate: tuple[pathlib.Path, pathlib.Path]) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Server's and client's, both with h2 in ALPN."""
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(*certificate)
    calling = ssl.create_default_context(cafile=str(certificate[0]))
    for context in (serving, calling):
        context.set_alpn_protocols(["h2"])
    return serving, calling


async def healthy(server: GuardedServer, channel: Any) -> bool:
    """Ask for the server's health with protobuf's own messages."""
    method = server.methods[HEALTH]
    call = channel.request(HEALTH, method.cardinality, method.request_type, method.reply_type, timeout=5)
    async with call as stream:
        await stream.send_message(method.request_type(), end=True)
        answer = await stream.recv_message()
    return bool(answer.status == 1)


async def test_calls_over_tls(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    async with GuardedServer([]) as server:
        server.health.set(True)
        port = await server.listen("127.0.0.1", 0, ssl=contexts[0])
        channel = connect(f"127.0.0.1:{port}", ssl=contexts[1])
        assert await healthy(server, channel)
        await channel.aclose()
        stranger = connect(f"127.0.0.1:{port}", ssl=ssl.create_default_context())
        with pytest.raises(Unavailable, match="cannot reach"):
            await healthy(server, stranger)


async def test_links_over_tls(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    class Registry:
        def __init__(self) -> None:
            self.channels: asyncio.Queue[Any] = asyncio.Queue()

        async def admit(self, hello: dict[str, Any], peer: str) -> dict[str, Any]:
            return {}

        def connected(self, hello: dict[str, Any], channel: Any) -> None:
            self.channels.put_nowait(channel)

    registry = Registry()
    async with GuardedServer([], links=registry) as coordinator, GuardedServer([], name="agent") as agent:
        port = await coordinator.listen("127.0.0.1", 0, ssl=contexts[0])
        link = await dial_link("127.0.0.1", port, {"node": "n1"}, agent, ssl=contexts[1])
        channel = await registry.channels.get()
        agent.health.set(True)
        assert await healthy(agent, channel)
        await link.close()
        async with asyncio.timeout(5):
            await channel.closed.wait()


async def test_a_peer_that_never_starts_tls_is_cut(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    limits = Limits(handshake_s=0.2)
    assert PUBLIC.handshake_s == 5.0
    async with GuardedServer([], limits=limits) as server:
        port = await server.listen("127.0.0.1", 0, ssl=contexts[0])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        async with asyncio.timeout(5):
            assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
