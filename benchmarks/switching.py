"""From a decision to the rules in force: blue-green switches of a whole program's parts.

A coordinator with its store on disk, and an agent that is linked to it by TCP and changes
the kernel's real rules, in one process. The containers are imaginary, so that a switch can be
had often. Called by ``traffic.py``; needs root and nftables.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cloudless.agent import identity
from cloudless.agent.config import AgentConfig
from cloudless.agent.main import assembled
from cloudless.agent.network.memory import MemoryNetwork
from cloudless.agent.probing.outcome import ProbeOutcome
from cloudless.agent.runtime.memory import MemoryRuntime
from cloudless.agent.runtime.memorymachine import MemoryMachine
from cloudless.agent.traffic.kernel import KernelTraffic
from cloudless.agent.traffic.port import Endpoint, Services
from cloudless.aio.clock import SystemClock
from cloudless.aio.ids import random_id
from cloudless.coordinator.config import CoordinatorConfig
from cloudless.coordinator.main import Serving, coordinator
from cloudless.coordinator.state.changes import Changes
from cloudless.coordinator.state.typed import Batch, TypedStore

IMAGE = "docker.io/library/app:1"
PLACE = Endpoint("127.0.0.1", 18090)
#: How long one switch may take before this gives up, in seconds.
PATIENCE_S = 60.0


@dataclass
class Watch:
    """Notes when each transaction began, and when each set of rules was in force; in seconds."""

    begun: dict[int, float] = field(default_factory=dict)
    decided: list[int] = field(default_factory=list)
    seen: list[float] = field(default_factory=list)
    in_force: list[tuple[float, frozenset[str]]] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @contextlib.contextmanager
    def transactions(self) -> Any:
        """Look over the coordinator's shoulder while it writes."""
        commit = TypedStore.commit

        async def timed(store: TypedStore, batch: Batch) -> Any:
            began = time.perf_counter()
            result = await commit(store, batch)
            self.begun[result.revision] = began
            return result

        TypedStore.commit = timed  # type: ignore[method-assign]
        try:
            yield
        finally:
            TypedStore.commit = commit  # type: ignore[method-assign]

    def notice(self, changes: Changes) -> None:
        """The coordinator knows of a decision."""
        if changes.traffic:
            self.decided.append(changes.revision)
            self.seen.append(time.perf_counter())


class WatchedTraffic(KernelTraffic):
    """Notes who gets connections, and since when."""

    def __init__(self, key: str, watch: Watch) -> None:
        super().__init__(key)
        self._watch = watch

    async def switch(self, services: Services) -> None:
        await super().switch(services)
        backends = frozenset(one.address for one in services.get(PLACE, ()))
        self._watch.in_force.append((time.perf_counter(), backends))
        self._watch.changed.set()


@contextlib.asynccontextmanager
async def cluster(folder: Path, watch: Watch) -> AsyncIterator[Serving]:
    """A coordinator and one node, ready."""
    clock = SystemClock()
    settings = CoordinatorConfig(
        data_dir=folder / "coordinator", api_address="127.0.0.1:0", http_address="127.0.0.1:0"
    )
    traffic = WatchedTraffic(uuid.uuid4().hex, watch)
    machine = MemoryMachine(clock)
    machine.add_image(IMAGE)

    async def answers(*probe: object) -> ProbeOutcome:
        return ProbeOutcome(True, "ok")

    try:
        async with coordinator(settings, clock, new_id=random_id) as serving:
            await serving.coordinator.seat.wait_leading()
            config = AgentConfig(
                data_dir=folder / "agent",
                node_name="node-1",
                coordinator_address=f"127.0.0.1:{serving.api_port}",
                agent_address="127.0.0.1:0",
            )
            config.folder.mkdir(parents=True)
            me = identity.load_identity(config.folder, clock, random_id)
            async with assembled(
                config,
                clock,
                new_id=random_id,
                me=me,
                runtime=MemoryRuntime(machine, me.node_id),
                network=MemoryNetwork(),
                traffic=traffic,
                run_probe=answers,
            ):
                yield serving
    finally:
        await traffic.switch({})
        await traffic.close()


#: The user: a process of its own. Says a line after each update that is rolled out and cleaned up.
USER = """
import asyncio, json, sys
import cloudless

async def main(address, count, fields, patience_s):
    async with cloudless.connect(address) as client:
        while not any(node.phase == "READY" for node in await client.nodes()):
            await asyncio.sleep(0.01)
        await client.create(cloudless.Workload("web", **fields))
        for number in range(count + 1):
            if number:
                await client.update("web", env={"VERSION": str(number)})
            async with asyncio.timeout(patience_s):
                while True:
                    status = (await client.get("web")).message.status
                    counts = {status.current_replicas, status.updated_replicas, status.ready_replicas}
                    if counts == {fields["replicas"]} and status.revision == number + 1:
                        break
                    await asyncio.sleep(0.1)
            print("done", flush=True)

asyncio.run(main(sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3]), float(sys.argv[4])))
"""


def workload(replicas: int) -> dict[str, Any]:
    """What is switched; the old set is kept a moment, so that the switch comes alone."""
    return {
        "image": IMAGE,
        "command": ["serve"],
        "replicas": replicas,
        "ports": [{"container_port": 8080, "publish": PLACE.port}],
        "readiness_probe": {"tcp": {"port": 8080}, "period": "100ms"},
        "rollout": {
            "strategy": "BLUE_GREEN",
            "auto_promote": True,
            "scale_down_delay": "200ms",
            "drain_time": "0s",
        },
        "stop_grace_period": "0s",
    }


async def measure(folder: Path, replicas: int, count: int) -> tuple[list[float], list[float]]:
    """Milliseconds of each switch: from the decision's transaction, and from when it was stored."""
    watch = Watch()
    whole: list[float] = []
    rest: list[float] = []
    async with cluster(folder, watch) as serving:
        with watch.transactions(), serving.coordinator.cache.subscribed(watch.notice):
            arguments = (
                f"127.0.0.1:{serving.api_port}",
                str(count),
                json.dumps(workload(replicas)),
                str(PATIENCE_S),
            )
            user = await asyncio.create_subprocess_exec(
                sys.executable, "-c", USER, *arguments, stdout=asyncio.subprocess.PIPE
            )
            assert user.stdout is not None
            await user.stdout.readline()
            for _ in range(count):
                decided, known = len(watch.decided), len(watch.in_force)
                blue = watch.in_force[-1][1]
                if not await user.stdout.readline():
                    raise SystemExit("the user's process failed")
                # Of all that changed meanwhile: the first rules with all of the new set and no old one.
                at = next(at for at, who in watch.in_force[known:] if len(who) == replicas and not who & blue)
                index = max(one for one in range(decided, len(watch.decided)) if watch.seen[one] <= at)
                whole.append((at - watch.begun[watch.decided[index]]) * 1000)
                rest.append((at - watch.seen[index]) * 1000)
            await user.wait()
    return whole, rest
