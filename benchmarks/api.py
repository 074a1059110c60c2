"""Latency of the coordinator's API: create, get, list of 200, update, on a durable store.

A whole coordinator (embedded store, fsync before each answer) and its client run in this
one process over loopback TCP, with a linked node that accepts everything; so a figure
holds the client's own work as well. Get and list are measured twice: with protobuf's
compiled messages, as most gRPC clients have them, and with this project's own Python
classes ("sdk"). The floor is one transaction of the store. Prints p50 and p95 in
milliseconds.

    .venv/bin/python benchmarks/api.py [--calls 200] [--data-dir DIR]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from importlib.resources import files
from pathlib import Path

from grpclib.const import Cardinality

from cloudless import api
from cloudless.aio.clock import SystemClock
from cloudless.aio.ids import random_id
from cloudless.coordinator.config import CoordinatorConfig
from cloudless.coordinator.main import coordinator
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
    print(line)


async def bench(data_dir: Path, calls: int) -> None:
    """Run the whole benchmark."""
    config = CoordinatorConfig(data_dir=data_dir, api_address="127.0.0.1:0", http_address="127.0.0.1:0")
    async with contextlib.AsyncExitStack() as stack:
        serving = await stack.enter_async_context(coordinator(config, SystemClock(), new_id=random_id))
        node = await stack.enter_async_context(GuardedServer([Node()], name="node"))
        await serving.coordinator.seat.wait_leading()
        for kind in ("control", "bulk"):
            hello = {"node_id": "bench", "node_name": "bench", "kind": kind, "session": "bench"}
            await dial_link("127.0.0.1", serving.api_port, hello, node)
        while not serving.ready():  # noqa: ASYNC110 - once, at the start
            await asyncio.sleep(0.01)
        channel = connect(f"127.0.0.1:{serving.api_port}")
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

        async def floor(number: int) -> object:
            return await serving.coordinator.health.store.txn([], [Put(f"/bench/{number}", bytes(1000))])

        async def update(number: int) -> object:
            request = api.ScaleWorkloadRequest(name=f"w-{number % calls:05d}", replicas=0)
            return await stub.scale_workload(request)

        report("store txn", await measure(floor, calls))
        report("create", await measure(create, calls))
        await settle(serving.coordinator.control)
        await measure(get, calls)
        report("get", await measure(get, 2 * calls))
        await measure(listed, 2)
        report("list of 200", await measure(listed, 50))
        report("get, sdk", await measure(sdk_get, calls))
        report("list, sdk", await measure(sdk_list, 20))
        report("scale", await measure(update, calls))


async def settle(control: object) -> None:
    """Wait until the control loop has nothing to do."""
    quiet = 0
    while quiet < 5:  # noqa: ASYNC110
        await asyncio.sleep(0.02)
        quiet = quiet + 1 if control.depth == 0 else 0  # type: ignore[attr-defined]


def main() -> None:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(description="latency of the coordinator's API")
    parser.add_argument("--calls", type=int, default=LISTED, help="calls of each kind (at least 200)")
    parser.add_argument(
        "--data-dir", type=Path, help="where the store is kept; a new temporary folder by default"
    )
    parser.add_argument("--loop", choices=("uvloop", "asyncio"), default="uvloop")
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = arguments.data_dir or Path(stack.enter_context(tempfile.TemporaryDirectory(dir=os.getcwd())))
        work = bench(folder, max(arguments.calls, LISTED))
        if arguments.loop == "uvloop":
            import uvloop

            uvloop.run(work)
        else:
            asyncio.run(work)


if __name__ == "__main__":
    main()
