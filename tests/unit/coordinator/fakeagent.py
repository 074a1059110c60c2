"""A scripted node for tests: serves AgentService over memory, no socket and no container.

``FakeChannel`` stands for an accepted link: generated stubs and ``converse`` take it. The
agent takes assignments, says what a node would say, and does what the test tells it.
"""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

from tests.unit.coordinator.fakelogs import FakeLogs

from cloudless import api
from cloudless.domain.errors import Unavailable
from cloudless.domain.node import NodeFacts
from cloudless.domain.replica import ExitStatus, Observation, ReplicaPhase
from cloudless.domain.resources import ResourceList
from cloudless.transport.codec import CompiledCodec
from cloudless.transport.context import CALLER_KEY
from cloudless.wire.link import facts_to_wire, observation_to_wire

DIGEST = "sha256:" + "ab" * 32
_CODEC = CompiledCodec()


class FakeAgent:
    """One node. ``start_replicas`` False leaves everything STARTING until the test says more."""

    def __init__(self, name: str = "n1", *, node_id: str = "", session: str = "s1", **facts: Any) -> None:
        self.node_id = node_id or f"id-{name}"
        self.name = name
        self.session = session
        facts.setdefault(
            "capacity", ResourceList(cpu_millicores=4000, memory_bytes=2**33, storage_bytes=2**36)
        )
        self.facts = NodeFacts(id=self.node_id, name=name, **facts)
        self.assignments: dict[str, api.Assignment] = {}
        self.observed: dict[str, Observation] = {}
        self.received: list[api.SynchronizeRequest] = []
        self.start_replicas = True
        self.stop_replicas = True
        self.ready = True
        self.execs: list[api.ExecCommandRequest] = []
        #: What came over Exec and Attach, and how many such calls have ended.
        self.programs: list[api.ExecRequest] = []
        #: For whom calls were made, as the coordinator says.
        self.callers: list[str] = []
        #: Calls that asked for a small window.
        self.narrow_calls = 0
        self.programs_ended = 0
        #: What runs by exec, as it says; and what it was asked to end.
        self.listed_execs: list[api.Exec] = []
        self.exec_failure: Exception | None = None
        self.killed: list[api.KillExecRequest] = []
        self.forwards: list[api.ForwardTarget] = []
        #: Raised by ``forward``, one for each connection, before anything else.
        self.forward_failures: list[Exception] = []
        self.logs = FakeLogs(name)
        self.changed = asyncio.Event()
        self.now: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC)
        self._outbox: asyncio.Queue[api.SynchronizeResponse] = asyncio.Queue()
        self._version = 0
        self._sequence = 0

    @property
    def full_session(self) -> str:
        """The session as the coordinator stores it."""
        return f"{self.node_id}.{self.session}"

    def hello(self, kind: str) -> dict[str, Any]:
        return {"node_id": self.node_id, "node_name": self.name, "kind": kind, "session": self.session}

    # -- what the test makes it say ----------------------------------------------------

    def say(self, **fields: Any) -> int:
        self._sequence += 1
        self._outbox.put_nowait(api.SynchronizeResponse(sequence=self._sequence, **fields))
        return self._sequence

    def observe(self, replica_id: str, phase: ReplicaPhase, **fields: Any) -> Observation:
        assignment = self.assignments[replica_id]
        self._version += 1
        before = self.observed.get(replica_id)
        seen = Observation(
            replica_id=replica_id,
            workload_id=assignment.workload_id,
            node_id=self.node_id,
            phase=phase,
            version=fields.pop("version", self._version),
            restarts=fields.pop("restarts", before.restarts if before else 0),
            last_exit=fields.pop("last_exit", before.last_exit if before else None),
            **fields,
        )
        self.observed[replica_id] = seen
        self.say(replicas=[observation_to_wire(seen)])
        return seen

    def run(self, replica_id: str, *, ready: bool = True, message: str = "") -> None:
        now = self.now()
        self.observe(
            replica_id,
            ReplicaPhase.RUNNING,
            ready=ready,
            message=message,
            container_id=f"cl-{replica_id}-0",
            image_digest=DIGEST,
            started_at=now,
            ready_since=now if ready else None,
        )

    def crash(self, replica_id: str, code: int = 1) -> None:
        at = self.now()
        before = self.observed[replica_id]
        self.observe(
            replica_id,
            ReplicaPhase.BACKING_OFF,
            restarts=before.restarts + 1,
            last_exit=ExitStatus(code=code, finished_at=at, reason=f"exit code {code}"),
        )

    def remove(self, replica_id: str) -> None:
        self.observed.pop(replica_id, None)
        self.say(removed=[replica_id])

    # -- what it is told ---------------------------------------------------------------

    async def synchronize(self, requests: AsyncIterator[Any]) -> AsyncIterator[api.SynchronizeResponse]:
        self._sequence, self._outbox = 0, asyncio.Queue()
        self.say(node=facts_to_wire(self.facts))
        whole = [observation_to_wire(seen) for seen in self.observed.values()]
        self.say(whole=True, replicas=whole)
        reading = asyncio.ensure_future(self._read(requests))
        try:
            while True:
                getting = asyncio.ensure_future(self._outbox.get())
                try:
                    await asyncio.wait({reading, getting}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    if not getting.done():
                        getting.cancel()
                if not getting.done() or getting.cancelled():
                    reading.result()
                    return
                yield getting.result()
        finally:
            reading.cancel()

    async def _read(self, requests: AsyncIterator[api.SynchronizeRequest]) -> None:
        async for request in requests:
            self.received.append(request)
            self.take(request)
            self.changed.set()
            self.changed = asyncio.Event()

    def take(self, request: api.SynchronizeRequest) -> None:
        if request.whole:
            told = {assignment.replica_id for assignment in request.assignments}
            for replica_id in set(self.observed) - told:
                self.remove(replica_id)
            self.assignments = {}
        for replica_id in request.removed:
            self.assignments.pop(replica_id, None)
            if replica_id in self.observed:
                self.remove(replica_id)
        for assignment in request.assignments:
            new = assignment.replica_id not in self.assignments
            self.assignments[assignment.replica_id] = assignment
            self._act(assignment, new=new)

    def _act(self, assignment: api.Assignment, *, new: bool) -> None:
        replica_id = assignment.replica_id
        if not assignment.run:
            if replica_id in self.observed and self.stop_replicas:
                self.observe(replica_id, ReplicaPhase.STOPPING)
            if self.stop_replicas:
                self.remove(replica_id)
        elif replica_id not in self.observed:
            self.observe(replica_id, ReplicaPhase.STARTING)
            if self.start_replicas:
                self.run(replica_id, ready=self.ready)

    # -- bulk --------------------------------------------------------------------------

    async def exec_command(self, request: api.ExecCommandRequest) -> api.ExecCommandResponse:
        self.execs.append(request)
        return api.ExecCommandResponse(exit_code=3, stdout=b"out", container_id=request.container_id)

    async def program(self, requests: AsyncIterator[Any]) -> AsyncIterator[api.ExecResponse]:
        """Says what it gets, and ends with the input."""
        try:
            first = await anext(requests)
            self.programs.append(first)
            container_id = (first.start or first.attach).container_id
            yield api.ExecResponse(started=api.ExecStarted(exec_id="x-1", container_id=container_id))
            async for request in requests:
                self.programs.append(request)
                if request.stdin is not None:
                    yield api.ExecResponse(stdout=request.stdin)
                    yield api.ExecResponse(stderr=request.stdin)
                if request.stdin_close is not None:
                    yield api.ExecResponse(exit=api.ExecExit(exit_code=7))
                    return
        finally:
            self.programs_ended += 1

    async def list_execs(self, request: api.ListExecsRequest) -> api.ListExecsResponse:
        if self.exec_failure is not None:
            raise self.exec_failure
        return api.ListExecsResponse(execs=list(self.listed_execs))

    async def kill_exec(self, request: api.KillExecRequest) -> api.KillExecResponse:
        self.killed.append(request)
        return api.KillExecResponse(exec=api.Exec(exec_id=request.exec_id))

    async def forward(self, requests: AsyncIterator[Any]) -> AsyncIterator[api.ForwardResponse]:
        """Answers each piece with the same piece, and the end with the end."""
        target = (await anext(requests)).target
        self.forwards.append(target)
        if self.forward_failures:
            raise self.forward_failures.pop(0)
        yield api.ForwardResponse(opened=api.ForwardOpened(container_id=target.container_id))
        async for request in requests:
            yield api.ForwardResponse(data=request.data, end=request.end)

    async def read_logs(self, request: api.ReadLogsRequest) -> AsyncIterator[api.LogBatch]:
        async with aclosing(self.logs.read(request)) as batches:  # type: ignore[type-var]
            async for batch in batches:
                yield batch


class FakeChannel:
    """What an ``AcceptedChannel`` is to its users, over one ``FakeAgent``."""

    def __init__(self, agent: FakeAgent) -> None:
        self.agent = agent
        self.closed = asyncio.Event()

    def close(self) -> None:
        self.closed.set()

    def request(
        self,
        route: str,
        cardinality: Any,
        request_type: Any,
        reply_type: Any,
        *,
        metadata: Any = None,
        **_: Any,
    ) -> FakeCall:
        if self.closed.is_set():
            raise Unavailable("the node is not connected")
        if metadata:
            self.agent.callers.append(metadata[CALLER_KEY])
        return FakeCall(self, route.rpartition("/")[2], request_type, reply_type)


class FakeCall:
    """One call; messages pass through the real codec, as on the wire."""

    def __init__(self, channel: FakeChannel, method: str, request_type: Any, reply_type: Any) -> None:
        self._channel = channel
        self._method = method
        self._types = request_type, reply_type
        self._sent: asyncio.Queue[Any] = asyncio.Queue()
        self._failure: BaseException | None = None
        self._iterator: AsyncGenerator[Any, None] | None = None

    async def __aenter__(self) -> FakeCall:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._iterator is not None:
            await self._iterator.aclose()

    async def send_request(self) -> None:
        return None

    def be_patient(self) -> None:
        return None

    def be_narrow(self) -> None:
        self._channel.agent.narrow_calls += 1

    async def send_message(self, message: Any, end: bool = False) -> None:
        kind = self._types[0]
        self._sent.put_nowait(_CODEC.decode(_CODEC.encode(message, kind), kind))

    async def end(self) -> None:
        self._sent.put_nowait(None)

    def fail(self, error: BaseException, *, unless_answered: bool = False) -> None:
        self._failure = error
        self._sent.put_nowait(None)

    async def recv_message(self) -> Any:
        if self._method == "ReadLogs":
            self._iterator = self._iterator or self._iterate()
            return await anext(self._iterator, None)
        request = await self._sent.get()
        return await self._agent_method(request)

    def __aiter__(self) -> AsyncIterator[Any]:
        return self._iterate()

    async def _iterate(self) -> AsyncGenerator[Any, None]:
        both_ways = self._method in ("Synchronize", "Forward", "Exec", "Attach")
        source = self._requests() if both_ways else await self._sent.get()
        self._replies = self._agent_method(source)
        closed = asyncio.ensure_future(self._channel.closed.wait())
        try:
            while True:
                following = asyncio.ensure_future(anext(self._replies))
                try:
                    await asyncio.wait({closed, following}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    if not following.done():
                        following.cancel()
                        await asyncio.wait({following})
                if following.cancelled():
                    raise Unavailable("the node is gone")
                try:
                    reply = following.result()
                except StopAsyncIteration:
                    if self._failure is not None:
                        raise self._failure from None
                    return
                yield _CODEC.decode(_CODEC.encode(reply, self._types[1]), self._types[1])
        finally:
            closed.cancel()
            await self._replies.aclose()

    async def _requests(self) -> AsyncIterator[Any]:
        while (request := await self._sent.get()) is not None:
            yield request

    @property
    def _agent_method(self) -> Callable[..., Any]:
        names = {
            "Synchronize": "synchronize",
            "ExecCommand": "exec_command",
            "ReadLogs": "read_logs",
            "Forward": "forward",
            "Exec": "program",
            "Attach": "program",
            "ListExecs": "list_execs",
            "KillExec": "kill_exec",
        }
        return getattr(self._channel.agent, names[self._method])


async def link(
    coordinator: Any, agent: FakeAgent, kinds: tuple[str, ...] = ("control", "bulk")
) -> list[FakeChannel]:
    """Link an agent as the transport would."""
    channels = []
    for kind in kinds:
        hello = agent.hello(kind)
        await coordinator.nodes.admit(hello, "test")
        channel = FakeChannel(agent)
        coordinator.nodes.connected(hello, channel)
        channels.append(channel)
    return channels
