"""Figures of the API: create, get, list, update, each from the call to the answer in hand.

The client is the program's own SDK in this process, over loopback; "as bytes" is the same
call by grpcio, whose answer is left as it came: what the server and the way take.
Workloads have no replicas, so that no container is started meanwhile.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import grpc.aio  # type: ignore[import-untyped]

from cloudless import api
from cloudless.aio.clock import SystemClock
from cloudless.aio.ids import random_id
from cloudless.sdk.client import Client
from cloudless.store.port import Put
from cloudless.store.url import open_store
from sidebyside.container_figures import Sides
from sidebyside.ours import wanted
from sidebyside.results import FLOOR, OURS, SWARM, Target

WORKLOADS = 200
CALLS = 100
LISTS = 20
LABEL = {"bench": "api"}


async def timed(call: Callable[[int], Awaitable[object]], count: int) -> list[float]:
    """Milliseconds of ``count`` calls in turn."""
    found = []
    for number in range(count):
        began = time.perf_counter()
        await call(number)
        found.append((time.perf_counter() - began) * 1000)
    return found


async def measure(sides: Sides) -> None:
    """Make 200 workloads, ask for them, change them, remove them."""
    client, results = sides.ours.client, sides.results
    durable = "one durable write of 1 KiB to the same kind of store"
    create = results.figure("Create", "ms", Target(3, 6), floor_is=durable)
    update = results.figure("Scale", "ms", Target(3), floor_is=durable)
    base = sides.ours.new_name()

    async def make(number: int) -> None:
        await client.create(wanted(f"{base}-{number}", replicas=0, labels=LABEL))

    await sides.quiet()
    writes = await _durable_writes(CALLS)
    create.add(FLOOR, *writes)
    update.add(FLOOR, *writes)
    create.add(OURS, *await timed(make, WORKLOADS))
    await sides.quiet()
    await _reads(sides, client, base)
    update.add(OURS, *await timed(lambda n: client.scale(f"{base}-{n}", 0), CALLS))
    for number in range(WORKLOADS):
        await client.delete(f"{base}-{number}")
    if sides.swarm is not None:
        await sides.quiet()
        found = sides.swarm.api(WORKLOADS, CALLS)
        for name, samples in found.items():
            results.figures[name].add(SWARM, *(took_s * 1000 for took_s in samples))


async def _reads(sides: Sides, client: Client, base: str) -> None:
    results = sides.results
    empty = "an empty call by the same client (grpc.health Check)"
    get = results.figure("Get", "ms", Target(0.8), floor_is=empty)
    listed = results.figure(f"List of {WORKLOADS}", "ms", Target(4), floor_is=empty)
    raw = results.figure(f"List of {WORKLOADS}, as bytes", "ms", Target(4), floor_is=empty + ", by grpcio")
    read = results.figure(f"List of {WORKLOADS}, all fields read", "ms")
    for figure in (get, listed):
        figure.add(FLOOR, *await timed(lambda _: _check(client), CALLS))
    get.add(OURS, *await timed(lambda n: client.get(f"{base}-{n % WORKLOADS}"), 2 * CALLS))

    async def all_of_them(_: int) -> None:
        assert len(await client.list(selector="bench=api")) >= WORKLOADS

    async def every_field(_: int) -> None:
        for workload in await client.list(selector="bench=api"):
            assert workload.spec.image

    listed.add(OURS, *await timed(all_of_them, LISTS))
    read.add(OURS, *await timed(every_field, 5))
    async with grpc.aio.insecure_channel(client.target.address) as channel:
        ask = channel.unary_unary("/cloudless.api.CoordinatorService/ListWorkloads")
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        request = bytes(api.ListWorkloadsRequest(label_selector="bench=api", page_size=WORKLOADS))
        raw.add(FLOOR, *await timed(lambda _: check(b""), CALLS))
        raw.add(OURS, *await timed(lambda _: ask(request), LISTS))


async def _check(client: Client) -> None:
    """An empty call by the client's own channel."""
    from grpclib.health.v1.health_grpc import HealthStub
    from grpclib.health.v1.health_pb2 import HealthCheckRequest

    await HealthStub(client._call.channel).Check(HealthCheckRequest())


async def _durable_writes(count: int) -> list[float]:
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        clock = SystemClock()
        async with open_store(f"embedded://{folder}/store", clock, new_id=random_id) as store:
            return await timed(lambda n: store.txn([], [Put(f"/bench/{n}", bytes(1024))]), count)
