"""Limits that contradict each other, connections per peer, and what a client must not load."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from typing import Any

import pytest

from cloudless.transport.limits import CLIENT, LINK_AGENT, PUBLIC
from cloudless.transport.server import GuardedServer


@pytest.mark.parametrize(
    "change", [{"stream_window_bytes": 128 << 20}, {"frame_bytes": 1024}, {"frame_bytes": 1 << 24}]
)
def test_limits_that_cannot_be_are_refused(change: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"bytes|window"):
        dataclasses.replace(PUBLIC, **change)


@pytest.mark.parametrize("limits", [PUBLIC, CLIENT, LINK_AGENT])
def test_unread_streams_of_one_connection_fit_into_its_window(limits: Any) -> None:
    assert limits.concurrent_streams * limits.stream_window_bytes <= limits.connection_window_bytes


class FakeTransport:
    """A socket from some address, which only remembers that it was cut."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.aborted = False

    def get_extra_info(self, name: str) -> Any:
        return (self.address, 1) if name == "peername" else None

    def abort(self) -> None:
        self.aborted = True


async def test_connections_of_one_peer_are_limited() -> None:
    limits = dataclasses.replace(PUBLIC, connections_per_peer=2)
    server = GuardedServer([], limits=limits)

    def admitted(address: str) -> Any:
        transport: Any = FakeTransport(address)
        protocol = server.admit(transport)
        assert (protocol is None) == transport.aborted
        return protocol

    first, second = admitted("192.0.2.1"), admitted("192.0.2.1")
    assert admitted("192.0.2.1") is None
    assert admitted("192.0.2.2") is not None
    assert all(admitted("127.0.0.1") is not None for _ in range(5))
    first.connection_lost(None)
    assert admitted("192.0.2.1") is not None
    assert admitted("192.0.2.1") is None
    second.connection_lost(None)
    assert server.connections == 7


def test_a_client_loads_no_protobuf_and_no_server() -> None:
    check = (
        "import sys, cloudless.transport.channel, cloudless.transport.bidi;"
        "bad = [m for m in sys.modules if m.startswith(('google.', 'aiohttp', 'cloudless.transport.server',"
        " 'cloudless.transport.builtin', 'grpclib.reflection', 'grpclib.health'))];"
        "sys.exit(str(bad) if bad else 0)"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
