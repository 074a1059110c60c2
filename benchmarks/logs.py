"""Logs, from the container's file through node and coordinator to a client in another process.

Starts a private containerd and ``cloudless serve``, lets replicas write, and measures:
lines a second of all that was written (as batches and line by line in the SDK, merged from
three replicas, with a filter, by the command line), the last 100 lines, the delay of a
followed line from the time stamp that its logger gave it to the client's hands, and a
hundred followers of one log. Where there is a dockerd (BENCH_DOCKERD names one that is not
on the path) the same is asked of it: ratios above 1 are in our favour. Prints medians.
Needs root; leaves nothing behind.

    .venv/bin/python benchmarks/logs.py [--rounds 3] [--lines 1000000] [--followed 300] [--no-docker]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import uvloop
from sidebyside import floor, image, machine, swarm
from sidebyside.docker_logs import DockerLogs
from sidebyside.ours import PROGRAM, Serve, serving, wanted

import cloudless
from cloudless.domain.loglines import last_time, time_ns
from cloudless.sdk.client import Client

LINE_BYTES = 100
WRITE = f"yes {'x' * (LINE_BYTES - 1)} | head -n {{lines}}; echo DONE; sleep 100000"
TALK = 'trap "exit 0" TERM; while true; do usleep {pause_us}; echo tick; done'
PAUSE_US = 5000
#: With a hundred followers, of which each gets each line.
SHARED_PAUSE_US = 50_000
#: So that all lines are kept.
FLAGS = ("--log-files", "20")
FOLLOWERS, CONNECTIONS = 100, 4
#: Lines that each of many followers reads.
SHARED = 60
#: What has to be reached.
TARGETS = {
    "SDK, batches": 500_000.0,
    "CLI to /dev/null": 300_000.0,
    "tail of 100": 25.0,
    "followed line, p50": 1.0,
    "followed line, p99": 10.0,
}


class Figures:
    """Samples by name, ours and Docker's; ``unit`` decides which way is good."""

    def __init__(self) -> None:
        self.units: dict[str, str] = {}
        self.ours: dict[str, list[float]] = {}
        self.docker: dict[str, list[float]] = {}

    def note(self, name: str, unit: str, *values: float) -> None:
        self.units[name] = unit
        self.ours.setdefault(name, []).extend(values)

    def beside(self, name: str, *values: float) -> None:
        self.docker.setdefault(name, []).extend(values)

    def lines(self) -> list[str]:
        """The table."""
        found = [f"{'':28}{'ours':>12}{'Docker':>12}{'ratio':>8}{'target':>12}"]
        for name, unit in self.units.items():
            mine, theirs = statistics.median(self.ours[name]), self.docker.get(name)
            rising = unit == "lines/s"
            shown = f"{mine:12,.0f}" if rising else f"{mine:12.2f}"
            if theirs:
                other = statistics.median(theirs)
                ratio = mine / other if rising else other / mine
                shown += f"{other:12,.0f}" if rising else f"{other:12.2f}"
                shown += f"{ratio:8.1f}"
            else:
                shown += " " * 20
            target = TARGETS.get(name)
            if target is not None:
                kept = mine >= target if rising else mine <= target
                shown += f"{target:12,g}  {'kept' if kept else 'MISSED'}"
            found.append(f"{name:28}{shown}  {unit}")
        return found


async def written(client: Client, name: str, lines: int, replicas: int) -> None:
    """A workload whose replicas wrote so many lines together, and are quiet now."""
    script = WRITE.format(lines=lines // replicas)
    made = await client.create(wanted(name, replicas=replicas, command=("sh", "-c", script)))
    await client.follow(made, "available")
    done = 0
    async with client.logs(name, follow=True, tail=1, include="^DONE$") as found:
        async for _ in found:
            done += 1
            if done == replicas:
                return


async def talker(client: Client, name: str, pause_us: int) -> None:
    made = await client.create(wanted(name, command=("sh", "-c", TALK.format(pause_us=pause_us))))
    await client.follow(made, "available")


async def batches_per_s(client: Client, name: str, **options: Any) -> tuple[float, int]:
    """Lines a second, and how many."""
    began, count = time.perf_counter(), 0
    async with client.logs(name, **options) as lines:
        async for batch in lines.batches():
            count += batch.line_count
    return count / (time.perf_counter() - began), count


async def lines_per_s(client: Client, name: str) -> float:
    began, count = time.perf_counter(), 0
    async with client.logs(name) as lines:
        async for _ in lines:
            count += 1
    return count / (time.perf_counter() - began)


async def command_s(address: str, *words: str) -> float:
    """How long the command line takes, its start included."""
    began = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        PROGRAM, *words, env={**os.environ, "CLOUDLESS_ADDRESS": address}, stdout=asyncio.subprocess.DEVNULL
    )
    assert await process.wait() == 0
    return time.perf_counter() - began


async def tail_ms(client: Client, name: str) -> float:
    began = time.perf_counter()
    async with client.logs(name, tail=100) as lines:
        count = len([line async for line in lines])
    assert count == 100, count
    return (time.perf_counter() - began) * 1000


async def delays_ms(client: Client, name: str, times: int) -> list[float]:
    """From a line's stamp until it is in a client's hands."""
    found: list[float] = []
    async with client.logs(name, follow=True, tail=0) as lines:
        async for batch in lines.batches():
            now = time.time_ns()
            found += [(now - time_ns(last_time(chunk.lines))) / 1e6 for chunk in batch.chunks if chunk.lines]
            if len(found) > times:
                break
    return found


async def followers(figures: Figures, serve: Serve, name: str) -> None:
    """A hundred of one log, and what they cost."""
    async with contextlib.AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(cloudless.connect(serve.address)) for _ in range(CONNECTIONS)
        ]
        memory, cpu_s, began = machine.pss_mib([serve.pid]), _cpu_s(serve.pid), time.perf_counter()
        reading = [
            asyncio.ensure_future(delays_ms(clients[number % CONNECTIONS], name, SHARED))
            for number in range(FOLLOWERS)
        ]
        found = sorted(delay for one in await asyncio.gather(*reading) for delay in one[1:])
        took_s = time.perf_counter() - began
        figures.note("100 followers, p50", "ms", statistics.median(found))
        figures.note("100 followers, p99", "ms", found[len(found) * 99 // 100])
        figures.note("100 followers, memory", "MiB more", max(machine.pss_mib([serve.pid]) - memory, 0.0))
        figures.note("100 followers, CPU", "cores", (_cpu_s(serve.pid) - cpu_s) / took_s)


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def measure(figures: Figures, client: Client, serve: Serve, asked: argparse.Namespace) -> None:
    for replicas in (1, 3):
        await written(client, f"log{replicas}", asked.lines, replicas)
    for _ in range(asked.rounds):
        speed, kept = await batches_per_s(client, "log1")
        assert kept == asked.lines + 1, f"{kept} lines are kept"
        figures.note("SDK, batches", "lines/s", speed)
        figures.note("SDK, line by line", "lines/s", await lines_per_s(client, "log1"))
        figures.note("SDK, three merged", "lines/s", (await batches_per_s(client, "log3"))[0])
        figures.note(
            "SDK, with a pattern", "lines/s", (await batches_per_s(client, "log1", include="^x+$"))[0]
        )
        figures.note("CLI to /dev/null", "lines/s", kept / await command_s(serve.address, "logs", "log1"))
        took_s = await command_s(serve.address, "logs", "log1", "--prefix", "--color", "always")
        figures.note("CLI with coloured prefixes", "lines/s", kept / took_s)
        for _ in range(10):
            figures.note("tail of 100", "ms", await tail_ms(client, "log1"))
        figures.note(
            "CLI, tail of 100", "ms", 1000 * await command_s(serve.address, "logs", "log1", "--tail", "100")
        )
        figures.note("CLI, get (for comparison)", "ms", 1000 * await command_s(serve.address, "get"))
    await talker(client, "talker", PAUSE_US)
    delays = await delays_ms(client, "talker", asked.followed)
    figures.note("followed line, p50", "ms", statistics.median(delays))
    figures.note("followed line, p99", "ms", statistics.quantiles(delays, n=100)[98])
    await client.follow(await client.delete("talker", grace_s=0), "deleted")
    await talker(client, "shared", SHARED_PAUSE_US)
    await followers(figures, serve, "shared")


def measure_docker(figures: Figures, docker: DockerLogs, asked: argparse.Namespace) -> None:
    name = docker.written(WRITE.format(lines=asked.lines))
    for _ in range(asked.rounds):
        speed = docker.container_lines_per_s(name)
        figures.beside("SDK, batches", speed)
        figures.beside("SDK, line by line", speed)
        figures.beside("SDK, three merged", docker.service_lines_per_s(name))
        by_command = docker.command_lines_per_s(name, asked.lines)
        if by_command is not None:
            figures.beside("CLI to /dev/null", by_command)
        figures.beside("tail of 100", *docker.tail_ms(name, 10))
    docker.down(name)
    delays = docker.delays_ms(TALK.format(pause_us=PAUSE_US), asked.followed)
    figures.beside("followed line, p50", statistics.median(delays))
    figures.beside("followed line, p99", statistics.quantiles(delays, n=100)[98])


@contextlib.asynccontextmanager
async def parts(folder: Path, *, with_docker: bool) -> AsyncIterator[tuple[Serve, DockerLogs | None]]:
    archive = image.write(folder / "image.tar")
    dockerd = swarm.find() if with_docker else None
    async with contextlib.AsyncExitStack() as stack:
        docker = None
        if dockerd is not None:
            docker = DockerLogs(stack.enter_context(swarm.running(dockerd, folder / "docker", archive)))
        _, _, daemon = await stack.enter_async_context(floor.running(folder, archive))
        serve = await stack.enter_async_context(serving(folder / "data", str(daemon.socket), *FLAGS))
        yield serve, docker


async def bench(asked: argparse.Namespace) -> None:
    figures = Figures()
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        async with (
            parts(Path(name), with_docker=not asked.no_docker) as (serve, docker),
            cloudless.connect(serve.address) as client,
        ):
            await measure(figures, client, serve, asked)
            if docker is not None:
                measure_docker(figures, docker, asked)
    print(machine.description())
    print(
        f"{asked.lines:,} lines of {LINE_BYTES} bytes, all kept; Docker's three merged is a service of one\n"
    )
    print("\n".join(figures.lines()))


def main() -> int:
    """Parse the arguments, run, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--followed", type=int, default=300)
    parser.add_argument("--no-docker", action="store_true", help="leave Docker out")
    uvloop.run(bench(parser.parse_args()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
