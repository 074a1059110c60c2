"""Probes reach a replica in its own network namespace, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import os
import socket
from collections.abc import AsyncIterator

import pytest
from tests.integration.agent.threads import networks_of_threads

from cloudless.agent.network import namespace
from cloudless.agent.network.port import Attachment
from cloudless.agent.probing.outcome import ProbeOutcome, ProbeTarget
from cloudless.agent.probing.prober import Prober
from cloudless.domain.probes import HttpProbe, Probe, TcpProbe

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
#: Long enough for a busy machine: no test here is about a probe that takes too long.
PATIENT = datetime.timedelta(seconds=10)


@pytest.fixture
async def prober() -> AsyncIterator[Prober]:
    made = Prober()
    yield made
    made.close()


async def no_command(_: tuple[str, ...]) -> int:
    raise AssertionError("this probe runs no command")


@contextlib.asynccontextmanager
async def web_server(path: str, address: str, status: int) -> AsyncIterator[None]:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % status)
        writer.close()

    listener = await asyncio.to_thread(namespace.open_socket, path, socket.AF_INET, socket.SOCK_STREAM)
    listener.bind((address, 80))
    async with await asyncio.start_server(handle, sock=listener):
        yield


@pytest.mark.parametrize("status", [200, 503])
async def test_http_in_the_replica(replica: Attachment, prober: Prober, status: int) -> None:
    assert replica.netns_path is not None
    target = ProbeTarget(replica.address, replica.netns_path)
    async with web_server(replica.netns_path, "0.0.0.0", status):
        outcome = await prober.attempt(Probe(http=HttpProbe(port=80), timeout=PATIENT), target, no_command)
    assert outcome == ProbeOutcome(status == 200, f"HTTP {status}")


async def test_a_port_of_the_host_is_not_reached(replica: Attachment, prober: Prober) -> None:
    with socket.create_server(("0.0.0.0", 0)) as listener:
        port = int(listener.getsockname()[1])
        target = ProbeTarget(replica.address, replica.netns_path)
        outcome = await prober.attempt(Probe(tcp=TcpProbe(port=port), timeout=PATIENT), target, no_command)
    assert outcome == ProbeOutcome(False, "connection refused")


async def test_a_thousand_probes_leave_nothing(replica: Attachment, prober: Prober) -> None:
    assert replica.netns_path is not None
    target = ProbeTarget(replica.address, replica.netns_path)
    async with web_server(replica.netns_path, "0.0.0.0", 200):
        probe = Probe(http=HttpProbe(port=80), timeout=PATIENT)
        await prober.attempt(probe, target, no_command)
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(10):
            outcomes = await asyncio.gather(*(prober.attempt(probe, target, no_command) for _ in range(20)))
            assert all(outcome.ok for outcome in outcomes)
        async with asyncio.timeout(10):  # the server closes its ends a moment later
            while len(os.listdir("/proc/self/fd")) > before + 20:
                await asyncio.sleep(0.01)
    own = os.readlink("/proc/self/ns/net")
    assert networks_of_threads() == {own}
