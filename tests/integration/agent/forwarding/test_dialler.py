"""Connections made inside a replica's own network: wherever its program listens, and nowhere else."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator

import pytest

from cloudless.agent.forwarding.dialler import ConnectionRefused, Dialler
from cloudless.agent.network import namespace
from cloudless.agent.network.port import Attachment
from cloudless.agent.probing.outcome import ProbeTarget

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
PORT = 8000


@pytest.fixture
async def dialler() -> AsyncIterator[Dialler]:
    made = Dialler()
    yield made
    made.close()


@contextlib.asynccontextmanager
async def listening(replica: Attachment, address: str) -> AsyncIterator[None]:
    """Somebody in the replica who says where it listens."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(address.encode())
        writer.close()

    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    assert replica.netns_path is not None
    made = await asyncio.to_thread(namespace.open_socket, replica.netns_path, family, socket.SOCK_STREAM)
    made.bind((address, PORT))
    async with await asyncio.start_server(serve, sock=made):
        yield


def target(replica: Attachment) -> ProbeTarget:
    return ProbeTarget(replica.address, replica.netns_path)


async def said(connection: socket.socket) -> str:
    with connection:
        async with asyncio.timeout(10):
            return (await asyncio.get_running_loop().sock_recv(connection, 100)).decode()


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0", "its own", "::1", "::"])
async def test_wherever_a_program_listens(replica: Attachment, dialler: Dialler, address: str) -> None:
    where = replica.address if address == "its own" else address
    async with listening(replica, where):
        assert await said(await dialler.dial(target(replica), PORT, "web/0")) == where


async def test_nobody_listens(replica: Attachment, dialler: Dialler) -> None:
    with pytest.raises(ConnectionRefused, match="nothing listens on port 8000 in replica web/0"):
        await dialler.dial(target(replica), PORT, "web/0")


async def test_a_port_of_the_node_is_not_reached(replica: Attachment, dialler: Dialler) -> None:
    """Neither on 127.0.0.1, which is the replica's own, nor on any other address."""
    with socket.create_server(("0.0.0.0", 0)) as listener, pytest.raises(ConnectionRefused):
        await dialler.dial(target(replica), int(listener.getsockname()[1]), "web/0")


async def test_a_thousand_connections_leave_nothing(replica: Attachment, dialler: Dialler) -> None:
    before = len(os.listdir("/proc/self/fd"))
    async with listening(replica, "127.0.0.1"):
        for _ in range(20):
            made = [dialler.dial(target(replica), PORT, "web/0") for _ in range(50)]
            await asyncio.gather(*(said(one) for one in await asyncio.gather(*made)))
    async with asyncio.timeout(10):  # the server closes its ends a moment later
        while len(os.listdir("/proc/self/fd")) > before + 5:
            await asyncio.sleep(0.01)
