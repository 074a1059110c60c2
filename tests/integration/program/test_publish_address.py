"""Where published ports are bound: loopback, the node's own address, and never where nobody is."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest
from tests.integration.program.served import Served, until
from tests.integration.program.test_lifecycle import manifest
from tests.ports import free_ports

from cloudless.agent.addresses import local_addresses


def answers(address: str, port: int) -> bool:
    try:
        with socket.create_connection((address, port), 2):
            return True
    except OSError:
        return False


def test_a_node_publishes_at_its_own_address_too(serve: Callable[..., Served]) -> None:
    addresses = local_addresses()
    if not addresses:
        pytest.skip("needs an address besides loopback")
    mine = addresses[0]
    node = serve("--publish-address", mine, name="publish")
    given, named, missing = free_ports(3)

    def apply(name: str, port: int, code: int = 0, **more: str) -> str:
        ports = [{"name": "http", "container_port": 80, "publish": port, **more}]
        text = manifest(name=name, command=["httpd", "-f", "-p", "80"], ports=ports)
        return node.cli("apply", "-f", "-", "-q", stdin=text, code=code).said

    apply("web", given)
    until(lambda: answers(mine, given) and answers("127.0.0.1", given), "both addresses answer")
    told = node.cli("describe", "web").out
    assert f"http://127.0.0.1:{given} -> 80, this machine only" in told
    assert f"http://{mine}:{given} -> 80, anyone who reaches this address of node-1" in told
    assert mine in node.cli("describe", "node", "node-1").out

    apply("near", named, publish_address="127.0.0.1")
    until(lambda: answers("127.0.0.1", named), "loopback answers")
    assert not answers(mine, named)

    said = apply("far", missing, 4, publish_address="203.0.113.9")
    assert f"node-1: needs address 203.0.113.9 for port 203.0.113.9:{missing}/tcp, has" in said
    node.cli("delete", "far", "--wait", "-q")

    apply("far", missing, publish_address="0.0.0.0")
    told = node.cli("describe", "far").out
    assert "//NODE" not in told
    assert f"http://{mine}:{missing} -> 80, anyone who reaches this address of node-1 (0.0.0.0" in told
