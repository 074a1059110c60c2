"""Figures of rollouts: rolling updates with readiness, a switch and back, requests that fail meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable

from cloudless.sdk.workload import Workload
from sidebyside.container_figures import Sides
from sidebyside.results import FLOOR, OURS, SWARM, Target

#: Answers with its revision; when told to end it finishes what it has begun.
WEB = """
mkdir -p /tmp/www
echo "$CLOUDLESS_REVISION" >/tmp/www/index.html
stop() { kill $server; while pidof httpd >/dev/null; do sleep 0.02; done; exit 0; }
trap stop TERM
httpd -f -p 8080 -h /tmp/www &
server=$!
wait $server
"""
READINESS = {"http": {"port": 8080}, "period": "200ms"}
NO_PROBES = "as many containers, stopped and started in the same batches by a bare client, without readiness"
LIMIT_S = 60.0
WRK_S = 6


async def updating(sides: Sides) -> None:
    """Rolling updates until the rollout is complete: of ten by twos, of fifty by twelves."""
    await _rolling(sides, 10, 2, Target(1500))
    await _rolling(sides, 50, 12, Target(6000))


async def _rolling(sides: Sides, count: int, batch: int, target: Target) -> None:
    words = {2: "two", 12: "twelve"}[batch]
    name = f"rolling update of {count}, {words} at a time, HTTP readiness"
    figure = sides.results.figure(name, "ms", target, floor_is=NO_PROBES)
    await sides.quiet()
    figure.add(FLOOR, await _bare(sides, count, batch) * 1000)
    rollout = {"max_surge": "0", "max_unavailable": str(batch)}
    workload = await _up(sides, count, rollout)
    await sides.quiet()
    began = time.perf_counter()
    asked = await sides.ours.client.update(workload.name, env={"V": "2"})
    await sides.ours.client.follow(asked, "available", timeout_s=LIMIT_S)
    figure.add(OURS, (time.perf_counter() - began) * 1000)
    await sides.ours.down(workload.name)
    if sides.swarm is not None:
        await sides.quiet()
        figure.add(SWARM, await asyncio.to_thread(sides.swarm.update, count, batch) * 1000)


async def _bare(sides: Sides, count: int, batch: int) -> float:
    """Seconds to replace ``count`` bare containers, ``batch`` at a time."""
    old, _ = await sides.floor.up(count)
    new: list[str] = []
    began = time.perf_counter()
    for first in range(0, count, batch):
        leaving = old[first : first + batch]
        await sides.floor.down(leaving)
        new += (await sides.floor.up(len(leaving)))[0]
    took_s = time.perf_counter() - began
    await sides.floor.down(new)
    return took_s


async def switching(sides: Sides) -> None:
    """Promote and abort until new connections go to the other set of ten."""
    there = sides.results.figure("promote -> new connections go to green (10)", "ms")
    back = sides.results.figure("abort -> new connections go to blue (10)", "ms")
    port = _free_port()
    workload = await _up(sides, 10, {"strategy": "BLUE_GREEN", "scale_down_delay": "5m"}, port)
    client = sides.ours.client
    await client.update(workload.name, env={"V": "2"})
    await _until(sides, workload.name, "WAITING_PROMOTION")
    await sides.quiet()
    there.add(OURS, await _until_answers(port, "2", lambda: client.promote(workload.name)) * 1000)
    await _until(sides, workload.name, "COMPLETED")
    await sides.quiet()
    back.add(OURS, await _until_answers(port, "1", lambda: client.abort(workload.name)) * 1000)
    await sides.ours.down(workload.name)


async def under_load(sides: Sides) -> None:
    """Requests with a connection each, at full rate, while things change: how many fail."""
    if shutil.which("wrk") is None:
        sides.results.note("failed requests were not counted: there is no wrk here")
        return
    client = sides.ours.client
    port = _free_port()
    workload = await _up(sides, 4, {"max_surge": 1, "max_unavailable": 0}, port)
    async with _wrk(sides, port, "rolling update") as going:
        for turn in range(100):
            if not going():
                break
            await client.follow(await client.update(workload.name, env={"V": str(turn)}), timeout_s=LIMIT_S)
    await sides.ours.down(workload.name)
    strategy = {"strategy": "BLUE_GREEN", "auto_promote": True, "scale_down_delay": "1m"}
    port = _free_port()
    workload = await _up(sides, 4, strategy, port)
    async with _wrk(sides, port, "blue-green switch and back") as going:
        await client.follow(await client.update(workload.name, env={"V": "2"}), timeout_s=LIMIT_S)
        while going():
            await client.abort(workload.name)
            await _until(sides, workload.name, "ABORTED")
            await client.retry(workload.name)
            await _until(sides, workload.name, "COMPLETED")
    await sides.ours.down(workload.name)


@contextlib.asynccontextmanager
async def _wrk(sides: Sides, port: int, what: str) -> AsyncIterator[Callable[[], bool]]:
    """wrk runs during the block, which ends soon after it does."""
    figure = sides.results.figure(f"requests that fail during {what}", "requests", Target(0))
    process = await asyncio.create_subprocess_exec(
        *("wrk", "-t1", "-c8", f"-d{WRK_S}s", "-H", "Connection: close", f"http://127.0.0.1:{port}/"),
        stdout=asyncio.subprocess.PIPE,
    )
    reading = asyncio.ensure_future(process.communicate())
    yield lambda: not reading.done()
    text = (await reading)[0].decode()
    total = int((re.search(r"(\d+) requests in", text) or ["", "0"])[1])
    errors = re.search(r"Socket errors: .*|Non-2xx or 3xx responses: \d+", text)
    failed = sum(map(int, re.findall(r"\d+", errors[0]))) if errors else 0
    figure.add(OURS, failed)
    told = f" ({errors[0]})" if errors else ""
    sides.results.note(f"wrk sent {total:,} requests during {what}, {failed} of them failed{told}")


async def _up(sides: Sides, count: int, rollout: dict[str, object], port: int = 0) -> Workload:
    published = {"ports": [{"container_port": 8080, "publish": port}]} if port else {}
    command = ("sh", "-c", WEB)
    workload, _ = await sides.ours.up(
        count, rollout=rollout, readiness_probe=READINESS, command=command, **published
    )
    return workload


async def _until(sides: Sides, name: str, phase: str) -> None:
    async with asyncio.timeout(LIMIT_S), sides.ours.client.watch(name=name) as changes:
        async for change in changes:
            rollout = change.workload.status.rollout
            if rollout is not None and not rollout.pending and rollout.phase.name == phase:
                return


async def _until_answers(port: int, revision: str, act: Callable[[], Awaitable[object]]) -> float:
    """Seconds from the act until an answer comes from that revision."""
    began = time.perf_counter()
    acting = asyncio.ensure_future(act())
    async with asyncio.timeout(LIMIT_S):
        while await _ask(port) != revision:
            pass
    took_s = time.perf_counter() - began
    await acting
    return took_s


async def _ask(port: int) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.0\r\n\r\n")
    answer = (await reader.read()).decode()
    writer.close()
    return answer.rpartition("\r\n\r\n")[2].strip()


def _free_port() -> int:
    """A port that nobody has now."""
    with socket.create_server(("127.0.0.1", 0)) as held:
        port: int = held.getsockname()[1]
        return port


FIGURES: dict[str, Callable[[Sides], Awaitable[None]]] = {
    "update": updating,
    "switch": switching,
    "load": under_load,
}
