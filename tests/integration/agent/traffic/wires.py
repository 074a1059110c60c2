"""Real namespaces with servers and clients in them, for tests of published ports."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import threading
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from cloudless.agent.network import namespace
from cloudless.agent.network.kernel import KernelNetwork
from cloudless.agent.network.port import Attachment
from cloudless.agent.traffic.kernel import KernelTraffic


class Wires:
    """One node's network and published ports."""

    def __init__(self, folder: Path) -> None:
        self.key = uuid.uuid4().hex
        self.run = Path("/run") / f"cloudless-test-{self.key}"
        self.network = KernelNetwork(self.key, folder / "network", run_directory=self.run)
        self.traffic = KernelTraffic(self.key)

    async def replica(self, name: str) -> Attachment:
        return await self.network.attach(name, hostname=name)


@dataclass(frozen=True)
class Outside:
    """Another machine: its namespace, its address, and the node's address on the wire to it."""

    path: str
    address: str
    node: str

    async def socket(self) -> socket.socket:
        return await asyncio.to_thread(namespace.open_socket, self.path, socket.AF_INET, socket.SOCK_STREAM)


@asynccontextmanager
async def outside(folder: Path) -> AsyncIterator[Outside]:
    """A namespace that hangs on the host by one wire, as another machine would."""
    mark, path = uuid.uuid4().hex[:8], str(folder / "outside")
    subnet = os.getpid() % 60 * 4
    node, address = f"203.0.113.{subnet + 1}", f"203.0.113.{subnet + 2}"

    def make() -> None:
        with namespace.created(path):
            pass

    await asyncio.to_thread(make)
    commands = f"""
        ip link add zo{mark} type veth peer name zi{mark}
        ip link set zi{mark} netns {path}
        ip address add {node}/30 dev zo{mark}
        ip link set zo{mark} up
        nsenter --net={path} ip address add {address}/30 dev zi{mark}
        nsenter --net={path} ip link set zi{mark} up
        nsenter --net={path} ip route add default via {node}
    """
    try:
        for command in commands.strip().splitlines():
            subprocess.run(command.split(), check=True)
        yield Outside(path, address, node)
    finally:
        subprocess.run(["ip", "link", "delete", f"zo{mark}"], check=True)
        await asyncio.to_thread(namespace.remove, path)


async def socket_in(attachment: Attachment, kind: int = socket.SOCK_STREAM) -> socket.socket:
    assert attachment.netns_path is not None
    made = await asyncio.to_thread(namespace.open_socket, attachment.netns_path, socket.AF_INET, kind)
    made.setblocking(False)
    return made


@contextmanager
def answering(listener: socket.socket, port: int, name: str) -> Iterator[None]:
    """Answers each line with its name and the client's address, for as long as the client stays."""
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("0.0.0.0", port))
    listener.listen(128)
    listener.setblocking(True)
    threads = []

    def converse(peer: socket.socket, address: str) -> None:
        with peer, contextlib.suppress(OSError):
            while peer.recv(64):
                peer.sendall(f"{name} {address}\n".encode())

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, (address, _) = listener.accept()
                threads.append(threading.Thread(target=converse, args=(peer, address)))
                threads[-1].start()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        listener.close()
        for one in threads:
            one.join()


class Client:
    """One connection; ``ask`` gives the name of the replica and the address that it saw."""

    def __init__(self, made: socket.socket | None = None) -> None:
        self._socket = made or socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._socket.setblocking(False)

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *failure: object) -> None:
        self._socket.close()

    async def connect(self, address: str, port: int, *, limit_s: float = 10) -> Client:
        async with asyncio.timeout(limit_s):
            await asyncio.get_running_loop().sock_connect(self._socket, (address, port))
        return self

    async def ask(self, *, limit_s: float = 10) -> tuple[str, str]:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(limit_s):
            await loop.sock_sendall(self._socket, b"?\n")
            name, _, address = (await loop.sock_recv(self._socket, 64)).decode().strip().partition(" ")
        return name, address


async def ask(address: str, port: int, made: socket.socket | None = None) -> tuple[str, str]:
    """One question on a connection of its own."""
    async with Client(made) as client:
        await client.connect(address, port)
        return await client.ask()


def host_address() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.254", 9))
        address: str = probe.getsockname()[0]
        return address
