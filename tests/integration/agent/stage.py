"""Stands for the coordinator: agents dial it, it tells them what to run and hears what they see."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

from tests.integration.conftest import BUSYBOX_IMAGE

from cloudless import api
from cloudless.aio.supervise import Supervisor
from cloudless.domain.errors import CloudlessError
from cloudless.domain.node import NodeFacts
from cloudless.domain.replica import Assignment, Observation, ReplicaPhase
from cloudless.domain.rollout import TrafficShare
from cloudless.domain.workload import WorkloadSpec
from cloudless.transport.bidi import converse
from cloudless.transport.link import AcceptedChannel, LinkRefused
from cloudless.transport.server import GuardedServer
from cloudless.wire import link

ROUTE = "/cloudless.api.AgentService/Synchronize"
#: For what takes a second on a machine that does nothing else.
LIMIT_S = 60.0


def assignment(replica_id: str, *command: str, run: bool = True, **changes: Any) -> Assignment:
    """A replica of the busybox image."""
    wanted = {
        "image": BUSYBOX_IMAGE,
        "command": command or ("sleep", "1000"),
        "image_pull_policy": "NEVER",
        "stop_grace_period": "0s",
        **changes,
    }
    return Assignment(
        replica_id=replica_id,
        workload_id="w1",
        namespace="default",
        name="web",
        ordinal=0,
        revision=1,
        spec=WorkloadSpec.model_validate(wanted),
        run=run,
    )


class Stage:
    """Used as ``async with``; ``port`` is where agents dial."""

    def __init__(self) -> None:
        self.wanted: dict[str, Assignment] = {}
        self.shares: dict[int, int] = {}
        self.seen: dict[str, Observation] = {}
        self.removed: set[str] = set()
        self.reasons: list[str] = []
        self.facts: NodeFacts | None = None
        #: Why the node was not ready, each time that it said so.
        self.troubles: list[str] = []
        self.epoch = 1
        #: Whether nobody is let in who dials.
        self.deaf = False
        self.port = 0
        self.channels: dict[str, AcceptedChannel] = {}
        self._outbox: asyncio.Queue[api.SynchronizeRequest] = asyncio.Queue()
        self._changed = asyncio.Event()
        self._numbers = 0
        self._tasks = Supervisor("stage")
        self._server = GuardedServer([], name="stage", links=self)

    async def __aenter__(self) -> Stage:
        await self._tasks.__aenter__()
        await self._server.__aenter__()
        self.port = await self._server.listen("127.0.0.1", self.port)
        return self

    async def __aexit__(self, *failure: Any) -> None:
        await self._server.__aexit__(*failure)
        await self._tasks.__aexit__(*failure)

    async def admit(self, hello: dict[str, Any], peer: str) -> dict[str, Any]:
        if self.deaf:
            raise LinkRefused("deaf")
        return {}

    def connected(self, hello: dict[str, Any], channel: AcceptedChannel) -> None:
        self.channels[hello["kind"]] = channel
        self._changed.set()
        if hello["kind"] == "control":
            self._numbers += 1
            self._tasks.start(f"link {self._numbers}", self._drive(hello, channel))

    def tell(
        self, *assignments: Assignment, removed: tuple[str, ...] = (), shares: dict[int, int] | None = None
    ) -> None:
        """Change what the node shall do; ``shares`` are percentages of w1 by revision."""
        if shares is not None:
            self.shares = shares
        self.wanted |= {one.replica_id: one for one in assignments}
        for replica_id in removed:
            self.wanted.pop(replica_id, None)
        self._outbox.put_nowait(
            api.SynchronizeRequest(
                epoch=self.epoch,
                assignments=[link.assignment_to_wire(one) for one in assignments],
                removed=list(removed),
                traffic=[] if shares is None else [self._split()],
            )
        )

    def _split(self) -> api.TrafficSplit:
        shares = [TrafficShare(revision=revision, percent=part) for revision, part in self.shares.items()]
        return link.shares_to_wire("w1", shares)

    async def until(self, fits: Callable[[], Any]) -> Any:
        """Wait until something is so; returns it."""
        try:
            async with asyncio.timeout(LIMIT_S):
                while not (found := fits()):
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(
                f"not so: seen {self.seen}, removed {self.removed}, events {self.reasons}"
            ) from None
        return found

    async def until_running(self, replica_id: str, *, restarts: int = 0, ready: bool = False) -> Observation:
        def fits() -> Observation | None:
            seen = self.seen.get(replica_id)
            if seen is None or seen.phase is not ReplicaPhase.RUNNING or seen.restarts < restarts:
                return None
            return seen if seen.ready or not ready else None

        found = await self.until(fits)
        assert isinstance(found, Observation)
        return found

    async def until_phase(self, replica_id: str, phase: ReplicaPhase) -> Observation:
        found = await self.until(
            lambda: seen if (seen := self.seen.get(replica_id)) is not None and seen.phase is phase else None
        )
        assert isinstance(found, Observation)
        return found

    async def until_gone(self, *replica_ids: str) -> None:
        await self.until(lambda: self.removed.issuperset(replica_ids))

    async def stub(self) -> api.AgentServiceStub:
        """Calls on the node's bulk connection."""
        channel = await self.until(
            lambda: found if (found := self.channels.get("bulk")) and not found.closed.is_set() else None
        )
        return api.AgentServiceStub(channel)

    async def _drive(self, hello: dict[str, Any], channel: AcceptedChannel) -> None:
        replies = converse(channel, ROUTE, self._messages(), api.SynchronizeRequest, api.SynchronizeResponse)
        try:
            async with aclosing(replies):
                async for reply in replies:
                    self._take(reply, hello["node_id"])
        except CloudlessError:
            return  # the agent is gone; it will dial again

    async def _messages(self) -> AsyncIterator[api.SynchronizeRequest]:
        while not self._outbox.empty():
            self._outbox.get_nowait()
        assignments = [link.assignment_to_wire(one) for one in self.wanted.values()]
        yield api.SynchronizeRequest(
            epoch=self.epoch, whole=True, assignments=assignments, traffic=[self._split()]
        )
        while True:
            yield await self._outbox.get()

    def _take(self, reply: api.SynchronizeResponse, node_id: str) -> None:
        if reply.node is not None:
            self.facts = link.facts_from_wire(reply.node)
            self.troubles += filter(None, [self.facts.not_ready])
        seen = [link.observation_from_wire(one, node_id) for one in reply.replicas]
        if reply.whole:
            self.seen = {}
        self.seen |= {one.replica_id: one for one in seen}
        for replica_id in reply.removed:
            self.seen.pop(replica_id, None)
            self.removed.add(replica_id)
        self.reasons += [event.reason for event in reply.events]
        self._outbox.put_nowait(api.SynchronizeRequest(epoch=self.epoch, acknowledged=reply.sequence))
        self._changed.set()
