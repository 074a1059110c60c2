"""Dialling in the host's own network; replicas' namespaces are in the integration ring."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest

from cloudless.agent.forwarding import dialler
from cloudless.agent.forwarding.dialler import ConnectionRefused, Dialler
from cloudless.agent.probing.outcome import ProbeTarget
from cloudless.domain.errors import Unavailable

HERE = ProbeTarget("127.0.0.1", None)


@pytest.fixture
def dials() -> Iterator[Dialler]:
    made = Dialler()
    yield made
    made.close()


async def test_a_port_that_accepts(dials: Dialler) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        made = await dials.dial(HERE, listener.getsockname()[1], "web/0")
        accepted, peer = listener.accept()
    with made, accepted:
        assert made.getsockname() == peer
        assert not made.getblocking()


async def test_a_port_where_nobody_listens(dials: Dialler) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(ConnectionRefused, match=f"nothing listens on port {port} in replica web/0") as caught:
        await dials.dial(HERE, port, "web/0")
    assert caught.value.code == "CL-6201"


async def test_a_port_that_does_not_answer(dials: Dialler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialler, "CONNECT_TIMEOUT_S", 0.1)
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, contextlib.ExitStack() as full:
        for _ in range(4):  # nobody accepts, so that further ones get no answer
            waiting = full.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        with pytest.raises(Unavailable, match=r"did not accept a connection to port \d+ within 0.1 s"):
            await dials.dial(HERE, listener.getsockname()[1], "web/0")


async def test_a_namespace_that_is_gone(dials: Dialler) -> None:
    with pytest.raises(Unavailable, match="no such file"):
        await dials.dial(ProbeTarget("10.1.0.2", "/run/no/such/netns"), 80, "web/0")
