"""Many rollouts at the same time: ``python benchmarks/rollouts.py [--rollouts 10 50 100 200]``.

A whole coordinator (in-memory store) and a whole agent whose containers exist only in
memory, linked over loopback TCP, on one event loop: what is measured is Cloudless alone.
So many workloads are made, then all of them are updated at once. Prints the wall-clock and
CPU time until the last one is done, the same for each rollout (linear when it stays the
same), when the median and the last rollout were done, counted from the moment all were
asked for, and the quotient of the two (no starvation when it is near 1), and how late the
event loop ran at worst. Rolling updates of 4 replicas with the default bounds, each
replica's readiness probed.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from cloudless import api
from cloudless.agent import identity
from cloudless.agent.config import AgentConfig
from cloudless.agent.main import assembled
from cloudless.agent.network.memory import MemoryNetwork
from cloudless.agent.probing.outcome import ProbeOutcome, ProbeTarget, RunCommand
from cloudless.agent.runtime.memory import MemoryRuntime
from cloudless.agent.runtime.memorymachine import MemoryMachine
from cloudless.agent.traffic.memory import MemoryTraffic
from cloudless.aio.clock import SystemClock
from cloudless.aio.ids import random_id
from cloudless.coordinator.config import CoordinatorConfig
from cloudless.coordinator.main import Coordinator, coordinator
from cloudless.domain.probes import Probe
from cloudless.domain.rollout import RolloutPhase

REPLICAS = 4
#: Longest time that all rollouts together may take, in seconds.
PATIENCE_S = 600.0
#: Looking at all workloads costs something too: not more often than this, in seconds.
LOOK_S = 0.01
COUNTS = (10, 50, 100, 200)


@dataclass(frozen=True)
class Figures:
    """What one number of rollouts took, in seconds."""

    rollouts: int
    wall_s: float
    cpu_s: float
    median_s: float
    last_s: float
    lag_s: float

    def __str__(self) -> str:
        each_ms = self.wall_s / self.rollouts * 1000
        return (
            f"{self.rollouts:>8} {self.wall_s:>9.2f} {self.cpu_s:>9.2f} {each_ms:>14.1f} "
            f"{self.median_s:>9.2f} {self.last_s:>9.2f} {self.last_s / self.median_s:>9.2f} "
            f"{self.lag_s * 1000:>9.0f}"
        )


HEADING = (
    f"{'rollouts':>8} {'wall s':>9} {'CPU s':>9} {'ms per rollout':>14} "
    f"{'median s':>9} {'last s':>9} {'last/med':>9} {'lag ms':>9}"
)


@asynccontextmanager
async def machine(folder: Path) -> AsyncIterator[Coordinator]:
    """A coordinator with one node that is ready."""
    clock, images = SystemClock(), MemoryMachine(SystemClock())
    for tag in ("1", "2"):
        images.add_image(f"web:{tag}", stop_signal="SIGTERM")
    config = CoordinatorConfig(
        data_dir=folder, api_address="127.0.0.1:0", http_address="127.0.0.1:0", store="memory"
    )

    async def probe(probe: Probe, target: ProbeTarget, run: RunCommand) -> ProbeOutcome:
        return ProbeOutcome(True, "ok")

    async with coordinator(config, clock, new_id=random_id) as serving:
        node = AgentConfig(
            data_dir=folder,
            node_name="bench",
            coordinator_address=f"127.0.0.1:{serving.api_port}",
            agent_address="127.0.0.1:0",
        )
        async with assembled(
            node,
            clock,
            new_id=random_id,
            me=identity.load_identity(node.folder, clock, random_id),
            runtime=MemoryRuntime(images),
            network=MemoryNetwork(),
            traffic=MemoryTraffic(),
            run_probe=probe,
        ):
            await until(serving.coordinator, serving.ready)
            yield serving.coordinator


async def until(parts: Coordinator, condition: Callable[[], bool]) -> None:
    """Wait for something that follows from the facts; it is looked at soon after a change."""
    changed = asyncio.Event()
    with parts.cache.subscribed(lambda _: changed.set()):
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                changed.clear()
                await changed.wait()
                await asyncio.sleep(LOOK_S)


def done(parts: Coordinator, revision: int, count: int) -> bool:
    """Whether the rollouts of this revision are all completed; one that failed fails the benchmark."""
    found = [status.rollout for status in parts.cache.cluster.statuses.values()]
    failed = [one.failure.message for one in found if one is not None and one.failure is not None]
    if failed:
        raise RuntimeError(failed[0])
    return count == sum(
        one is not None and one.revision == revision and one.phase is RolloutPhase.COMPLETED for one in found
    )


def spec(tag: str) -> api.WorkloadSpec:
    """A workload with a readiness probe and the default bounds."""
    probe = api.Probe(tcp=api.TcpProbe(port=80))
    return api.WorkloadSpec(image=f"web:{tag}", command=["serve"], replicas=REPLICAS, readiness_probe=probe)


async def measure(count: int) -> Figures:
    """All of ``count`` workloads are updated at once."""
    with tempfile.TemporaryDirectory(prefix="rollouts-") as folder:
        async with machine(Path(folder)) as parts:
            names = [f"w{number:03d}" for number in range(count)]
            for name in names:
                request = api.CreateWorkloadRequest(name=name, spec=spec("1"))
                await parts.service.create_workload(request)
            await until(parts, lambda: done(parts, 1, count))
            watch = asyncio.ensure_future(worst_lag())
            began, wall, cpu = parts.health.clock.now(), time.perf_counter(), time.process_time()
            async with asyncio.TaskGroup() as group:
                for name in names:
                    update = api.UpdateWorkloadRequest(name=name, spec=spec("2"))
                    group.create_task(parts.service.update_workload(update))
            await until(parts, lambda: done(parts, 2, count))
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            watch.cancel()
            (lag_s,) = await asyncio.gather(watch)
            rollouts = [status.rollout for status in parts.cache.cluster.statuses.values()]
            ends = sorted((one.ended_at - began).total_seconds() for one in rollouts if one and one.ended_at)
            return Figures(count, wall, cpu, statistics.median(ends), ends[-1], lag_s)


async def worst_lag() -> float:
    """How late the event loop ran at worst, in seconds, until cancelled."""
    worst = 0.0
    try:
        while True:
            started = time.perf_counter()
            await asyncio.sleep(0.005)
            worst = max(worst, time.perf_counter() - started - 0.005)
    except asyncio.CancelledError:
        return worst


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure each number of rollouts on a machine of its own."""
    parser = argparse.ArgumentParser(description="Many rollouts at the same time.")
    parser.add_argument("--rollouts", type=int, nargs="+", default=COUNTS)
    print(HEADING)
    for count in parser.parse_args(arguments).rollouts:
        print(asyncio.run(measure(count)), flush=True)


if __name__ == "__main__":
    main()
