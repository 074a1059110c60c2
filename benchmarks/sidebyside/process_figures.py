"""Figures of whole processes: cold start, a short command, what it costs to do nothing."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path

from cloudless.containerd.client import DEFAULT_NAMESPACE
from sidebyside import ours
from sidebyside.container_figures import Sides
from sidebyside.floor import open_client
from sidebyside.machine import cpu_s, descendants, pss_mib, rss_mib, with_argument
from sidebyside.results import FLOOR, OURS, SWARM, Target

COMMANDS = 10
IDLE_S = 20.0
SETTLE_S = 3.0
IDLE_REPLICAS = 10


async def cold_start(sides: Sides, folder: Path, socket: Path) -> None:
    """From the start of the process to /readyz, on a new data directory, containerd up."""
    figure = sides.results.figure("serve, cold start to ready", "ms", Target(1000))
    await sides.quiet()
    fresh = ours.Serve(folder / f"cold-{time.monotonic_ns()}", str(socket))
    try:
        figure.add(OURS, await fresh.start() * 1000)
    finally:
        await fresh.stop()
        await fresh.reset()


async def commands(sides: Sides, address: str) -> None:
    """``cloudless get``: from fork to exit."""
    figure = sides.results.figure(
        "cloudless get, whole process", "ms", Target(150), floor_is="python -I -c pass, whole process"
    )
    environment = {**os.environ, "CLOUDLESS_ADDRESS": address}
    shown = await sides.ours.client.create(ours.wanted(sides.ours.new_name(), replicas=0))
    await sides.quiet()
    for number in range(COMMANDS + 1):
        floor = await _process_ms((sys.executable, "-I", "-c", "pass"), environment)
        took = await _process_ms((str(ours.PROGRAM), "get"), environment)
        if number:  # the first one writes byte code
            figure.add(FLOOR, floor)
            figure.add(OURS, took)
    await sides.ours.down(shown.name)
    if sides.swarm is not None and sides.swarm.command is not None:
        for _ in range(COMMANDS):
            figure.add(SWARM, await _process_ms((*sides.swarm.command, "service", "ls"), environment))


async def _process_ms(command: tuple[str, ...], environment: dict[str, str]) -> float:
    began = time.perf_counter()
    nothing = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(*command, env=environment, stdout=nothing)
    assert await process.wait() == 0, command
    return (time.perf_counter() - began) * 1000


async def idle(sides: Sides, folder: Path, archive: Path) -> None:
    """What a program of its own with a private containerd uses while nothing is asked of it."""
    async with ours.serving(folder / "idle", "private") as serve, ours.connected(serve) as mine:
        socket = folder / "idle" / "containerd" / "containerd.sock"
        async with open_client(socket, DEFAULT_NAMESPACE) as client:
            await client.importer.import_archive(archive, spool_dir=folder)
        daemon = with_argument("containerd", str(socket.with_name("config.toml")))
        await _look(sides, serve, daemon, "no replicas")
        workload, _ = await mine.up(IDLE_REPLICAS)
        await _look(sides, serve, daemon, f"{IDLE_REPLICAS} replicas")
        shims = with_argument("containerd-shim-runc-v2", str(socket))
        loggers = [pid for shim in shims for pid in descendants(shim) if _is_logger(pid)]
        each = sides.results.figure("memory per container: shim and logger", "MiB PSS", Target())
        each.add(OURS, pss_mib([*shims, *loggers]) / IDLE_REPLICAS)
        await mine.down(workload.name)
    if sides.swarm is not None:
        await asyncio.to_thread(_look_at_swarm, sides, "no replicas")
        name, _ = await asyncio.to_thread(sides.swarm.up, IDLE_REPLICAS)
        await asyncio.to_thread(_look_at_swarm, sides, f"{IDLE_REPLICAS} replicas")
        await asyncio.to_thread(sides.swarm.down, name)


async def _look(sides: Sides, serve: ours.Serve, daemon: list[int], state: str) -> None:
    busy = sides.results.figure(f"idle CPU, {state}", "% of a core", Target(1))
    size = sides.results.figure(
        f"memory with containerd, {state}", "MiB PSS", Target(110), floor_is="the private containerd alone"
    )
    alone = sides.results.figure(
        f"the same, if nobody shared its pages, {state}", "MiB RSS", floor_is="the private containerd alone"
    )
    pids = [serve.pid, *daemon]
    await asyncio.sleep(SETTLE_S)
    before = cpu_s(pids)
    await asyncio.sleep(IDLE_S)
    busy.add(OURS, (cpu_s(pids) - before) / IDLE_S * 100)
    size.add(FLOOR, pss_mib(daemon))
    size.add(OURS, pss_mib(pids))
    alone.add(FLOOR, rss_mib(daemon))
    alone.add(OURS, rss_mib(pids))


def _look_at_swarm(sides: Sides, state: str) -> None:
    assert sides.swarm is not None
    pids = sides.swarm.daemons()
    time.sleep(SETTLE_S)
    before = cpu_s(pids)
    time.sleep(IDLE_S)
    sides.results.figures[f"idle CPU, {state}"].add(SWARM, (cpu_s(pids) - before) / IDLE_S * 100)
    sides.results.figures[f"memory with containerd, {state}"].add(SWARM, pss_mib(pids))
    sides.results.figures[f"the same, if nobody shared its pages, {state}"].add(SWARM, rss_mib(pids))


def _is_logger(pid: int) -> bool:
    try:
        return b"python" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
