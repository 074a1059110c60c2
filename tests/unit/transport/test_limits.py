"""Limits that contradict each other, connections per peer, and what a client must not load."""

from __future__ import annotations

import asyncio
import dataclasses
import subprocess
import sys
from types import ModuleType
from typing import Any

import pytest

from cloudless.coordinator import limits as coordinator
from cloudless.domain.errors import Exhausted
from cloudless.transport.limits import CLIENT, LINK_AGENT, LINK_COORDINATOR, PUBLIC
from cloudless.transport.server import GuardedServer


@pytest.mark.parametrize(
    "change", [{"stream_window_bytes": 128 << 20}, {"frame_bytes": 1024}, {"frame_bytes": 1 << 24}]
)
def test_limits_that_cannot_be_are_refused(change: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"bytes|window"):
        dataclasses.replace(PUBLIC, **change)


@pytest.mark.parametrize("limits", [PUBLIC, CLIENT, LINK_AGENT, LINK_COORDINATOR])
def test_unread_streams_of_one_connection_fit_into_its_window(limits: Any) -> None:
    window = limits.wide_window_bytes or limits.stream_window_bytes
    assert limits.concurrent_streams * window <= limits.connection_window_bytes


def test_a_link_has_streams_for_all_that_the_coordinator_lets_in() -> None:
    calls = coordinator.MAX_LOG_STREAMS + coordinator.MAX_EXECS + coordinator.MAX_FORWARDS
    assert calls < LINK_AGENT.concurrent_streams
    assert LINK_AGENT.concurrent_streams <= LINK_AGENT.resets, "all of them may be given up at once"
    assert LINK_AGENT.connection_window_bytes < 2**31, "HTTP/2 has no larger windows"


@pytest.mark.parametrize("frees_s", [None, 0.1])
async def test_a_call_waits_a_little_for_a_stream_and_then_says_which_limit_it_is(
    demo: ModuleType, echo: Any, serve: Any, client: Any, eventually: Any, frees_s: float | None
) -> None:
    few = dataclasses.replace(PUBLIC, concurrent_streams=2)
    hasty = dataclasses.replace(CLIENT, stream_wait_s=0.2 if frees_s is None else 10.0)
    async with serve(echo, limits=few) as (_, port), client(port, limits=hasty) as stub:
        async with asyncio.TaskGroup() as group:
            for _ in range(2):
                group.create_task(stub.once(demo.Everything(text="wait")))
            await eventually(lambda: echo.started == 2)
            if frees_s is not None:
                asyncio.get_running_loop().call_later(frees_s, echo.release.set)
                assert (await stub.once(demo.Everything(text="late"))).text == "late"
            else:
                with pytest.raises(Exhausted, match="2 calls are open on this connection"):
                    await stub.once(demo.Everything())
                echo.release.set()
        assert (await stub.once(demo.Everything(text="free"))).text == "free"


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


async def test_calls_over_the_limit_of_the_server_are_refused_without_a_task(
    demo: ModuleType, echo: Any, serve: Any, client: Any, eventually: Any
) -> None:
    limits = dataclasses.replace(PUBLIC, calls=3)
    async with serve(echo, limits=limits) as (server, port), client(port) as stub:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(stub.once(demo.Everything(text="wait"))) for _ in range(3)]
            await eventually(lambda: echo.started == 3)
            for _ in range(5):
                with pytest.raises(Exhausted, match="as many calls"):
                    await stub.once(demo.Everything())
            echo.release.set()
        assert len(tasks) == 3
        assert (await stub.once(demo.Everything(text="free"))).text == "free"
        await eventually(lambda: server.calls_running == 0)


async def test_a_blocked_loop_does_not_take_its_peers_for_dead(
    demo: ModuleType, echo: Any, serve: Any, client: Any
) -> None:
    async with serve(echo) as (server, port), client(port) as stub:
        await stub.once(demo.Everything())
        protocol = next(iter(server._protocols))
        protocol._heard_s -= 1000
        protocol._due_s -= 900  # the check comes 900 s too late
        protocol._tick()
        assert not protocol.connection.is_closing()
        assert (await stub.once(demo.Everything(text="alive"))).text == "alive"
        protocol._heard_s -= 1000
        protocol._tick()  # in time, and nothing was heard
        async with asyncio.timeout(5):
            await protocol.closed.wait()


def test_a_client_loads_no_protobuf_and_no_server() -> None:
    check = (
        "import sys, cloudless.transport.channel, cloudless.transport.bidi;"
        "bad = [m for m in sys.modules if m.startswith(('google.', 'aiohttp', 'cloudless.transport.server',"
        " 'cloudless.transport.builtin', 'grpclib.reflection', 'grpclib.health'))];"
        "sys.exit(str(bad) if bad else 0)"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
