"""Figures of logs: lines per second to the client, and the delay of a followed line."""

from __future__ import annotations

import time

import grpc.aio  # type: ignore[import-untyped]

from cloudless import api
from sidebyside.container_figures import Sides
from sidebyside.results import OURS

LINES = 200_000
FOLLOWED = 50
WRITE = f"yes {'x' * 99} | head -n {LINES}; echo DONE"
#: A line now and then, and ready to end at once.
TALK = 'trap "exit 0" TERM; while true; do usleep 20000; echo tick; done'


async def measure(sides: Sides) -> None:
    """Read what a container wrote, then follow one that goes on writing."""
    await _read_all(sides)
    await _follow(sides)


async def _read_all(sides: Sides) -> None:
    figure = sides.results.figure("logs to the client", "lines/s", rising=True)
    entries = sides.results.figure("logs by the SDK, line by line", "lines/s", rising=True)
    shell = f'{WRITE}; trap "exit 0" TERM; sleep 100000 & wait'
    workload, _ = await sides.ours.up(1, command=("sh", "-c", shell))
    client = sides.ours.client
    async with client.logs(workload.name, follow=True) as lines:
        async for line in lines:
            if line.text == "DONE":
                break
    await sides.quiet()
    async with grpc.aio.insecure_channel(client.target.address) as channel:
        stream = channel.unary_stream("/cloudless.api.CoordinatorService/StreamLogs")
        request = bytes(api.StreamLogsRequest(name=workload.name))
        began = time.perf_counter()
        async for _ in stream(request):
            pass
        figure.add(OURS, LINES / (time.perf_counter() - began))
    began, count = time.perf_counter(), 0
    async with client.logs(workload.name) as lines:
        async for _ in lines:
            count += 1
    assert count == LINES + 1, f"{count} of {LINES + 1} lines"
    entries.add(OURS, count / (time.perf_counter() - began))
    await sides.ours.down(workload.name)


async def _follow(sides: Sides) -> None:
    """From the logger's time stamp to the line in the client's hands."""
    figure = sides.results.figure("followed line: written -> at the client", "ms")
    workload, _ = await sides.ours.up(1, command=("sh", "-c", TALK))
    await sides.quiet()
    count = 0
    async with sides.ours.client.logs(workload.name, follow=True, tail=0) as lines:
        async for line in lines:
            now = time.time()
            at = line.at
            assert at is not None
            figure.add(OURS, (now - at.timestamp()) * 1000)
            count += 1
            if count == FOLLOWED:
                break
    sides.results.note("A followed line's delay counts from its time stamp, given when the logger read it.")
    await sides.ours.down(workload.name)
