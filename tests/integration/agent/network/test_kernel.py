"""The real network: packets arrive, nothing is left behind, damage is repaired."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import random
import shutil
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.integration.agent.threads import networks_of_threads
from tests.ports import free_port

from cloudless.agent.network import namespace
from cloudless.agent.network.kernel import KernelNetwork
from cloudless.agent.network.port import Attachment, HostPort, NetworkRangeTaken

SOURCE = str(Path(__file__).parents[4] / "src")
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


class Node:
    """A node's directories; ``network`` makes the object of a (new) agent process."""

    def __init__(self, state: Path) -> None:
        self.key = uuid.uuid4().hex
        self.state = state
        self.run = Path("/run") / f"cloudless-test-{self.key}"
        # Not one of the default ranges: those are for agents, of which some may run here.
        self.range = f"10.{random.randint(233, 243)}.{random.randint(0, 255)}.0/24"

    def network(self, network_range: str | None = None) -> KernelNetwork:
        return KernelNetwork(
            self.key, self.state, run_directory=self.run, network_range=network_range or self.range
        )

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


async def ask(client: socket.socket, address: str, port: int, *, limit_s: float = 10) -> str:
    client.setblocking(False)
    loop = asyncio.get_running_loop()
    with client:
        async with asyncio.timeout(limit_s):
            await loop.sock_connect(client, (address, port))
            return (await loop.sock_recv(client, 64)).decode()


def host_socket() -> socket.socket:
    return socket.socket(socket.AF_INET, socket.SOCK_STREAM)


def host_address() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.254", 9))
        return str(probe.getsockname()[0])


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
            async with asyncio.timeout(10):
                data, sender = await loop.sock_recvfrom(server, 16)
                assert data == b"ping"
                await loop.sock_sendto(server, b"pong", sender)
                assert (await loop.sock_recvfrom(client, 16)) == (b"pong", ("127.0.0.1", port))


async def test_a_udp_client_follows_the_port_to_its_next_replica(network: KernelNetwork) -> None:
    port = HostPort(free_port(), 53, "udp")
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.setblocking(False)
        for name in ("one", "two", "three"):
            replica = await network.attach(name, hostname=name, host_ports=(port,))
            with await socket_in(replica, socket.SOCK_DGRAM) as server:
                server.bind(("0.0.0.0", 53))
                async with asyncio.timeout(10):
                    await loop.sock_sendto(client, name.encode(), ("127.0.0.1", port.host_port))
                    assert (await loop.sock_recvfrom(server, 16))[0] == name.encode()
            await network.detach(name)
            await loop.sock_sendto(client, b"into the void", ("127.0.0.1", port.host_port))
            with contextlib.suppress(ConnectionRefusedError):
                await loop.sock_sendto(client, b"into the void", ("127.0.0.1", port.host_port))


@pytest.fixture
async def outside(tmp_path: Path) -> AsyncIterator[tuple[str, str]]:
    """A machine on another interface of this host: its namespace, and the host's address towards it."""
    path, mark = str(tmp_path / "outside"), uuid.uuid4().hex[:6]

    def make() -> None:
        with namespace.created(path):
            pass

    await asyncio.to_thread(make)
    commands = f"""
        ip link add zo{mark} type veth peer name zi{mark}
        ip link set zi{mark} netns {path}
        ip address add 198.51.100.1/24 dev zo{mark}
        ip link set zo{mark} up
        nsenter --net={path} ip address add 198.51.100.2/24 dev zi{mark}
        nsenter --net={path} ip link set zi{mark} up
        nsenter --net={path} ip route add default via 198.51.100.1
    """
    try:
        for command in commands.strip().splitlines():
            subprocess.run(command.split(), check=True)
        yield path, "198.51.100.1"
    finally:
        subprocess.run(["ip", "link", "delete", f"zo{mark}"], check=True)
        await asyncio.to_thread(namespace.remove, path)


async def socket_at(path: str) -> socket.socket:
    return await asyncio.to_thread(namespace.open_socket, path, socket.AF_INET, socket.SOCK_STREAM)


async def test_from_outside_only_published_ports_are_reached(
    network: KernelNetwork, outside: tuple[str, str]
) -> None:
    path, host = outside
    public, private = free_port(), free_port()
    one = await network.attach(
        "one",
        hostname="one",
        host_ports=(HostPort(public, 80), HostPort(private, 80, host_ip="127.0.0.1")),
    )
    with greeting(await socket_in(one), 80):
        assert await ask(await socket_at(path), host, public) == "198.51.100.2"
        with pytest.raises(ConnectionRefusedError):
            await ask(await socket_at(path), host, private)
        with pytest.raises(TimeoutError):
            await ask(await socket_at(path), one.address, 80, limit_s=0.3)


async def test_replicas_reach_the_world_as_their_host(
    network: KernelNetwork, outside: tuple[str, str]
) -> None:
    path, host = outside
    one = await network.attach("one", hostname="one")
    with greeting(await socket_at(path), 80):
        assert await ask(await socket_in(one), "198.51.100.2", 80) == host


#: An agent that dies at its n-th step, before doing it: nothing of its error handling runs.
DYING_AGENT = """
import asyncio, os, sys
from pathlib import Path
from cloudless.agent.network import namespace, netlink
from cloudless.agent.network.kernel import KernelNetwork
from cloudless.agent.network.leases import Leases
from cloudless.agent.network.nft import Nft
from cloudless.agent.network.port import HostPort

key, state, run, network_range, port, left = *sys.argv[1:5], int(sys.argv[5]), int(sys.argv[6])

def dying(work):
    def step(*arguments, **options):
        global left
        left -= 1
        if left == 0:
            os._exit(9)
        return work(*arguments, **options)
    return step

for place, name in ((netlink, "send"), (namespace, "_call"), (namespace, "remove"), (Nft, "run"),
                    (Leases, "put"), (Leases, "drop")):
    setattr(place, name, dying(getattr(place, name)))

async def main():
    network = KernelNetwork(key, Path(state), run_directory=Path(run), network_range=network_range)
    await network.attach("one", hostname="one", host_ports=(HostPort(port, 80),))
    await network.detach("one")
    await network.close()

asyncio.run(main())
"""
#: How many steps there are at least; the last run is not killed.
STEPS, LAST_STEP = 18, 23


@pytest.mark.parametrize("step", range(1, LAST_STEP + 1))
async def test_killed_before_any_step_nothing_leaks(node: Node, step: int) -> None:
    port = HostPort(free_port(), 80)
    about = [node.key, node.state, node.run, node.range, port.host_port, step]
    died = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", DYING_AGENT, *map(str, about)],
        env={**os.environ, "PYTHONPATH": SOURCE},
    )
    assert died.returncode == (0 if step == LAST_STEP else 9) or step > STEPS
    network = node.network()
    again = await network.attach("one", hostname="one", host_ports=(port,))
    assert await network.list() == (again,)
    with greeting(await socket_in(again), 80):
        assert await ask(host_socket(), "127.0.0.1", port.host_port) == again.gateway
    await network.detach("one")
    await network.close()
    assert node.leftovers() == []


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
    network = node.network()
    await network.detach("first")  # the address would be the first to be given again
    await network.close()
    (node.state / "one.lease").write_text('{"id": "one", "addr')


async def break_pair(node: Node, one: Attachment) -> None:
    names = [name for _, name in socket.if_nameindex() if name.startswith(f"v{node.network().names.mark}")]
    subprocess.run(["ip", "link", "delete", names[0]], check=True)


@pytest.mark.parametrize("damage", [break_nothing, break_table, break_bridge, break_lease, break_pair])
async def test_the_next_agent_repairs(node: Node, damage: object) -> None:
    port = HostPort(free_port(), 80)
    network = node.network()
    await network.attach("first", hostname="first")
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
    while other_node.range == node.range:
        other_node = Node(tmp_path / "other")
    other = other_node.network()
    await other.attach("two", hostname="two")
    await other.collect(())
    await other.close()
    assert other_node.leftovers() == []
    shutil.rmtree(other_node.run)
    assert await network.list() == (one,)


async def test_the_empty_network_of_a_killed_agent_goes_with_the_next(node: Node) -> None:
    network = node.network()
    await network.attach("one", hostname="one")
    dead, living = uuid.uuid4().hex[:8], uuid.uuid4().hex[:8]
    for mark in (dead, living):
        (node.run / mark / "netns").mkdir(parents=True)
        (node.run / mark / "claim").touch()
        subprocess.run(["ip", "link", "add", f"cl-{mark}", "type", "bridge"], check=True)
        nft(f"add table ip cloudless_{mark}")
    await network.close()
    with (node.run / living / "claim").open() as held:
        fcntl.flock(held, fcntl.LOCK_SH)
        network = node.network()
        await network.list()
        await network.close()
        bridges = {name for _, name in socket.if_nameindex()}
        assert (f"cl-{dead}" in bridges, f"cl-{living}" in bridges) == (False, True)
        assert (f"cloudless_{dead}" in nft("list tables"), f"cloudless_{living}" in nft("list tables")) == (
            False,
            True,
        )
        assert not (node.run / dead).exists()
    network = node.network()
    await network.list()
    await network.close()
    assert not (node.run / living).exists()


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
    assert networks_of_threads() == {own}


def test_the_main_thread_never_steps_inside(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="main thread"), namespace.created(str(tmp_path / "ns")):
        pass
