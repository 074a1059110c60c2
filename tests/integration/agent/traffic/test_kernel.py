"""Published ports with real packets: who answers, what the server sees, what is left behind."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.integration.agent.traffic.wires import (
    Client,
    Wires,
    answering,
    ask,
    host_address,
    outside,
    socket_in,
)
from tests.ports import free_port

from cloudless.agent.network.port import Attachment
from cloudless.agent.traffic import rules
from cloudless.agent.traffic.port import Backend, Endpoint

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
ANY, LOOPBACK = "0.0.0.0", "127.0.0.1"


@pytest.fixture
async def wires(tmp_path: Path) -> AsyncIterator[Wires]:
    made = Wires(tmp_path)
    yield made
    await made.traffic.switch({})
    await made.network.collect(())
    await made.network.close()
    await made.traffic.close()
    assert made.traffic.names.mark not in tables()
    subprocess.run(["rm", "-rf", made.run], check=True)


@pytest.fixture
async def replicas(wires: Wires) -> AsyncIterator[list[Attachment]]:
    """Three replicas that answer on port 80 with their names."""
    made = [await wires.replica(name) for name in ("one", "two", "three")]
    with ExitStack() as stack:
        for replica in made:
            stack.enter_context(answering(await socket_in(replica), 80, replica.id))
        yield made


def tables() -> str:
    return subprocess.run(["nft", "list", "tables"], check=True, capture_output=True, text=True).stdout


def backends(*replicas: Attachment, weight: int = 1) -> tuple[Backend, ...]:
    return tuple(Backend(replica.address, 80, weight) for replica in replicas)


async def test_connections_are_shared_out_evenly(wires: Wires, replicas: list[Attachment]) -> None:
    port = free_port()
    await wires.traffic.switch({Endpoint(LOOPBACK, port): backends(*replicas)})
    names = Counter([(await ask(LOOPBACK, port))[0] for _ in range(30)])
    assert names == {"one": 10, "two": 10, "three": 10}


async def test_weights_share_out_unevenly(wires: Wires, replicas: list[Attachment]) -> None:
    port = free_port()
    one, two, _ = replicas
    weighted = (*backends(one, weight=90), *backends(two, weight=10))
    await wires.traffic.switch({Endpoint(LOOPBACK, port): weighted})
    names = Counter([(await ask(LOOPBACK, port))[0] for _ in range(30)])
    assert names == {"one": 27, "two": 3}


@pytest.mark.parametrize("weights", [(500, 300, 200), (899, 91, 10), (333_333, 333_333, 333_334)])
async def test_weights_by_chance_come_out_as_they_should(
    wires: Wires, replicas: list[Attachment], weights: tuple[int, ...]
) -> None:
    port, asked = free_port(), 2000
    weighted = tuple(
        Backend(replica.address, 80, weight) for replica, weight in zip(replicas, weights, strict=True)
    )
    await wires.traffic.switch({Endpoint(LOOPBACK, port): weighted})
    names = Counter([(await ask(LOOPBACK, port))[0] for _ in range(asked)])
    expected = [asked * weight / sum(weights) for weight in weights]
    found = [names[replica.id] for replica in replicas]
    distance = sum((have - want) ** 2 / want for have, want in zip(found, expected, strict=True))
    # Chi-square with two degrees of freedom is above 23 once in 100,000 times.
    assert distance < 23, f"{found} instead of {expected}"


async def test_a_switch_moves_new_connections_and_no_established_one(
    wires: Wires, replicas: list[Attachment]
) -> None:
    port = free_port()
    one, two, _ = replicas
    endpoint = Endpoint(LOOPBACK, port)
    await wires.traffic.switch({endpoint: backends(one)})
    async with Client() as client:
        await client.connect(LOOPBACK, port)
        assert (await client.ask())[0] == "one"
        assert one.netns_path is not None
        assert await wires.traffic.connections(one.netns_path, frozenset({80})) == 1
        assert await wires.traffic.connections(one.netns_path, frozenset({81})) == 0
        await wires.traffic.switch({endpoint: backends(two)})
        assert {(await ask(LOOPBACK, port))[0] for _ in range(10)} == {"two"}
        await wires.traffic.switch({})
        assert (await client.ask())[0] == "one"
    async with asyncio.timeout(20):
        while True:
            if not await wires.traffic.connections(one.netns_path, frozenset({80})):
                break
            await asyncio.sleep(0.01)


async def test_with_nobody_ready_connections_are_refused_at_once(wires: Wires, tmp_path: Path) -> None:
    await wires.replica("one")
    port = free_port()
    await wires.traffic.switch({Endpoint(ANY, port): ()})
    with socket.create_server(("0.0.0.0", port)):  # a stranger must not get them
        for address in (LOOPBACK, host_address()):
            with pytest.raises(ConnectionRefusedError):
                await ask(address, port)
        async with outside(tmp_path) as machine:
            with pytest.raises(ConnectionRefusedError):
                await ask(machine.node, port, await machine.socket())


async def test_udp_with_nobody_ready_is_refused_at_once(wires: Wires) -> None:
    await wires.replica("one")
    port = free_port()
    await wires.traffic.switch({Endpoint(LOOPBACK, port, "udp"): ()})
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.setblocking(False)
        client.connect((LOOPBACK, port))
        # On its own machine the kernel does not even let it out.
        with pytest.raises((ConnectionRefusedError, PermissionError)):
            async with asyncio.timeout(10):
                while True:
                    await loop.sock_sendall(client, b"?")
                    await asyncio.sleep(0.01)


async def test_clients_keep_their_address(wires: Wires, replicas: list[Attachment], tmp_path: Path) -> None:
    port = free_port()
    one, two, _ = replicas
    await wires.traffic.switch({Endpoint(ANY, port): backends(one)})
    async with outside(tmp_path) as machine:
        assert await ask(machine.node, port, await machine.socket()) == ("one", machine.address)
    assert await ask(host_address(), port) == ("one", host_address())
    assert one.gateway is not None
    # Only where the answer would not come back else: from loopback, and from another replica.
    assert await ask(LOOPBACK, port) == ("one", one.gateway)
    assert await ask(host_address(), port, await socket_in(two)) == ("one", one.gateway)
    assert await ask(host_address(), port, await socket_in(one)) == ("one", one.gateway)


async def test_a_port_on_loopback_is_for_this_machine_only(
    wires: Wires, replicas: list[Attachment], tmp_path: Path
) -> None:
    port = free_port()
    await wires.traffic.switch({Endpoint(LOOPBACK, port): backends(*replicas)})
    assert (await ask(LOOPBACK, port))[0] in ("one", "two", "three")
    with pytest.raises(ConnectionRefusedError):
        await ask(host_address(), port)
    async with outside(tmp_path) as machine:
        with pytest.raises(ConnectionRefusedError):
            await ask(machine.node, port, await machine.socket())
        with pytest.raises((TimeoutError, OSError)):
            async with Client(await machine.socket()) as client:
                await client.connect(LOOPBACK, port, limit_s=0.3)


async def test_a_udp_client_follows_the_switch(wires: Wires) -> None:
    port = free_port()
    one, two = await wires.replica("one"), await wires.replica("two")
    loop = asyncio.get_running_loop()
    servers = [await socket_in(replica, socket.SOCK_DGRAM) for replica in (one, two)]
    with servers[0], servers[1], socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        for server in servers:
            server.bind(("0.0.0.0", 53))
        client.setblocking(False)
        client.bind((LOOPBACK, 0))
        for replica, server in zip((one, two), servers, strict=True):
            endpoint = Endpoint(LOOPBACK, port, "udp")
            await wires.traffic.switch({endpoint: (Backend(replica.address, 53),)})
            async with asyncio.timeout(10):
                await loop.sock_sendto(client, replica.id.encode(), (LOOPBACK, port))
                data, sender = await loop.sock_recvfrom(server, 64)
                assert data == replica.id.encode()
                await loop.sock_sendto(server, b"back", sender)
                assert await loop.sock_recv(client, 64) == b"back"


@pytest.mark.parametrize("damage", ["flush table", "delete table"])
async def test_a_table_that_somebody_damaged_is_restored(
    wires: Wires, replicas: list[Attachment], damage: str
) -> None:
    first, second = Endpoint(LOOPBACK, free_port()), Endpoint(LOOPBACK, free_port())
    wanted = {first: backends(replicas[0]), second: backends(replicas[1])}
    await wires.traffic.switch(wanted)
    subprocess.run(["nft", *damage.split(), "ip", rules.table_of(wires.traffic.names)], check=True)
    assert await wires.traffic.read() != wanted
    await wires.traffic.switch(wanted)
    assert await wires.traffic.read() == wanted
    assert (await ask(LOOPBACK, first.port))[0] == "one"
    assert (await ask(LOOPBACK, second.port))[0] == "two"


async def test_a_switch_over_a_deleted_table_restores_it(wires: Wires, replicas: list[Attachment]) -> None:
    endpoint = Endpoint(LOOPBACK, free_port())
    await wires.traffic.switch({endpoint: backends(replicas[0])})
    subprocess.run(["nft", "delete", "table", "ip", rules.table_of(wires.traffic.names)], check=True)
    await wires.traffic.switch({endpoint: backends(replicas[1])})
    assert (await ask(LOOPBACK, endpoint.port))[0] == "two"


KILLED = """
import asyncio, os, signal, sys
from cloudless.agent.traffic.kernel import KernelTraffic
from cloudless.agent.traffic.port import Backend, Endpoint

async def main():
    traffic = KernelTraffic(sys.argv[1])
    await traffic.switch({Endpoint("127.0.0.1", int(sys.argv[2])): (Backend(sys.argv[3], 80),)})
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


async def test_it_goes_on_without_the_process(wires: Wires, replicas: list[Attachment]) -> None:
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        KILLED,
        wires.key,
        str(port),
        replicas[0].address,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    assert await process.wait() == -9
    assert (await ask(LOOPBACK, port))[0] == "one"
    assert await wires.traffic.read() == {Endpoint(LOOPBACK, port): backends(replicas[0])}
