"""Followers of one log that do not read: what they cost, when that levels off, and what others feel.

Starts a private containerd and ``cloudless serve``. A thousand followers open one log, which
then grows without end; most of them take one batch and nothing more, the others read. The
memory of ``serve`` is sampled until it has been level for a while, beside the delay of lines
of another container and the time of an exec. Then those that paused read on: each checks by the
numbers in the lines that nothing is lost untold and nothing comes twice. Needs root; leaves
nothing behind.

    python benchmarks/slow_readers.py [--followers 1000] [--reading 20] [--mb-per-s 1] [--level-s 30]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import uvloop
from sidebyside import floor, image, machine
from sidebyside.ours import Serve, serving, wanted

import cloudless
from cloudless.domain.errors import CloudlessError
from cloudless.domain.loglines import HEAD_BYTES, last_time, time_ns
from cloudless.sdk.client import Client
from cloudless.sdk.logbatch import LogBatch

LINE_BYTES = 1000
#: Numbered lines of one size from when there is a file, a hundred at a time.
FLOOD = """
until [ -e /go ]; do usleep 20000; done
awk 'BEGIN { x = sprintf("%WIDTHs", ""); for (i = 0; ; i++) { printf "%07d %s\\n", i, x
if (i % 100 == 99) { fflush(); system("usleep PAUSE_US") } } }'
"""
TALK = "while true; do usleep 5000; echo tick; done"
#: Level: the last samples differ by no more than this share, and this many MiB.
LEVEL_SHARE, LEVEL_MIB = 0.01, 4.0
LONGEST_S = 300.0
READ_ON_S = 120.0


class Follower:
    """One stream, which checks what it gets: the next number, or a gap that explains the jump."""

    def __init__(self, goes_on: asyncio.Event) -> None:
        self._goes_on = goes_on
        self.caught_up = asyncio.Event()
        self.lines = 0
        self.lost = 0
        #: Told of lost connections: each is one that was cut off.
        self.breaks: list[str] = []
        self._next: int | None = None

    def on_connection(self, error: CloudlessError | None) -> None:
        if error is not None:
            self.breaks.append(error.message)

    async def run(self, client: Client) -> None:
        options = cloudless.sdk.logs.LogOptions(follow=True, tail=0, on_connection=self.on_connection)
        async with client.logs("flood", **options) as lines:
            async for batch in lines.batches():
                if batch.caught_up:
                    self.caught_up.set()
                self.take(batch)
                if self.lines:
                    await self._goes_on.wait()

    def take(self, batch: LogBatch) -> None:
        for chunk in batch.chunks:
            if chunk.marker is not None:
                if chunk.marker.kind == "GAP":
                    self.lost += chunk.marker.gap_bytes // LINE_BYTES
                    if self._next is not None:
                        self._next += chunk.marker.gap_bytes // LINE_BYTES
                continue
            count = len(chunk.lines) // (HEAD_BYTES + LINE_BYTES)
            first = int(chunk.lines[HEAD_BYTES : HEAD_BYTES + 7])
            assert self._next in (None, first), f"line {first} came, and not {self._next}"
            last = int(chunk.lines[-LINE_BYTES : 7 - LINE_BYTES])
            assert last == first + count - 1, f"{count} lines from {first} to {last}"
            self._next = last + 1
            self.lines += count


class Neighbour:
    """What somebody else feels meanwhile: delays of lines, pauses of a container, times of an exec."""

    def __init__(self) -> None:
        self.delays_ms: list[float] = []
        self.pauses_ms: list[float] = []
        self.execs_ms: list[float] = []
        self.not_ready = 0

    async def read(self, client: Client) -> None:
        before_ns = 0
        async with client.logs("talker", follow=True, tail=0) as lines:
            async for batch in lines.batches():
                now_ns = time.time_ns()
                for chunk in batch.chunks:
                    for raw in chunk.raws:
                        at_ns = time_ns(raw)
                        if before_ns:
                            self.pauses_ms.append((at_ns - before_ns) / 1e6)
                        before_ns = at_ns
                    if chunk.lines:
                        self.delays_ms.append((now_ns - time_ns(last_time(chunk.lines))) / 1e6)

    async def call(self, client: Client) -> None:
        while True:
            began = time.perf_counter()
            await client.exec("talker", ["true"])
            self.execs_ms.append((time.perf_counter() - began) * 1000)
            self.not_ready += sum(node.phase != "READY" for node in await client.nodes())
            await asyncio.sleep(1.0)

    def clear(self) -> None:
        for found in (self.delays_ms, self.pauses_ms, self.execs_ms):
            found.clear()

    def told(self) -> str:
        def both(found: list[float]) -> str:
            cuts = statistics.quantiles(found, n=100) if len(found) > 1 else [0.0] * 99
            return f"{cuts[49]:.1f} / {cuts[98]:.1f} / {max(found):.0f} ms"

        return (
            f"p50 / p99 / most: a line's delay {both(self.delays_ms)}; between two lines written every "
            f"5 ms {both(self.pauses_ms)}; exec {both(self.execs_ms)}; node not ready {self.not_ready} times"
        )


async def level(serve: Serve, for_s: float, show: Callable[[float, float], None]) -> tuple[float, float]:
    """MiB of the program as soon as that is level for so many seconds, and the most that was seen."""
    samples: list[float] = []
    began = time.monotonic()
    while time.monotonic() - began < LONGEST_S:
        samples.append(await asyncio.to_thread(machine.pss_mib, [serve.pid]))
        show(time.monotonic() - began, samples[-1])
        recent = samples[-int(for_s) :]
        spread = max(recent) - min(recent)
        if len(recent) >= for_s and spread <= max(LEVEL_MIB, LEVEL_SHARE * max(recent)):
            return statistics.median(recent), max(samples)
        await asyncio.sleep(1.0)
    raise AssertionError(f"memory is not level after {LONGEST_S:g} s: {samples[-1]:.0f} MiB")


def shown(every_s: float) -> Callable[[float, float], None]:
    """Prints some of the samples."""
    latest = -every_s

    def show(at_s: float, mib: float) -> None:
        nonlocal latest
        if at_s - latest >= every_s:
            latest = at_s
            print(f"  {at_s:4.0f} s {mib:7.0f} MiB", file=sys.stderr, flush=True)

    return show


async def running(client: Client, name: str, script: str) -> None:
    made = await client.create(wanted(name, command=("sh", "-c", script)))
    await client.follow(made, "available")


async def bench(asked: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        archive = image.write(folder / "image.tar")
        async with contextlib.AsyncExitStack() as stack:
            _, _, daemon = await stack.enter_async_context(floor.running(folder, archive))
            serve = await stack.enter_async_context(serving(folder / "data", str(daemon.socket)))
            client = await stack.enter_async_context(cloudless.connect(serve.address))
            others = await stack.enter_async_context(cloudless.connect(serve.address))
            await measure(serve, client, others, asked)


async def measure(serve: Serve, client: Client, others: Client, asked: argparse.Namespace) -> None:
    pause_us = int(100 * LINE_BYTES / asked.mb_per_s)
    script = FLOOD.replace("WIDTH", str(LINE_BYTES - 9)).replace("PAUSE_US", str(pause_us))
    await running(client, "flood", script)
    await running(client, "talker", TALK)
    reads, reads_on = asyncio.Event(), asyncio.Event()
    reads.set()
    readers = [Follower(reads) for _ in range(asked.reading)]
    pausing = [Follower(reads_on) for _ in range(asked.followers - asked.reading - 1)]  # and the neighbour
    neighbour = Neighbour()
    print(machine.description())
    before = machine.pss_mib([serve.pid])
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one.run(client)) for one in (*readers, *pausing)]
        await asyncio.gather(*(one.caught_up.wait() for one in (*readers, *pausing)))
        tasks += [group.create_task(work) for work in (neighbour.read(others), neighbour.call(others))]
        idle, _ = await level(serve, 5, lambda at_s, mib: None)
        print(f"{asked.followers} followers of logs that are quiet: {idle - before:.0f} MiB")
        print(f"  {neighbour.told()}")
        neighbour.clear()
        await client.exec("flood", ["touch", "/go"])
        full, most = await level(serve, asked.level_s, shown(asked.every_s))
        each_kib = (full - before) / len(pausing) * 1024
        print(
            f"{len(pausing)} of them read nothing more: {full - before:.0f} MiB, {each_kib:.0f} KiB for each"
        )
        print(f"  at most {most - before:.0f} MiB on the way")
        print(f"  {neighbour.told()}")
        print(
            f"  {asked.reading} read {statistics.median(one.lines for one in readers):,.0f} lines meanwhile"
        )
        neighbour.clear()
        reads_on.set()
        end = min(one.lines + one.lost for one in readers)
        busiest = 0.0

        def read_on() -> bool:
            nonlocal busiest
            busiest = max(busiest, machine.pss_mib([serve.pid]))
            return all(one.lines + one.lost >= end for one in pausing)

        await until(read_on, READ_ON_S)
        print(f"all of them read on at once: at most {busiest - before:.0f} MiB")
        print(f"  {neighbour.told()}")
        for task in tasks:
            task.cancel()
    after, _ = await level(serve, 5, lambda at_s, mib: None)
    broken = [one for one in pausing if one.breaks]
    print(f"{len(broken)} were cut off, and went on by their cursors; nobody missed a line or got one twice")
    print(f"  told: {broken[0].breaks[0] if broken else 'nothing'}")
    print(f"  lines that were rotated away, and told: {sum(one.lost for one in pausing):,}")
    print(f"  when all have left: {after - before:.0f} MiB more than before")


async def until(fits: Callable[[], bool], limit_s: float) -> None:
    async with asyncio.timeout(limit_s):
        while not fits():
            await asyncio.sleep(0.5)


def main() -> int:
    """Parse the arguments, run, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--followers", type=int, default=1000)
    parser.add_argument("--reading", type=int, default=20)
    parser.add_argument("--mb-per-s", type=float, default=1.0, help="what the container writes")
    parser.add_argument("--level-s", type=float, default=30.0, help="how long memory has to be level")
    parser.add_argument("--every-s", type=float, default=5.0, help="show a sample so often")
    uvloop.run(bench(parser.parse_args()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
