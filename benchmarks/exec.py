"""Programs in replicas: the start of one, and how fast its output and input flow.

Starts a private containerd and ``cloudless serve``, and measures in turn, within each
round: ``true`` by a bare client of containerd's (the floor), as ExecCommand (buffered) and
as Exec (a stream), both through coordinator and node; then bytes a second of a program's
output and of what is written to a program's input, by the SDK and by the CLI to a pipe.
Where there is a dockerd (BENCH_DOCKERD names one that is not on the path), the same by
Docker's API and ``docker exec``. Prints medians and the ratio to the floor. Needs root;
leaves nothing behind.

    .venv/bin/python benchmarks/exec.py [--rounds 5] [--execs 20] [--megabytes 300]
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
from collections.abc import Awaitable, Callable
from pathlib import Path

from sidebyside import floor, image, swarm
from sidebyside.ours import PROGRAM, serving, wanted

import cloudless
from cloudless.sdk.client import Client

#: What has to be reached: milliseconds of a ``true``, and megabytes a second of output.
TARGET_TRUE_MS = 36.0
TARGET_OUTPUT = 100.0
MB = 1_000_000
BLOCK_BYTES = 64 * 1024


async def timed_ms(work: Callable[[], Awaitable[object]]) -> float:
    began = time.perf_counter()
    await work()
    return (time.perf_counter() - began) * 1000


async def buffered(client: Client) -> None:
    assert (await client.exec("bench", ["true"])).exit_code == 0


async def streamed(client: Client) -> None:
    async with client.open_exec("bench", ["true"], stdin=False) as program:
        assert (await program.wait()).exit_code == 0


async def output(client: Client, size: int) -> float:
    """Megabytes a second."""
    command = ["dd", "if=/dev/zero", f"bs={BLOCK_BYTES}", f"count={size // BLOCK_BYTES}"]
    async with client.open_exec("bench", command, stdin=False) as program:
        began, got = time.perf_counter(), 0
        async for data in program.stdout:
            got += len(data)
        assert (await program.wait()).exit_code == 0
        return got / MB / (time.perf_counter() - began)


async def given(client: Client, size: int) -> float:
    """Megabytes a second."""
    async with client.open_exec("bench", ["sh", "-c", "cat >/dev/null"]) as program:
        began, block = time.perf_counter(), bytes(BLOCK_BYTES)
        for _ in range(size // BLOCK_BYTES):
            await program.stdin.write(block)
        await program.stdin.close()
        assert (await program.wait()).exit_code == 0
        return size / MB / (time.perf_counter() - began)


async def by_cli(address: str, size: int) -> float:
    """Megabytes a second, the start of the command included."""
    script = f"{PROGRAM} exec bench -- dd if=/dev/zero bs={BLOCK_BYTES} count={size // BLOCK_BYTES} | wc -c"
    began = time.perf_counter()
    process = await asyncio.create_subprocess_shell(
        script,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={**os.environ, "CLOUDLESS_ADDRESS": address},
    )
    out, _ = await process.communicate()
    return int(out) / MB / (time.perf_counter() - began)


async def docker(peer: swarm.Swarm, found: dict[str, list[float]], execs: int, size: int) -> None:
    """The same with Docker."""
    found.setdefault("docker API", []).extend(
        took_s * 1000 for took_s in await asyncio.to_thread(peer.execute, execs)
    )
    script = f"dd if=/dev/zero bs={BLOCK_BYTES} count={size // BLOCK_BYTES} 2>/dev/null"
    whole = size // BLOCK_BYTES * BLOCK_BYTES
    rate = await asyncio.to_thread(peer.command_output_bytes_per_s, script, whole)
    if rate is not None:
        found.setdefault("docker exec output", []).append(rate / MB)


async def measure(
    client: Client,
    bare: Callable[[], Awaitable[float]],
    address: str,
    peer: swarm.Swarm | None,
    wanted_: argparse.Namespace,
) -> None:
    size = wanted_.megabytes * MB
    found: dict[str, list[float]] = {}
    for _ in range(wanted_.rounds):
        for _ in range(wanted_.execs):
            found.setdefault("floor", []).append(await bare() * 1000)
            found.setdefault("buffered", []).append(await timed_ms(lambda: buffered(client)))
            found.setdefault("stream", []).append(await timed_ms(lambda: streamed(client)))
        found.setdefault("output", []).append(await output(client, size))
        found.setdefault("input", []).append(await given(client, size))
        found.setdefault("cli output", []).append(await by_cli(address, size))
        if peer is not None:
            await docker(peer, found, wanted_.execs, size)
    medians = {name: statistics.median(values) for name, values in found.items()}
    base = medians["floor"]
    print(f"{'exec true':28}{'p50 ms':>9}{'p95 ms':>9}{'ratio':>8}")
    for name in [name for name in ("floor", "buffered", "stream", "docker API") if name in found]:
        p95 = statistics.quantiles(found[name], n=20)[18]
        print(f"  {name:26}{medians[name]:9.1f}{p95:9.1f}{medians[name] / base:8.2f}")
    print(f"{'flow':28}{'MB/s':>9}")
    for name in [name for name in ("output", "input", "cli output", "docker exec output") if name in found]:
        print(f"  {name:26}{medians[name]:9.0f}")
    slowest = max(medians["buffered"], medians["stream"])
    kept = slowest <= TARGET_TRUE_MS and medians["output"] >= TARGET_OUTPUT
    print(f"targets ({TARGET_TRUE_MS:g} ms, {TARGET_OUTPUT:g} MB/s): {'kept' if kept else 'MISSED'}")


async def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--execs", type=int, default=20)
    parser.add_argument("--megabytes", type=int, default=300)
    wanted_ = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        archive = image.write(folder / "image.tar")
        dockerd = swarm.find()
        with contextlib.ExitStack() as stack:
            peer = (
                None
                if dockerd is None
                else stack.enter_context(swarm.running(dockerd, folder / "docker", archive))
            )
            await _run(folder, archive, peer, wanted_)
    return 0


async def _run(folder: Path, archive: Path, peer: swarm.Swarm | None, wanted_: argparse.Namespace) -> None:
    async with (
        floor.running(folder, archive) as (bare, _, daemon),
        serving(folder / "data", str(daemon.socket)) as serve,
        cloudless.connect(serve.address) as client,
    ):
        container_id = f"floor-{os.getpid()}"
        await bare.run(container_id)
        made = await client.create(wanted("bench"))
        await client.follow(made, "available")
        try:
            await measure(
                client, lambda: bare.execute(bare.client, container_id), serve.address, peer, wanted_
            )
        finally:
            await bare.end(container_id)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
