"""The real network: packets arrive, nothing is left behind, damage is repaired."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import threading
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cloudless.agent.network import namespace
from cloudless.agent.network.kernel import KernelNetwork
from cloudless.agent.network.port import Attachment, HostPort, NetworkRangeTaken

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


class Node:
    """A node's directories; ``network`` makes the object of a (new) agent process."""

    def __init__(self, state: Path) -> None:
        self.key = uuid.uuid4().hex
        self.state = state
        self.run = Path("/run") / f"cloudless-test-{self.key}"

    def network(self, network_range: str | None = None) -> KernelNetwork:
        return KernelNetwork(self.key, self.state, run_directory=self.run, network_range=network_range)

    @property
    def netns(self) -> Path:
        return self.run / self.network().names.mark / "netns"

    def leftovers(self) -> list[str]:
        names = self.network().names
        found = [name for _, name in socket.if_nameindex() if names.mark in name]
        if names.table in nft("list tables"):
            found.append(names.table)
        found += [
            line.split()[1] for line in Path("/proc/mounts").read_text().splitlines() if self.key in line
        ]
        return found


def nft(command: str) -> str:
    return subprocess.run(["nft", *command.split()], check=True, capture_output=True, text=True).stdout


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    made = Node(tmp_path / "network")
    yield made
    network = made.network()
    await network.collect(())
    await network.close()
    assert made.leftovers() == []
    shutil.rmtree(made.run, ignore_errors=True)


@pytest.fixture
async def network(node: Node) -> AsyncIterator[KernelNetwork]:
    made = node.network()
    yield made
    await made.close()


async def socket_in(attachment: Attachment, kind: int = socket.SOCK_STREAM) -> socket.socket:
    assert attachment.netns_path is not None
    made = await asyncio.to_thread(namespace.open_socket, attachment.netns_path, socket.AF_INET, kind)
    made.setblocking(False)
    return made


@contextmanager
def greeting(listener: socket.socket, port: int) -> Iterator[None]:
    """Answers each connection with the address it came from."""
    listener.bind(("0.0.0.0", port))
    listener.listen()
    listener.setblocking(True)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, (address, _) = listener.accept()
                with peer:
                    peer.sendall(address.encode())

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        listener.close()


async def ask(client: socket.socket, address: str, port: int) -> str:
    client.setblocking(False)
    loop = asyncio.get_running_loop()
    with client:
        async with asyncio.timeout(3):
            await loop.sock_connect(client, (address, port))
            return (await loop.sock_recv(client, 64)).decode()


def host_socket() -> socket.socket:
    return socket.socket(socket.AF_INET, socket.SOCK_STREAM)


def host_address() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.254", 9))
        return str(probe.getsockname()[0])


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


async def test_replicas_reach_each_other_and_the_host_reaches_them(network: KernelNetwork) -> None:
    one = await network.attach("one", hostname="one")
    two = await network.attach("two", hostname="two")
    with greeting(await socket_in(one), 80):
        assert await ask(await socket_in(two), one.address, 80) == two.address
        assert await ask(await socket_in(one), one.address, 80) == one.address
        assert await ask(await socket_in(one), "127.0.0.1", 80) == "127.0.0.1"
        assert await ask(host_socket(), one.address, 80) == one.gateway


async def test_a_host_port_is_reached_from_everywhere(network: KernelNetwork) -> None:
    port = free_port()
    one = await network.attach("one", hostname="one", host_ports=(HostPort(port, 80),))
    two = await network.attach("two", hostname="two")
    assert one.gateway is not None
    with greeting(await socket_in(one), 80):
        for address in ("127.0.0.1", host_address(), one.gateway):
            assert await ask(host_socket(), address, port)
        for caller in (two, one):  # from the neighbour, and from the replica itself
            for address in (host_address(), one.gateway):
                assert await ask(await socket_in(caller), address, port)
    await network.detach("one")
    with pytest.raises(ConnectionRefusedError):
        await ask(host_socket(), "127.0.0.1", port)


async def test_a_host_port_of_one_address_is_only_there(network: KernelNetwork) -> None:
    port = free_port()
    one = await network.attach("one", hostname="one", host_ports=(HostPort(port, 80, host_ip="127.0.0.1"),))
    assert one.gateway is not None
    with greeting(await socket_in(one), 80):
        assert await ask(host_socket(), "127.0.0.1", port) == one.gateway
        with pytest.raises(ConnectionRefusedError):
            await ask(host_socket(), host_address(), port)
        with pytest.raises(ConnectionRefusedError):
            await ask(await socket_in(one), one.gateway, port)


async def test_udp_host_port(network: KernelNetwork) -> None:
    port = free_port()
    one = await network.attach("one", hostname="one", host_ports=(HostPort(port, 53, "udp"),))
    loop = asyncio.get_running_loop()
    with await socket_in(one, socket.SOCK_DGRAM) as server:
        server.bind(("0.0.0.0", 53))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.setblocking(False)
            await loop.sock_sendto(client, b"ping", ("127.0.0.1", port))
            async with asyncio.timeout(3):
                data, sender = await loop.sock_recvfrom(server, 16)
                assert data == b"ping"
                await loop.sock_sendto(server, b"pong", sender)
                assert (await loop.sock_recvfrom(client, 16)) == (b"pong", ("127.0.0.1", port))


async def test_the_last_one_takes_everything_along(node: Node) -> None:
    network = node.network()
    await asyncio.gather(
        *(network.attach(f"r{i}", hostname="r", host_ports=(HostPort(free_port(), 80),)) for i in range(3))
    )
    assert len(node.leftovers()) == 8  # bridge, table, three interfaces, three namespaces
    await asyncio.gather(*(network.detach(f"r{i}") for i in range(3)))
    await network.close()
    assert node.leftovers() == []
    assert not node.netns.parent.exists()


async def test_closing_leaves_replicas_connected(node: Node) -> None:
    network = node.network()
    port = free_port()
    one = await network.attach("one", hostname="one", host_ports=(HostPort(port, 80),))
    await network.close()
    with greeting(await socket_in(one), 80):
        assert await ask(host_socket(), "127.0.0.1", port) == one.gateway


async def break_nothing(node: Node, one: Attachment) -> None:
    pass


async def break_table(node: Node, one: Attachment) -> None:
    nft(f"delete table ip {node.network().names.table}")


async def break_bridge(node: Node, one: Attachment) -> None:
    subprocess.run(["ip", "link", "delete", node.network().names.bridge], check=True)


async def break_lease(node: Node, one: Attachment) -> None:
    (node.state / "one.lease").write_text('{"id": "one", "addr')


async def break_pair(node: Node, one: Attachment) -> None:
    names = [name for _, name in socket.if_nameindex() if name.startswith(f"v{node.network().names.mark}")]
    subprocess.run(["ip", "link", "delete", names[0]], check=True)


@pytest.mark.parametrize("damage", [break_nothing, break_table, break_bridge, break_lease, break_pair])
async def test_the_next_agent_repairs(node: Node, damage: object) -> None:
    port = HostPort(free_port(), 80)
    network = node.network()
    one = await network.attach("one", hostname="one", host_ports=(port,))
    await network.close()
    await damage(node, one)  # type: ignore[operator]
    network = node.network()
    try:
        await network.collect({"one"})
        assert await network.attach("one", hostname="one", host_ports=(port,)) == one
        with greeting(await socket_in(one), 80):
            assert await ask(host_socket(), "127.0.0.1", port.host_port) == one.gateway
    finally:
        await network.close()


async def test_leftovers_of_a_killed_attempt_go(node: Node) -> None:
    network = node.network()
    kept = await network.attach("kept", hostname="kept")
    (node.netns / "plain-file").touch()
    path = str(node.netns / "no-lease")

    def half() -> None:
        with namespace.created(path):
            pass

    await asyncio.to_thread(half)
    stray = node.network().names.veth(0x4321)
    subprocess.run(["ip", "link", "add", stray, "type", "veth", "peer", "name", f"p{stray[1:]}"], check=True)
    assert await network.collect({"kept"}) == ("no-lease", "plain-file", stray)
    assert await network.list() == (kept,)
    await network.close()


async def test_two_agents_do_not_touch_each_other(tmp_path: Path, node: Node, network: KernelNetwork) -> None:
    one = await network.attach("one", hostname="one")
    other_node = Node(tmp_path / "other")
    other = other_node.network()
    await other.attach("two", hostname="two")
    await other.collect(())
    await other.close()
    assert other_node.leftovers() == []
    shutil.rmtree(other_node.run)
    assert await network.list() == (one,)


async def test_a_range_of_the_host_is_refused(node: Node) -> None:
    prefix = host_address().rpartition(".")[0]
    network = node.network(f"{prefix}.0/24")
    with pytest.raises(NetworkRangeTaken, match="overlaps the route"):
        await network.attach("one", hostname="one")
    await network.close()


async def test_the_worker_comes_home(network: KernelNetwork) -> None:
    own = os.readlink("/proc/self/ns/net")
    one = await network.attach("one", hostname="one")
    (await socket_in(one)).close()
    tasks = Path("/proc/self/task").iterdir()
    assert {os.readlink(task / "ns" / "net") for task in tasks} == {own}


def test_the_main_thread_never_steps_inside(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="main thread"), namespace.created(str(tmp_path / "ns")):
        pass
