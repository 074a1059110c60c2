"""How fast the stores are: put, get, list, txn, watch delay; p50 and p95 side by side.

Run ``python benchmarks/store.py [--count N] [memory|embedded|etcd ...]``. etcd needs the
``etcd`` binary; it is started on a free port with its own folder, and ended. All stores are
durable on the folder that ``--folder`` names (default: the working directory), but memory.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import shutil
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

from cloudless.aio.clock import SystemClock
from cloudless.store.election import lead
from cloudless.store.port import Compare, Put, Store
from cloudless.store.url import open_store

VALUE = os.urandom(500)
KEYS = 200
WRITERS = 20
LISTED = 2_000
STORES = ("memory", "embedded", "etcd")

Row = dict[str, str]


def figures(samples_s: list[float]) -> str:
    """``p50 / p95`` of samples, in the unit that reads best."""
    p50_s, p95_s = statistics.median(samples_s), statistics.quantiles(samples_s, n=20)[18]
    factor, unit = (1e6, "us") if p95_s < 1e-3 else (1e3, "ms")
    return f"{p50_s * factor:.4g} / {p95_s * factor:.4g} {unit}"


async def timed(count: int, call: Callable[[int], Awaitable[object]]) -> list[float]:
    samples_s: list[float] = []
    for number in range(count):
        before_s = time.perf_counter()
        await call(number)
        samples_s.append(time.perf_counter() - before_s)
    return samples_s


async def puts_at_once(store: Store, count: int) -> str:
    async def write(writer: int) -> None:
        for number in range(count // WRITERS):
            await store.txn((), [Put(f"many/{writer}/{number % 10}", VALUE)])

    before_s = time.perf_counter()
    await asyncio.gather(*(write(writer) for writer in range(WRITERS)))
    return f"{count / (time.perf_counter() - before_s):,.0f} /s"


async def watch_delay(store: Store, count: int) -> list[float]:
    """From the call of put to the event in the watcher's hands."""
    samples_s: list[float] = []
    start = (await store.range("watched/")).revision + 1
    async with store.watch("watched/", start_revision=start) as batches:
        for _ in range(count):
            before_s = time.perf_counter()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(store.txn((), [Put("watched/k", VALUE)]))
                while not (await anext(batches)).events:
                    pass
                samples_s.append(time.perf_counter() - before_s)
    return samples_s


async def election(store: Store, clock: SystemClock, count: int) -> list[float]:
    async def once(_: int) -> None:
        async with lead(store, clock, key="leader", candidate=b"bench"):
            pass

    return await timed(count, once)


async def measure(store: Store, clock: SystemClock, count: int) -> Row:
    row: Row = {}
    await timed(KEYS, lambda n: store.txn((), [Put(f"k/{n:04}", VALUE)]))
    row["put 500 B"] = figures(await timed(count, lambda n: store.txn((), [Put(f"k/{n % KEYS:04}", VALUE)])))
    row[f"put, {WRITERS} writers"] = await puts_at_once(store, count * 4)
    row["get"] = figures(await timed(count, lambda n: store.get(f"k/{n % KEYS:04}")))
    revision = (await store.txn((), [Put("cas", VALUE)])).revision

    async def swap(_: int) -> None:
        nonlocal revision
        result = await store.txn([Compare.unchanged("cas", revision)], [Put("cas", VALUE)])
        assert result.succeeded
        revision = result.revision

    row["txn, compare and put"] = figures(await timed(count, swap))
    fifty = [Put(f"fifty/{n:02}", VALUE) for n in range(50)]
    row["txn of 50 puts"] = figures(await timed(count // 10, lambda _: store.txn((), fifty)))
    for start in range(0, LISTED, 100):
        await store.txn((), [Put(f"list/{n:05}", VALUE) for n in range(start, start + 100)])
    row[f"list of {KEYS}"] = figures(await timed(count // 10, lambda _: store.range("k/")))
    row[f"list of {LISTED}"] = figures(await timed(count // 20, lambda _: store.range("list/")))
    row["watch delay from put"] = figures(await watch_delay(store, count // 2))
    row["elect and resign"] = figures(await election(store, clock, count // 20))
    return row


@contextlib.asynccontextmanager
async def url_of(name: str, folder: Path) -> AsyncIterator[str]:
    if name != "etcd":
        yield "memory://" if name == "memory" else f"embedded://{folder / name}"
        return
    with socket.socket() as one, socket.socket() as two:
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        client, peer = (f"127.0.0.1:{end.getsockname()[1]}" for end in (one, two))
    command = [
        *("etcd", f"--data-dir={folder / 'etcd'}", "--log-level=error"),
        *(f"--listen-client-urls=http://{client}", f"--advertise-client-urls=http://{client}"),
        *(f"--listen-peer-urls=http://{peer}", f"--initial-advertise-peer-urls=http://{peer}"),
        *(f"--initial-cluster=default=http://{peer}",),
        *("--heartbeat-interval=10", "--election-timeout=100"),
    ]
    quiet = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(*command, stdout=quiet, stderr=quiet)
    try:
        yield f"etcd://{client}"
    finally:
        process.terminate()
        await process.wait()


async def run(names: list[str], folder: Path, count: int) -> dict[str, Row]:
    clock = SystemClock()
    table: dict[str, Row] = {}
    for name in names:
        if name == "etcd" and shutil.which("etcd") is None:
            print("etcd is not installed: left out", file=sys.stderr)
            continue
        async with url_of(name, folder) as url, open_store(url, clock, new_id=lambda: "bench") as store:
            table[name] = await measure(store, clock, count)
    return table


def show(table: dict[str, Row]) -> None:
    print(f"{'p50 / p95':24}" + "".join(f"{name:>24}" for name in table))
    for what in next(iter(table.values())):
        print(f"{what:24}" + "".join(f"{row[what]:>24}" for row in table.values()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stores", nargs="*", default=list(STORES), metavar="store", help=", ".join(STORES))
    parser.add_argument("--count", type=int, default=2_000, help="samples of the quick operations")
    parser.add_argument("--folder", default=".", help="where the durable stores put their files")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="bench-store-") as folder:
        show(asyncio.run(run(arguments.stores, Path(folder).resolve(), arguments.count)))


if __name__ == "__main__":
    main()
