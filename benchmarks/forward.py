"""port-forward against a connection made directly: bytes per second, delays, connections.

Starts ``cloudless serve`` with a private containerd, one replica, and in the replica's
network a small server that sends without end, receives, or echoes. The same client
measures it at the replica's own address and through ``cloudless port-forward``, in turn,
each round. Forwarded bytes pass three processes' worth of work in two processes (command,
coordinator and agent in one); a direct connection passes none. Needs root.

    .venv/bin/python benchmarks/forward.py [--seconds 3] [--rounds 3]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import uvloop
from sidebyside import image, ours

#: What a forwarded port must reach.
TARGET_MB_S, TARGET_ADDED_MS = 150.0, 0.5
ECHOES, CONNECTS, AT_ONCE = 2000, 200, 200
PIECE = 256 * 1024

#: Its ports: 9001 sends zeros, 9002 reads until the end and says how much, 9003 echoes.
SERVER = """
import asyncio, sys, uvloop
PIECE = bytes(262144)

class Source(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
        transport.set_write_buffer_limits(high=1 << 20)
        self.fill()
    def fill(self):
        self.full = False
        while not self.full and not self.transport.is_closing():
            self.transport.write(PIECE)
    def pause_writing(self):
        self.full = True
    def resume_writing(self):
        self.fill()

class Sink(asyncio.Protocol):
    size = 0
    def connection_made(self, transport):
        self.transport = transport
    def data_received(self, data):
        self.size += len(data)
    def eof_received(self):
        self.transport.write(b"%d" % self.size)
        self.transport.close()

class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
    def data_received(self, data):
        self.transport.write(data)

async def main():
    loop = asyncio.get_running_loop()
    for port, kind in ((9001, Source), (9002, Sink), (9003, Echo)):
        await loop.create_server(kind, "0.0.0.0", port, backlog=4096)
    print("ready", flush=True)
    await asyncio.Event().wait()

uvloop.run(main())
"""
Where = Callable[[int], tuple[str, int]]


def download(where: tuple[str, int], seconds: float) -> float:
    """MB/s of a connection that sends without end."""
    buffer = bytearray(PIECE)
    with socket.create_connection(where) as made:
        made.recv_into(buffer)
        began, size = time.perf_counter(), 0
        while (passed := time.perf_counter() - began) < seconds:
            size += made.recv_into(buffer)
    return size / passed / 1e6


def upload(where: tuple[str, int], seconds: float) -> float:
    """MB/s to a connection that takes everything, until the other end says that it has it all."""
    piece = bytes(PIECE)
    with socket.create_connection(where) as made:
        began, size = time.perf_counter(), 0
        while time.perf_counter() - began < seconds:
            made.sendall(piece)
            size += len(piece)
        made.shutdown(socket.SHUT_WR)
        assert int(made.recv(64)) == size
        return size / (time.perf_counter() - began) / 1e6


def echoes(where: tuple[str, int]) -> list[float]:
    """Milliseconds of each round trip of one byte on an open connection."""
    took = []
    with socket.create_connection(where) as made:
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(ECHOES):
            began = time.perf_counter()
            made.sendall(b"x")
            made.recv(1)
            took.append((time.perf_counter() - began) * 1000)
    return took


def connects(where: tuple[str, int]) -> list[float]:
    """Milliseconds from dialling to the first byte back, a new connection each time."""
    took = []
    for _ in range(CONNECTS):
        began = time.perf_counter()
        with socket.create_connection(where) as made:
            made.sendall(b"x")
            made.recv(1)
            took.append((time.perf_counter() - began) * 1000)
    return took


async def at_once(where: tuple[str, int]) -> float:
    """Seconds until so many connections, dialled at the same time, have all had their echo."""

    async def one(number: int) -> None:
        reader, writer = await asyncio.open_connection(*where)
        text = b"%d" % number * 1000
        writer.write(text)
        assert await reader.readexactly(len(text)) == text
        writer.close()
        await writer.wait_closed()

    began = time.perf_counter()
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        for number in range(AT_ONCE):
            group.create_task(one(number))
    return time.perf_counter() - began


@contextlib.contextmanager
def server_in(pid: int) -> Iterator[None]:
    """The server, in the network namespace of a process."""
    process = subprocess.Popen(
        ["nsenter", f"--net=/proc/{pid}/ns/net", sys.executable, "-c", SERVER], stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def forwarding(address: str, name: str, ports: tuple[int, ...]) -> Iterator[dict[int, int]]:
    """``cloudless port-forward`` as its own process; the local port for each of ``ports``."""
    words = ["--address", address, "port-forward", name, *(f":{port}" for port in ports)]
    process = subprocess.Popen([ours.PROGRAM, *words], stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        lines = [process.stderr.readline().split() for _ in ports]
        yield {int(line[-1]): int(line[1].rpartition(":")[2]) for line in lines}
    finally:
        process.terminate()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


def pid_of(name: str) -> int:
    """The replica's process: the one whose environment names the workload."""
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"CLOUDLESS_WORKLOAD={name}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                return int(folder.name)
    raise RuntimeError("the replica's process is not found")


@contextlib.asynccontextmanager
async def sides() -> AsyncIterator[dict[str, Where]]:
    """Where the server's ports are: directly, and forwarded."""
    with tempfile.TemporaryDirectory(prefix="bench-") as text:
        folder = Path(text)
        archive = image.write(folder / "image.tar")
        async with ours.serving(folder / "data", "private") as serve, ours.connected(serve) as mine:
            words = ["image", "--agent-address", serve.agent_address, "import", str(archive)]
            await asyncio.to_thread(
                subprocess.run, [ours.PROGRAM, *words], check=True, stdout=subprocess.DEVNULL
            )
            made, _ = await mine.up(1)
            pid = await asyncio.to_thread(pid_of, made.name)
            address = made.replicas[0].address
            ports = (9001, 9002, 9003)
            with server_in(pid), forwarding(serve.address, made.name, ports) as local:
                yield {
                    "direct": lambda port: (address, port),
                    "forwarded": lambda port: ("127.0.0.1", local[port]),
                }


async def run(seconds: float, rounds: int) -> int:
    """Measure and print; the exit code says whether the targets were reached."""
    found: dict[str, dict[str, list[float]]] = {}

    def note(what: str, side: str, *values: float) -> None:
        found.setdefault(what, {}).setdefault(side, []).extend(values)

    async with sides() as there:
        for _ in range(rounds):
            for side, where in there.items():
                note("download MB/s", side, await asyncio.to_thread(download, where(9001), seconds))
                note("upload MB/s", side, await asyncio.to_thread(upload, where(9002), seconds))
                note("echo of one byte ms", side, *await asyncio.to_thread(echoes, where(9003)))
                note("connect and first byte ms", side, *await asyncio.to_thread(connects, where(9003)))
                note(f"{AT_ONCE} connections at once s", side, await at_once(where(9003)))
    print(f"{'':32}{'direct':>10}{'forwarded':>12}{'ratio':>9}")
    middle = {
        what: {side: statistics.median(values) for side, values in by.items()} for what, by in found.items()
    }
    for what, by in middle.items():
        ratio = by["forwarded"] / by["direct"]
        print(f"{what:32}{by['direct']:10.3f}{by['forwarded']:12.3f}{ratio:9.2f}")
    echo = found["echo of one byte ms"]
    p99 = {side: statistics.quantiles(values, n=100)[98] for side, values in echo.items()}
    print(f"{'echo p99 ms':32}{p99['direct']:10.3f}{p99['forwarded']:12.3f}")
    added = middle["echo of one byte ms"]["forwarded"] - middle["echo of one byte ms"]["direct"]
    slowest = min(middle[f"{way} MB/s"]["forwarded"] for way in ("download", "upload"))
    print(f"\nadded to a round trip {added:.3f} ms (target {TARGET_ADDED_MS} ms)")
    print(f"slower direction {slowest:.0f} MB/s (target {TARGET_MB_S:.0f} MB/s)")
    return 0 if added <= TARGET_ADDED_MS and slowest >= TARGET_MB_S else 1


def main() -> int:
    """Read the options and run."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--seconds", type=float, default=3, help="of each load")
    options.add_argument("--rounds", type=int, default=3, help="of everything")
    given = options.parse_args()
    return uvloop.run(run(given.seconds, given.rounds))


if __name__ == "__main__":
    sys.exit(main())
