"""A whole agent on a machine in memory: the tests' stage.

The machine, the network and the data directory outlive agents, as the real ones do.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.unit.agent.virtual import virtual_clock

from cloudless.agent import identity
from cloudless.agent.config import AgentConfig
from cloudless.agent.main import Agent, assembled
from cloudless.agent.network.memory import MemoryHost, MemoryNetwork
from cloudless.agent.node import Desired
from cloudless.agent.probing.outcome import ProbeOutcome, ProbeTarget, RunCommand
from cloudless.agent.runtime.memory import MemoryRuntime
from cloudless.agent.runtime.memorymachine import MemoryContainer, MemoryMachine
from cloudless.agent.traffic.memory import MemoryBoard, MemoryTraffic
from cloudless.aio.ids import IdSource
from cloudless.domain.probes import Probe
from cloudless.domain.replica import Assignment, Observation, ReplicaPhase
from cloudless.domain.workload import WorkloadSpec

IMAGE = "docker.io/library/app:1"


def spec(**changes: Any) -> WorkloadSpec:
    return WorkloadSpec.model_validate({"image": IMAGE, "command": ["serve"], **changes})


def assignment(replica_id: str = "r1", *, run: bool = True, ordinal: int = 0, **changes: Any) -> Assignment:
    return Assignment(
        replica_id=replica_id,
        workload_id="w1",
        namespace="default",
        name="web",
        ordinal=ordinal,
        revision=1,
        spec=spec(**changes),
        run=run,
    )


class World:
    """``start`` an agent, ``kill`` it, ask what it says and what is there."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.clock = virtual_clock()
        self.machine = MemoryMachine(self.clock)
        self.machine.add_image(IMAGE, stop_signal="SIGTERM")
        self.host = MemoryHost()
        self.board = MemoryBoard()
        self.config = AgentConfig(data_dir=folder, node_name="node-1", **settings)
        self.new_id = IdSource(random.Random(1))
        self.probe_answers: Callable[[Probe], ProbeOutcome] = lambda probe: ProbeOutcome(True, "ok")
        self.probes = 0
        self._agent: Agent | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def agent(self) -> Agent:
        assert self._agent is not None
        return self._agent

    async def start(
        self, *told: Assignment, whole: bool = True, traffic: dict[str, Any] | None = None
    ) -> Agent:
        """A new agent on the same machine and data directory; told everything unless ``whole`` is False."""
        ready: asyncio.Future[Agent] = asyncio.get_running_loop().create_future()
        self._task = asyncio.get_running_loop().create_task(self._live(ready))
        await asyncio.wait({ready, self._task}, return_when=asyncio.FIRST_COMPLETED)
        if not ready.done():
            await self._task
        self._agent = ready.result()
        if whole:
            await self.agent.node.apply(Desired(1, True, told, traffic=traffic or {}))
        return self._agent

    async def kill(self) -> None:
        """The agent dies; the machine goes on."""
        assert self._task is not None
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        self._agent = None

    async def tell(
        self, *told: Assignment, removed: tuple[str, ...] = (), traffic: dict[str, Any] | None = None
    ) -> None:
        await self.agent.node.apply(Desired(1, False, told, removed, traffic or {}))

    def seen(self, replica_id: str = "r1") -> Observation | None:
        return self.agent.reports.observations.get(replica_id)

    async def until(
        self, fits: Callable[[Observation | None], bool], replica_id: str = "r1"
    ) -> Observation | None:
        """Wait for what the node says of a replica; None once nothing is left of it."""
        while True:
            change = self.agent.node.change_of(replica_id)
            seen = self.seen(replica_id)
            if fits(seen):
                change.cancel()
                return seen
            assert self._task is not None
            await asyncio.wait({change, self._task}, return_when=asyncio.FIRST_COMPLETED)
            if self._task.done():
                await self._task

    async def until_phase(self, phase: ReplicaPhase, replica_id: str = "r1") -> Observation:
        seen = await self.until(lambda one: one is not None and one.phase is phase, replica_id)
        assert seen is not None
        return seen

    async def until_running(self, replica_id: str = "r1", *, restarts: int = 0) -> Observation:
        seen = await self.until(
            lambda one: one is not None and one.phase is ReplicaPhase.RUNNING and one.restarts >= restarts,
            replica_id,
        )
        assert seen is not None
        return seen

    async def until_gone(self, replica_id: str = "r1") -> None:
        await self.until(lambda one: one is None and replica_id not in self.agent.node.replicas, replica_id)

    async def until_swept(self, count: int) -> None:
        """Wait until the machine has only so many containers left."""
        while len(self.machine.containers) > count:
            await self.clock.sleep(0.01)

    def container(self, replica_id: str = "r1") -> MemoryContainer:
        """The one container of a replica that runs."""
        (found,) = [one for one in self.machine.running() if one.fact.replica_id == replica_id]
        return found

    def reasons(self) -> list[str]:
        """Reasons of the events so far."""
        return [event.reason for event in self.agent.reports.events]

    def assert_clean(self) -> None:
        """Nothing is left of any replica."""
        assert self.machine.containers == {}
        assert self.host.attachments == {}
        assert self.board.services == {}
        folder = self.config.folder / "replicas"
        assert not folder.exists() or list(folder.iterdir()) == []

    async def _live(self, ready: asyncio.Future[Agent]) -> None:
        me = identity.load_identity(self.config.folder, self.clock, self.new_id)
        async with assembled(
            self.config,
            self.clock,
            new_id=self.new_id,
            me=me,
            runtime=MemoryRuntime(self.machine, me.node_id),
            network=MemoryNetwork(self.host),
            traffic=MemoryTraffic(self.board),
            run_probe=self._probe,
            listen=False,
        ) as agent:
            ready.set_result(agent)
            await agent.wait()

    async def _probe(self, probe: Probe, target: ProbeTarget, run: RunCommand) -> ProbeOutcome:
        await asyncio.sleep(0)
        self.probes += 1
        if probe.exec is not None:
            return ProbeOutcome(await run(probe.exec.command) == 0, "exec")
        return self.probe_answers(probe)
