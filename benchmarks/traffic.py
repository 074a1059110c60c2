"""Published ports: how long a switch takes, what they cost per request, what a switch breaks.

Two replicas' networks are made with a small HTTP server in each. ``wrk`` asks them with a
new connection for each request: directly, through a published port, and through one that
is switched from one replica to the other 20 times a second; failed requests are counted.
Needs root, nftables and wrk.

    .venv/bin/python benchmarks/traffic.py [--seconds 5] [--switches 200] [--decisions 20]
"""

from __future__ import annotations

import argparse
import asyncio
import re
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import switching

from cloudless.agent.network.kernel import KernelNetwork
from cloudless.agent.network.port import Attachment
from cloudless.agent.traffic.kernel import KernelTraffic
from cloudless.agent.traffic.port import Backend, Endpoint

ENDPOINT = Endpoint("127.0.0.1", 18088)
PORT = 8080
#: What a switch must reach as p50, in milliseconds.
TARGET_SWITCH_MS = 1.1
#: The same for a whole switch, from the decision on.
TARGET_DECISION_MS = 5.0
SWITCH_INTERVAL_S = 0.05

SERVER = """
import asyncio, sys, uvloop

ANSWER = b"HTTP/1.1 200 OK\\r\\nContent-Length: 3\\r\\nConnection: close\\r\\n\\r\\nok\\n"

class Answer(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
    def data_received(self, data):
        self.transport.write(ANSWER)
        self.transport.close()

async def main():
    server = await asyncio.get_running_loop().create_server(Answer, "0.0.0.0", 8080, backlog=4096)
    print("ready", flush=True)
    await server.serve_forever()

uvloop.run(main())
"""


@asynccontextmanager
async def node() -> AsyncIterator[tuple[KernelNetwork, KernelTraffic]]:
    """A network and published ports of their own, gone afterwards."""
    key = uuid.uuid4().hex
    with tempfile.TemporaryDirectory() as folder:
        run = Path("/run") / f"cloudless-bench-{key}"
        network = KernelNetwork(key, Path(folder), run_directory=run)
        traffic = KernelTraffic(key)
        try:
            yield network, traffic
        finally:
            await traffic.switch({})
            await network.collect(())
            await traffic.close()
            await network.close()
            for path in (run / "range.lock", run):
                path.rmdir() if path.is_dir() else path.unlink(missing_ok=True)


@asynccontextmanager
async def serving(replicas: list[Attachment]) -> AsyncIterator[None]:
    """A server in each replica's network."""
    processes = []
    try:
        for replica in replicas:
            process = await asyncio.create_subprocess_exec(
                "nsenter",
                f"--net={replica.netns_path}",
                sys.executable,
                "-c",
                SERVER,
                stdout=asyncio.subprocess.PIPE,
            )
            processes.append(process)
            assert process.stdout is not None
            await process.stdout.readline()
        yield
    finally:
        for process in processes:
            process.kill()
            await process.wait()


async def wrk(address: str, port: int, seconds: float) -> tuple[float, str]:
    """Requests per second with a connection for each, and what failed."""
    process = await asyncio.create_subprocess_exec(
        *("wrk", "-t1", "-c16", f"-d{seconds:g}s", "-H", "Connection: close", f"http://{address}:{port}/"),
        stdout=subprocess.PIPE,
    )
    printed, _ = await process.communicate()
    text = printed.decode()
    rate = re.search(r"Requests/sec:\s+([0-9.]+)", text)
    errors = re.search(r"Socket errors: (.*)|Non-2xx or 3xx responses: (.*)", text)
    return float(rate[1]) if rate else 0.0, errors[0] if errors else "0 failed"


async def measure_switches(traffic: KernelTraffic, backends: int, services: int, count: int) -> list[float]:
    """Milliseconds of each switch of one service, which leaves out and takes in one backend."""
    all_of_them = tuple(Backend(f"10.213.{n // 250}.{n % 250 + 1}", PORT) for n in range(backends))
    state = {Endpoint("127.0.0.1", 20_000 + number): all_of_them for number in range(services)}
    one = next(iter(state))
    await traffic.switch(state)
    took = []
    for number in range(count):
        state = state | {one: all_of_them[number % 2 :]}
        began = time.perf_counter()
        await traffic.switch(state)
        took.append((time.perf_counter() - began) * 1000)
    await traffic.switch({})
    return took


async def measure_shares(traffic: KernelTraffic, percent: int, count: int) -> list[float]:
    """Milliseconds of each change of shares between one new replica and twenty old ones."""
    old = tuple(Backend(f"10.213.1.{n + 1}", PORT, 100 - percent) for n in range(20))
    new = Backend("10.213.2.1", PORT, percent * len(old))
    took = []
    for number in range(count):
        began = time.perf_counter()
        await traffic.switch({ENDPOINT: (*old, new) if number % 2 else old})
        took.append((time.perf_counter() - began) * 1000)
    await traffic.switch({})
    return took


async def measure_decisions(count: int) -> None:
    """Time blue-green switches of ten replicas and print."""
    with tempfile.TemporaryDirectory() as folder:
        whole, rest = await switching.measure(Path(folder), 10, count)
    told = f"p50 {statistics.median(whole):.2f} ms, max {max(whole):.2f} ms"
    stored = statistics.median(whole) - statistics.median(rest)
    print(
        f"blue-green switch of 10, decision -> in force: {told} (target {TARGET_DECISION_MS:g} ms), "
        f"of which {stored:.2f} ms to store the decision"
    )


async def switch_all_the_time(traffic: KernelTraffic, replicas: list[Attachment]) -> int:
    """Move everything from one replica to the other and back until cancelled."""
    count = 0
    try:
        while True:
            replica = replicas[count % len(replicas)]
            await traffic.switch({ENDPOINT: (Backend(replica.address, PORT),)})
            count += 1
            await asyncio.sleep(SWITCH_INTERVAL_S)
    except asyncio.CancelledError:
        return count


async def run(seconds: float, switches: int, decisions: int) -> None:
    """Measure and print."""
    await measure_decisions(decisions)
    async with node() as (network, traffic):
        for backends, services in ((3, 1), (10, 1), (100, 1), (1000, 1), (10, 100)):
            took = await measure_switches(traffic, backends, services, switches)
            p50, p99 = statistics.median(took), statistics.quantiles(took, n=100)[98]
            told = f"p50 {p50:.2f} ms, p99 {p99:.2f} ms, max {max(took):.2f} ms"
            target = f"  (target p50 {TARGET_SWITCH_MS} ms)" if services == 1 and backends <= 10 else ""
            print(f"switch, {backends} backends, {services} services: {told}{target}")
        for percent in (5, 1):
            took = await measure_shares(traffic, percent, switches)
            told = f"p50 {statistics.median(took):.2f} ms, max {max(took):.2f} ms"
            print(f"shares, {percent} % to one new replica beside 20: {told}")
        replicas = [await network.attach(name, hostname=name) for name in ("one", "two", "direct")]
        async with serving(replicas):
            # Not one of the others: the kernel remembers its connections for two minutes, and has
            # to search for ports that are free when others from this host are led to the same replica.
            direct = replicas.pop()
            rate, errors = await wrk(direct.address, PORT, seconds)
            print(f"direct to one replica:            {rate:8.0f} requests/s, {errors}")
            await traffic.switch({ENDPOINT: (Backend(replicas[0].address, PORT),)})
            published, errors = await wrk(ENDPOINT.address, ENDPOINT.port, seconds)
            share = published / rate * 100
            print(f"published, one replica:           {published:8.0f} requests/s ({share:.0f} %), {errors}")
            await traffic.switch({ENDPOINT: tuple(Backend(one.address, PORT) for one in replicas)})
            rate, errors = await wrk(ENDPOINT.address, ENDPOINT.port, seconds)
            print(f"published, two replicas:          {rate:8.0f} requests/s, {errors}")
            switching = asyncio.ensure_future(switch_all_the_time(traffic, replicas))
            rate, errors = await wrk(ENDPOINT.address, ENDPOINT.port, seconds)
            switching.cancel()
            count = await switching
            print(f"published, {count} switches meanwhile: {rate:8.0f} requests/s, {errors}")


def main() -> None:
    """Read the options and run."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--seconds", type=float, default=5, help="of each load")
    options.add_argument("--switches", type=int, default=200, help="that are timed")
    options.add_argument("--decisions", type=int, default=20, help="blue-green switches that are timed")
    given = options.parse_args()
    asyncio.run(run(given.seconds, given.switches, given.decisions))


if __name__ == "__main__":
    main()
