"""Figures of containers: start, delete, self-healing, exec; each beside the floor."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from cloudless.containerd.client import ContainerdClient
from cloudless.sdk.workload import Workload
from sidebyside.floor import Floor
from sidebyside.machine import Quiet
from sidebyside.ours import Ours
from sidebyside.results import FLOOR, OURS, SWARM, Results, Target
from sidebyside.swarm import Swarm

EXECS = 20
NO_BACKOFF = {"policy": "ALWAYS", "backoff": {"base": "0s"}}
BARE = "the same container by a bare client of the same containerd"


@dataclass
class Sides:
    """Those that are compared; ``runtime`` sees the containers of ours."""

    floor: Floor
    ours: Ours
    runtime: ContainerdClient
    swarm: Swarm | None
    quiet: Quiet
    results: Results


async def starts(sides: Sides, count: int, target_up: Target, target_down: Target, repeat: int = 1) -> None:
    """Create to running, and delete to gone."""
    many = "1 container" if count == 1 else f"{count} containers"
    up = sides.results.figure(f"create -> {many} running", "ms", target_up, floor_is=BARE)
    down = sides.results.figure(f"delete -> {many} gone", "ms", target_down, floor_is=BARE)
    for _ in range(repeat):
        await sides.quiet()
        names, took_s = await sides.floor.up(count)
        up.add(FLOOR, took_s * 1000)
        down.add(FLOOR, await sides.floor.down(names) * 1000)
        await sides.quiet()
        workload, took_s = await sides.ours.up(count)
        up.add(OURS, took_s * 1000)
        await sides.quiet()
        took_s = await sides.ours.down(workload.name)
        left = await sides.runtime.containers.list(f'labels."cloudless.io/workload"=={workload.id}')
        assert not left, f"{len(left)} containers are left of a deleted workload"
        down.add(OURS, took_s * 1000)
    if sides.swarm is not None:
        await sides.quiet()
        name, took_s = await asyncio.to_thread(sides.swarm.up, count)
        up.add(SWARM, took_s * 1000)
        await sides.quiet()
        down.add(SWARM, await asyncio.to_thread(sides.swarm.down, name) * 1000)


async def one(sides: Sides) -> None:
    await starts(sides, 1, Target(130), Target(), repeat=4)


async def ten(sides: Sides) -> None:
    await starts(sides, 10, Target(600), Target(600))


async def fifty(sides: Sides) -> None:
    await starts(sides, 50, Target(2600), Target())


async def healing(sides: Sides) -> None:
    """kill -9 of the container's process until it runs again."""
    figure = sides.results.figure(
        "kill -9 -> running again",
        "ms",
        Target(150),
        floor_is="a bare client that waits, then starts another",
    )
    names, _ = await sides.floor.up(1)
    workload, _ = await sides.ours.up(1, restart_policy=NO_BACKOFF)
    for number in range(1, 5):
        await sides.quiet()
        fresh, took_s = await sides.floor.replace(names[0])
        names = [fresh]
        figure.add(FLOOR, took_s * 1000)
        await sides.quiet()
        replica = (await sides.ours.client.get(workload.name)).status.replicas[0]
        pid = (await sides.runtime.tasks.get(replica.container_id)).pid

        def again(seen: Workload, wanted: int = number) -> bool:
            return seen.status.ready_replicas == 1 and seen.status.replicas[0].restarts == wanted

        took_s = await sides.ours.until(workload.name, again, partial(os.kill, pid, signal.SIGKILL))
        figure.add(OURS, took_s * 1000)
    await sides.floor.down(names)
    await sides.ours.down(workload.name)
    if sides.swarm is not None:
        figure.add(SWARM, await asyncio.to_thread(sides.swarm.heal) * 1000)


async def executing(sides: Sides) -> None:
    """``true`` in a running container, through coordinator and node."""
    figure = sides.results.figure(
        "exec true", "ms", Target(floor_factor=1.1), floor_is="the same exec by a bare client, same container"
    )
    workload, _ = await sides.ours.up(1)
    container_id = (await sides.ours.client.get(workload.name)).status.replicas[0].container_id
    await sides.quiet()
    for number in range(2 * EXECS):
        # Neither goes first each time.
        if number % 4 in (0, 3):
            figure.add(FLOOR, await sides.floor.execute(sides.runtime, container_id) * 1000)
            continue
        began = time.perf_counter()
        result = await sides.ours.client.exec(workload.name, ["true"])
        figure.add(OURS, (time.perf_counter() - began) * 1000)
        assert result.exit_code == 0
    await sides.ours.down(workload.name)
    if sides.swarm is not None:
        await sides.quiet()
        figure.add(SWARM, *(took_s * 1000 for took_s in await asyncio.to_thread(sides.swarm.execute, EXECS)))


FIGURES: dict[str, Callable[[Sides], Awaitable[None]]] = {
    "one": one,
    "ten": ten,
    "fifty": fifty,
    "heal": healing,
    "exec": executing,
}
