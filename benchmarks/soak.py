"""A long run of the whole program that must leave nothing behind: ``python benchmarks/soak.py``.

Creates, uses, changes and deletes workloads again and again, runs commands, and lets
clients die or stop reading in the middle of streams; what the program holds is counted
before and after, and every growth is a line on the output and exit code 1. Needs root.

    python benchmarks/soak.py [--cycles 150] [--commands 300] [--clients 100]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable

sys.path[:0] = [str(pathlib.Path(__file__).parents[1]), str(pathlib.Path(__file__).parents[1] / "src")]

from tests.integration.containerd import imagebuild
from tests.integration.program.served import Served, command, environment
from tests.integration.soak import census

import cloudless

IMAGE = "docker.io/library/busybox:1"
CHATTY = ("sh", "-c", "trap 'exit 0' TERM; while :; do echo line; sleep 0.05; done")
AT_ONCE = 4
#: Growth of memory that is no leak: the allocators', and the garbage of containerd.
MEMORY_GROWTH = 1.10
MEMORY_SLACK_BYTES = 6 << 20
#: The first soak is longer: it fills what is bounded but not empty at the start.
WARM_UP = 4
#: Kept on purpose, and bounded: logs of the dead.
ALLOWED = {"files in agent/logs": 100_000, "folders in agent/logs": 100_000}
#: How long a client that was stopped lives on, and how long what is under way may take to end.
STOPPED_S = 1.0
REST_S = 60


async def cycle(client: cloudless.Client, name: str) -> None:
    """The whole life of one workload."""
    fields = {"image": IMAGE, "replicas": 1, "stop_grace_period": "2s"}
    made = await client.create(cloudless.Workload(name, command=CHATTY, **fields))
    await client.follow(made)
    result = await client.exec(name, ("echo", "hello"))
    assert result.exit_code == 0, result
    async with client.logs(name, follow=True) as lines:
        async for _ in lines:
            break  # a follower that leaves in the middle
    changed = await client.update(name, env={"CHANGED": "yes"}, rollout={"strategy": "RECREATE"})
    await client.follow(changed)
    await client.follow(await client.delete(name, grace_s=0), "deleted")


async def many(number: int, work: Callable[[int], Awaitable[None]], at_once: int = AT_ONCE) -> None:
    """``number`` pieces of work, a few at the same time."""
    numbers = iter(range(number))

    async def worker() -> None:
        for one in numbers:
            await work(one)

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(worker())


async def rude_clients(served: Served, name: str, number: int) -> None:
    """Processes that follow and watch; half of them stop reading, and all are killed."""
    words = (("logs", name, "--follow"), ("get", "workloads", "--watch"), ("events", "--watch"))

    async def client(one: int) -> None:
        process = await asyncio.create_subprocess_exec(
            *command(*words[one % len(words)]),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment(CLOUDLESS_ADDRESS=served.address),
        )
        assert process.stdout is not None
        try:
            await process.stdout.readline()
            if one % 2:
                process.send_signal(signal.SIGSTOP)
                await asyncio.sleep(STOPPED_S)
        finally:
            process.kill()
            await process.wait()

    await many(number, client, at_once=10)


async def soak(served: Served, cycles: int, commands: int, clients: int) -> None:
    """Everything once; the program rests before and after."""
    async with served.client() as client:
        await many(cycles, lambda number: cycle(client, f"soak-{number}"))
        fields = {"image": IMAGE, "replicas": 1, "stop_grace_period": "1s"}
        await client.follow(await client.create(cloudless.Workload("target", command=CHATTY, **fields)))

        async def run(number: int) -> None:
            result = await client.exec("target", ("sh", "-c", f"exit {number % 100}"))
            assert result.exit_code == number % 100, result

        await many(commands, run)
        await rude_clients(served, "target", clients)
        await client.follow(await client.delete("target", grace_s=0), "deleted")


async def rested(served: Served, before: dict[str, int]) -> list[str]:
    """Look until nothing is left to see, or time is over; what is still more than before."""
    for _ in range(REST_S):
        if not (left := census.grown(before, await census.count(served), ALLOWED)):
            break
        await asyncio.sleep(1.0)
    return left


async def run(served: Served, cycles: int, commands: int, clients: int) -> list[str]:
    """Warm up, count, soak, count.

    The first soak fills the history of the store, answers to idempotency keys, events, buffers.
    """
    await soak(served, WARM_UP * cycles, commands // 4, clients // 2)
    await asyncio.sleep(3.0)
    before, held = await census.count(served), census.memory(served)
    print("before:", held, before, flush=True)
    began_s = time.monotonic()
    await soak(served, cycles, commands, clients)
    print(f"soaked for {time.monotonic() - began_s:.0f} s", flush=True)
    left = await rested(served, before)
    after = census.memory(served)
    print("after:", after, flush=True)
    for name, size in after.items():
        if size > held[name] * MEMORY_GROWTH + MEMORY_SLACK_BYTES:
            left.append(f"memory of {name}: {held[name]} -> {size}")
    print("health:", served.http("/health")[1])
    return left


def main() -> int:
    """Exit code 0 when nothing has leaked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--cycles", type=int, default=150)
    parser.add_argument("--commands", type=int, default=300)
    parser.add_argument("--clients", type=int, default=100)
    given = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("needs root")
    folder = pathlib.Path(tempfile.mkdtemp(prefix="soak-"))
    served = Served(folder / "data")
    left: list[str] = []
    try:
        archive = imagebuild.docker_archive(folder / "image.tar", IMAGE, [imagebuild.busybox_layer()])
        served.start()
        served.cli("image", "import", str(archive))
        left = asyncio.run(run(served, given.cycles, given.commands, given.clients))
    finally:
        served.end()
        shutil.rmtree(folder)
    print("\n".join(left) or "nothing has leaked")
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
