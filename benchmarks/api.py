"""Latency of the coordinator's API: create, get, list of 200, update, on a durable store.

A whole coordinator (embedded store, fsync before each answer), with a linked node that
accepts everything, runs in a child process; the client calls it over loopback TCP, one
call after the other, so a figure holds the client's own work as well. ``--in-process``
puts both on one event loop, where the client also waits for the plan of its last call,
which the coordinator makes after it has answered. Get and list are measured twice: with protobuf's
compiled messages, as most gRPC clients have them, and with this project's own Python
classes ("sdk"). The floor is one transaction of the store. Prints p50 and p95 in
milliseconds.

    .venv/bin/python benchmarks/api.py [--calls 200] [--data-dir DIR]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from importlib.resources import files
from pathlib import Path

from grpclib.const import Cardinality

from cloudless import api
from cloudless.aio.clock import SystemClock
from cloudless.aio.ids import random_id
from cloudless.coordinator.config import CoordinatorConfig
from cloudless.coordinator.main import Serving, coordinator
from cloudless.domain.node import NodeFacts
from cloudless.domain.resources import ResourceList
from cloudless.store.port import Put
from cloudless.transport.channel import GuardedChannel, connect
from cloudless.transport.descriptors import build_pool, message_class
from cloudless.transport.link import dial_link
from cloudless.transport.server import GuardedServer
from cloudless.wire.link import facts_to_wire

#: What each figure must reach, as p50 and p95 in milliseconds.
TARGETS = {"create": (3.0, 6.0), "get": (0.8, None), "list of 200": (4.0, None)}
LISTED = 200
#: After the creates, the coordinator gets this long to finish planning, in seconds.
SETTLE_S = 1.0


class Node(api.AgentServiceBase):
    """A node that is ready, takes every assignment and says nothing about them."""

    async def synchronize(
        self, messages: AsyncIterator[api.SynchronizeRequest]
    ) -> AsyncIterator[api.SynchronizeResponse]:
        capacity = ResourceList(cpu_millicores=64_000, memory_bytes=2**38, storage_bytes=2**42)
        facts = NodeFacts(id="bench", name="bench", capacity=capacity)
        yield api.SynchronizeResponse(sequence=1, node=facts_to_wire(facts))
        yield api.SynchronizeResponse(sequence=2, whole=True)
        async for _ in messages:
            pass


POOL = build_pool(files("cloudless.api").joinpath("descriptors.binpb").read_bytes())


async def native(channel: GuardedChannel, method: str, **fields: object) -> object:
    """A call with protobuf's own messages."""
    request_type, reply_type = (
        message_class(POOL, f"cloudless.api.{method}{part}") for part in ("Request", "Response")
    )
    path = f"/cloudless.api.CoordinatorService/{method}"
    async with channel.request(path, Cardinality.UNARY_UNARY, request_type, reply_type) as call:
        await call.send_message(request_type(**fields), end=True)
        return await call.recv_message()


async def measure(call: Callable[[int], Awaitable[object]], count: int) -> list[float]:
    """Durations of ``count`` calls in turn, in milliseconds."""
    found = []
    for number in range(count):
        started = time.perf_counter()
        await call(number)
        found.append((time.perf_counter() - started) * 1000)
    return found


def report(name: str, found: list[float]) -> None:
    """Print one line, with the target beside it."""
    p50, p95 = statistics.median(found), sorted(found)[int(len(found) * 0.95)]
    line = f"{name:<14} p50 {p50:7.3f} ms   p95 {p95:7.3f} ms   n {len(found)}"
    if name in TARGETS:
        best, worst = TARGETS[name]
        reached = p50 <= best and (worst is None or p95 <= worst)
        bound = f"p50 <= {best}" + (f", p95 <= {worst}" if worst else "")
        line += f"   {'reached' if reached else 'MISSED'} ({bound})"
    print(line, flush=True)


@contextlib.asynccontextmanager
async def cluster(data_dir: Path) -> AsyncIterator[Serving]:
    """A coordinator that is ready to place replicas."""
    config = CoordinatorConfig(data_dir=data_dir, api_address="127.0.0.1:0", http_address="127.0.0.1:0")
    async with (
        coordinator(config, SystemClock(), new_id=random_id) as serving,
        GuardedServer([Node()], name="node") as node,
    ):
        await serving.coordinator.seat.wait_leading()
        for kind in ("control", "bulk"):
            hello = {"node_id": "bench", "node_name": "bench", "kind": kind, "session": "bench"}
            await dial_link("127.0.0.1", serving.api_port, hello, node)
        while not serving.ready():
            await asyncio.sleep(0.01)
        store = serving.coordinator.health.store
        report("store txn", await measure(lambda n: store.txn([], [Put(f"/bench/{n}", bytes(1000))]), LISTED))
        yield serving


async def serve(data_dir: Path) -> None:
    """The child: says its port, and goes when its input ends."""
    async with cluster(data_dir) as serving:
        print(f"port {serving.api_port}", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


async def in_process(data_dir: Path, calls: int) -> None:
    """Coordinator and client on one loop."""
    async with cluster(data_dir) as serving:
        await bench(serving.api_port, calls)


def in_two_processes(data_dir: Path, calls: int, loop: str) -> None:
    """The coordinator in a child process."""
    command = [sys.executable, __file__, "--serve", "--data-dir", str(data_dir), "--loop", loop]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if line.startswith("port "):
                run(bench(int(line.split()[1]), calls), loop)
                break
            print(line, end="")
        child.communicate()


async def bench(port: int, calls: int) -> None:
    """The client: every kind of call in turn."""
    async with contextlib.AsyncExitStack() as stack:
        channel = connect(f"127.0.0.1:{port}")
        stack.callback(channel.close)
        stub = api.CoordinatorServiceStub(channel)

        async def create(number: int) -> object:
            spec = api.WorkloadSpec(image="nginx:alpine", replicas=1, env={"A": "1", "B": "2"})
            request = api.CreateWorkloadRequest(
                name=f"w-{number:05d}", spec=spec, labels={"app": "web"}, request_id=random_id()
            )
            return await stub.create_workload(request)

        async def get(number: int) -> object:
            return await native(channel, "GetWorkload", name=f"w-{number % calls:05d}")

        async def listed(number: int) -> object:
            return await native(channel, "ListWorkloads", page_size=LISTED)

        async def sdk_get(number: int) -> object:
            return await stub.get_workload(api.GetWorkloadRequest(name=f"w-{number % calls:05d}"))

        async def sdk_list(number: int) -> object:
            return await stub.list_workloads(api.ListWorkloadsRequest(page_size=LISTED))

        async def scale(number: int) -> object:
            return await stub.scale_workload(
                api.ScaleWorkloadRequest(name=f"w-{number % calls:05d}", replicas=0)
            )

        report("create", await measure(create, calls))
        await asyncio.sleep(SETTLE_S)
        await measure(get, calls)
        report("get", await measure(get, 2 * calls))
        await measure(listed, 2)
        report("list of 200", await measure(listed, 50))
        report("get, sdk", await measure(sdk_get, calls))
        report("list, sdk", await measure(sdk_list, 20))
        report("scale", await measure(scale, calls))


def run(work: Coroutine[object, object, None], loop: str) -> None:
    """Run ``work`` on the chosen event loop."""
    if loop == "uvloop":
        import uvloop

        uvloop.run(work)
    else:
        asyncio.run(work)


def main() -> None:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(description="latency of the coordinator's API")
    parser.add_argument("--calls", type=int, default=LISTED, help="calls of each kind (at least 200)")
    parser.add_argument(
        "--data-dir", type=Path, help="a new folder for the store; a temporary one by default"
    )
    parser.add_argument("--loop", choices=("uvloop", "asyncio"), default="uvloop")
    parser.add_argument("--in-process", action="store_true", help="coordinator and client on one loop")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    calls = max(arguments.calls, LISTED)
    with contextlib.ExitStack() as stack:
        folder = arguments.data_dir or Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix=".bench-", dir=Path.cwd()))
        )
        if arguments.serve:
            run(serve(folder), arguments.loop)
        elif arguments.in_process:
            run(in_process(folder, calls), arguments.loop)
        else:
            in_two_processes(folder, calls, arguments.loop)


if __name__ == "__main__":
    main()
