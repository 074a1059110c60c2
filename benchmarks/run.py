"""Everything that has a target, measured side by side: ``python benchmarks/run.py``.

Starts what it needs itself (a private containerd, ``cloudless serve``, Docker Swarm when
dockerd is installed or BENCH_DOCKERD names one), measures floor, program and Swarm in turn
within each round, prints one table, and leaves nothing behind. Needs root.

    python benchmarks/run.py [--rounds 3] [--only api,one,ten,...] [--json FILE] [--no-swarm]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

# grpc would write about every process that is started after it was imported.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

import uvloop
from sidebyside import (
    api_figures,
    container_figures,
    floor,
    image,
    log_figures,
    machine,
    ours,
    process_figures,
    rollout_figures,
    swarm,
)
from sidebyside.results import Results

ROUNDS = 3
NAMES = (
    "api",
    "one",
    "ten",
    "fifty",
    "heal",
    "exec",
    "update",
    "switch",
    "load",
    "cold",
    "command",
    "logs",
    "idle",
)
#: These take long and hardly vary: they are done in the first round only.
ONCE = frozenset({"idle"})


async def bench(
    results: Results, rounds: int, only: Sequence[str], with_swarm: bool, patience_s: float
) -> None:
    """Run all rounds; ``results`` has what was measured even when one fails."""
    quiet, running = machine.Quiet(patience_s), asyncio.current_task()
    assert running is not None
    for which in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(which, running.cancel)
    # Not below the working directory: the paths of sockets must be short.
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        archive = image.write(folder / "image.tar")
        dockerd = swarm.find() if with_swarm else None
        peer = None
        if dockerd is not None:
            peer = stack.enter_context(swarm.running(dockerd, folder / "docker", archive))
        bare, runtime, daemon = await stack.enter_async_context(floor.running(folder, archive))
        serve = await stack.enter_async_context(ours.serving(folder / "data", str(daemon.socket)))
        mine = await stack.enter_async_context(ours.connected(serve))
        sides = container_figures.Sides(bare, mine, runtime, peer, quiet, results)
        for number in range(rounds):
            for name in only:
                if name in ONCE and number:
                    continue
                began = time.perf_counter()
                await measure(name, sides, serve, folder, archive)
                took_s = time.perf_counter() - began
                print(f"round {number + 1} of {rounds}: {name} ({took_s:.1f} s)", file=sys.stderr, flush=True)
        if quiet.gave_up:
            results.note(f"the machine was not quiet before {quiet.gave_up} of {quiet.waited} sections")
        if peer is None:
            results.note("Docker Swarm was not measured: there is no dockerd here")


async def measure(
    name: str, sides: container_figures.Sides, serve: ours.Serve, folder: Path, archive: Path
) -> None:
    """One section of one round."""
    if name in container_figures.FIGURES:
        await container_figures.FIGURES[name](sides)
    elif name in rollout_figures.FIGURES:
        await rollout_figures.FIGURES[name](sides)
    elif name == "api":
        await api_figures.measure(sides)
    elif name == "cold":
        await process_figures.cold_start(sides, folder, Path(serve.containerd))
    elif name == "command":
        await process_figures.commands(sides, serve.address)
    elif name == "logs":
        await log_figures.measure(sides)
    elif name == "idle":
        await process_figures.idle(sides, folder, archive)


def main() -> int:
    """Parse the arguments, run, print."""
    parser = argparse.ArgumentParser(description="measure everything that has a target")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="(default: %(default)s)")
    parser.add_argument("--only", default="", help=f"some of: {','.join(NAMES)}")
    parser.add_argument("--json", type=Path, help="also write all samples to this file")
    parser.add_argument("--no-swarm", action="store_true", help="leave Docker Swarm out")
    parser.add_argument(
        "--patience",
        type=float,
        default=machine.QUIET_WAIT_S,
        help="seconds to wait for a quiet machine before each section (default: %(default)s)",
    )
    given = parser.parse_args()
    only = given.only.split(",") if given.only else list(NAMES)
    unknown = sorted(set(only) - set(NAMES))
    if unknown:
        parser.error(f"there is no {', '.join(unknown)}; there are {', '.join(NAMES)}")
    if os.geteuid() != 0:
        parser.error("needs root: it starts containers")
    told = machine.description()
    print(f"{told}\n", flush=True)
    results = Results()
    try:
        uvloop.run(bench(results, given.rounds, only, not given.no_swarm, given.patience))
    except asyncio.CancelledError:
        print("interrupted", file=sys.stderr)
    finally:
        print(results.table())
        if given.json is not None:
            data = {"machine": told, "rounds": given.rounds} | results.data()
            given.json.write_text(json.dumps(data, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
