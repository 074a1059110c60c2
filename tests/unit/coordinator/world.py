"""A small world for tests: a store, a coordinator that can die, agents that do as told."""

from __future__ import annotations

import asyncio
import datetime
import random
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

from tests.unit.coordinator.fakeagent import FakeAgent, FakeChannel, link

from cloudless import api
from cloudless.aio.clock import LoopClock
from cloudless.aio.ids import IdSource
from cloudless.coordinator.main import Coordinator, running
from cloudless.store.faulty import FaultyStore
from cloudless.store.memory import open_memory
from cloudless.store.port import Store
from cloudless.transport.codec import Encoded, decode, encode

EPOCH = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
#: Virtual seconds after which something that was waited for counts as missing.
PATIENCE_S = 120.0


class World:
    """``store`` outlives coordinators; ``faulty`` is what the present one sees of it."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.clock = LoopClock(EPOCH)
        self.new_id = IdSource(random.Random(7))
        self.faulty = FaultyStore(store)
        self.agents: dict[str, FakeAgent] = {}
        self.channels: dict[str, list[FakeChannel]] = {}
        self._coordinator: Coordinator | None = None
        self._life: asyncio.Task[None] | None = None

    @property
    def coordinator(self) -> Coordinator:
        assert self._coordinator is not None
        return self._coordinator

    @property
    def cluster(self) -> Any:
        return self.coordinator.cache.cluster

    # -- life and death ----------------------------------------------------------------

    async def start(self, *, wait_leading: bool = True) -> Coordinator:
        """A coordinator on the store; waits until it leads."""
        self.faulty = FaultyStore(self.store)
        begun: asyncio.Future[Coordinator] = asyncio.get_running_loop().create_future()
        self._life = asyncio.ensure_future(self._live(begun))
        await asyncio.wait({begun, self._life}, return_when=asyncio.FIRST_COMPLETED)
        if self._life.done():
            self._life.result()
        self._coordinator = begun.result()
        if wait_leading:
            await self._coordinator.seat.wait_leading()
        return self._coordinator

    async def _live(self, begun: asyncio.Future[Coordinator]) -> None:
        async with running(self.faulty, self.clock, new_id=self.new_id) as coordinator:
            begun.set_result(coordinator)
            await coordinator.wait()

    async def kill(self) -> None:
        """End the coordinator as by kill -9: nothing it does on its way out reaches the store."""
        self.faulty.down = True
        await self.stop()

    async def stop(self) -> None:
        """End the coordinator in good order."""
        assert self._life is not None
        self._life.cancel()
        await asyncio.wait({self._life})
        if not self._life.cancelled():
            self._life.result()

    # -- nodes -------------------------------------------------------------------------

    async def join(self, name: str, **facts: Any) -> FakeAgent:
        """A new node, linked and ready."""
        agent = FakeAgent(name, **facts)
        agent.now = self.clock.now
        self.agents[name] = agent
        await self.relink(name)
        return agent

    async def relink(self, name: str) -> None:
        """Link a node (again), and wait until it is known to be ready."""
        agent = self.agents[name]
        self.channels[name] = await link(self.coordinator, agent)
        await self.until(lambda: self.phase(name) in ("READY", "NOT_READY"))

    def cut(self, name: str) -> None:
        """Cut the connections of a node."""
        for channel in self.channels[name]:
            channel.close()

    def phase(self, name: str) -> str:
        """The phase of a node in its present session, as stored."""
        record = self.cluster.nodes.get(self.agents[name].node_id)
        known = record is not None and record.session == self.agents[name].full_session
        return str(record.phase.value) if known else ""

    # -- the API -----------------------------------------------------------------------

    async def call(self, method: str, request: Any) -> Any:
        """One unary call; the answer passes through the wire format."""
        answer = await getattr(self.coordinator.service, method)(request)
        kind = answer.message_type if isinstance(answer, Encoded) else type(answer)
        return decode(answer.data if isinstance(answer, Encoded) else encode(answer), kind)

    async def create(self, name: str = "web", replicas: int | None = 1, **fields: Any) -> api.Workload:
        request_fields = {
            key: fields.pop(key)
            for key in ("namespace", "labels", "annotations", "request_id")
            if key in fields
        }
        spec = api.WorkloadSpec(image=fields.pop("image", "nginx:alpine"), replicas=replicas, **fields)
        request = api.CreateWorkloadRequest(name=name, spec=spec, **request_fields)
        answer = await self.call("create_workload", request)
        return answer.workload  # type: ignore[no-any-return]

    async def create_from(self, spec: api.WorkloadSpec, name: str = "web") -> api.Workload:
        answer = await self.call("create_workload", api.CreateWorkloadRequest(name=name, spec=spec))
        return answer.workload  # type: ignore[no-any-return]

    async def get(self, name: str = "web", namespace: str = "") -> api.Workload:
        answer = await self.call("get_workload", api.GetWorkloadRequest(namespace=namespace, name=name))
        return answer.workload  # type: ignore[no-any-return]

    async def delete(self, name: str = "web", **fields: Any) -> api.Workload:
        answer = await self.call("delete_workload", api.DeleteWorkloadRequest(name=name, **fields))
        return answer.workload  # type: ignore[no-any-return]

    async def scale(self, name: str, replicas: int, **fields: Any) -> api.Workload:
        request = api.ScaleWorkloadRequest(name=name, replicas=replicas, **fields)
        return (await self.call("scale_workload", request)).workload  # type: ignore[no-any-return]

    @asynccontextmanager
    async def stream(self, method: str, request: Any) -> AsyncIterator[Stream]:
        """A streaming call; ``await next()`` gives its messages."""
        async with aclosing(getattr(self.coordinator.service, method)(request)) as answers:
            yield Stream(answers)

    # -- waiting -----------------------------------------------------------------------

    async def until(self, condition: Callable[[], bool]) -> None:
        """Let virtual time pass until ``condition`` holds."""
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                await asyncio.sleep(0.005)

    async def until_ready(self, name: str = "web", replicas: int = 1) -> api.Workload:
        """Wait until a workload has so many ready replicas, and all of them are planned."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                workload = await self.get(name)
                status = workload.status
                assert status is not None
                current = status.observed_generation == workload.generation
                if current and status.ready_replicas == replicas == status.current_replicas:
                    return workload
                await asyncio.sleep(0.005)

    async def until_gone(self, name: str = "web") -> None:
        """Wait until nothing is left of a workload."""
        await self.until(lambda: self.cluster.workload_named("default", name) is None)

    async def pass_time(self, seconds: float) -> None:
        """Let virtual time pass."""
        await asyncio.sleep(seconds)

    async def settle(self) -> None:
        """Let everything happen that happens without time or a test doing more."""
        for _ in range(3):
            await asyncio.sleep(0.01)
            await self.until(lambda: self.coordinator.control.depth == 0)


class Stream:
    """The messages of a streaming call."""

    def __init__(self, answers: Any) -> None:
        self._answers = answers

    async def next(self) -> Any:
        """The next message, through the wire format."""
        async with asyncio.timeout(PATIENCE_S):
            answer = await anext(self._answers)
        return decode(encode(answer), type(answer))


@asynccontextmanager
async def open_world() -> AsyncIterator[World]:
    """A world with an empty store and nobody in it."""
    async with open_memory(LoopClock(EPOCH)) as store:
        world = World(store)
        try:
            yield world
        finally:
            if world._life is not None and not world._life.done():
                await world.stop()
