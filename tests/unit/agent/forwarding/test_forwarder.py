"""Connections to replicas: both directions, each of their ends, limits, who may be reached."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from cloudless import api
from cloudless.agent.forwarding import forwarder
from cloudless.agent.forwarding.forwarder import Forwarder
from cloudless.agent.probing.outcome import ProbeTarget
from cloudless.domain.errors import (
    CloudlessError,
    DeadlineExceeded,
    Denied,
    Exhausted,
    Invalid,
    NotFound,
    PreconditionFailed,
    Unavailable,
)
from cloudless.domain.replica import Assignment, ReplicaPhase
from cloudless.domain.workload import WorkloadSpec

OWN = ProbeTarget("10.1.0.2", "/run/netns/r1")
HOSTS = ProbeTarget("192.168.0.7", None)
MIB = 1024 * 1024


class Node:
    """Of the node, what a forwarder asks."""

    def __init__(self, *, target: ProbeTarget = OWN, **spec: Any) -> None:
        self.changes: list[asyncio.Future[None]] = []
        told = Assignment(
            replica_id="r1",
            workload_id="w1",
            namespace="default",
            name="web",
            ordinal=0,
            revision=1,
            spec=WorkloadSpec.model_validate({"image": "app", **spec}),
        )
        self.replica = SimpleNamespace(
            id="r1",
            container_id="cl-r1-2",
            seen=SimpleNamespace(phase=ReplicaPhase.RUNNING),
            orders=SimpleNamespace(assignment=told),
            target=target,
        )
        self.replicas = {"r1": self.replica}

    async def found(self, look: Callable[[], Any]) -> Any:
        return look()

    def change_of(self, replica_id: str) -> asyncio.Future[None]:
        self.changes.append(asyncio.get_running_loop().create_future())
        return self.changes[-1]

    def say(self, phase: ReplicaPhase) -> None:
        self.replica.seen.phase = phase
        for change in self.changes:
            if not change.done():
                change.set_result(None)


class Dials:
    """Gives one end of a pair of sockets; ``other`` is the replica's."""

    def __init__(self) -> None:
        self.asked: list[tuple[ProbeTarget, int, str]] = []
        self.other = socket.socket()

    async def dial(self, target: ProbeTarget, port: int, replica: str) -> socket.socket:
        self.asked.append((target, port, replica))
        with socket.create_server(("127.0.0.1", 0)) as listener:
            mine = socket.create_connection(listener.getsockname())
            self.other.close()
            self.other, _ = listener.accept()
        mine.setblocking(False)
        self.other.setblocking(False)
        return mine


class Caller:
    """The other end of one call; takes one answer ahead, as a stream's window would."""

    def __init__(self, forwards: Forwarder, **target: Any) -> None:
        self.outbox: asyncio.Queue[api.ForwardRequest | None] = asyncio.Queue()
        self._inbox: asyncio.Queue[api.ForwardResponse | Exception | None] = asyncio.Queue(1)
        self._serving = asyncio.ensure_future(self._pull(forwards))
        if target:
            self.say(target=api.ForwardTarget(**target))

    def say(self, **fields: Any) -> None:
        self.outbox.put_nowait(api.ForwardRequest(**fields))

    async def next(self) -> api.ForwardResponse:
        async with asyncio.timeout(10):
            answer = await self._inbox.get()
        if isinstance(answer, Exception):
            raise answer
        assert answer is not None
        return answer

    async def ended(self) -> bool:
        async with asyncio.timeout(10):
            return await self._inbox.get() is None

    async def leave(self) -> None:
        self._serving.cancel()
        await asyncio.wait({self._serving})

    async def _pull(self, forwards: Forwarder) -> None:
        try:
            async with aclosing(forwards.serve(self._requests())) as answers:
                async for answer in answers:
                    await self._inbox.put(answer)
        except Exception as error:
            await self._inbox.put(error)
        else:
            await self._inbox.put(None)

    async def _requests(self) -> AsyncIterator[api.ForwardRequest]:
        while (request := await self.outbox.get()) is not None:
            yield request


class Stage:
    def __init__(self, node: Node, limit: int = 3) -> None:
        self.node = node
        self.dials = Dials()
        self.forwards = Forwarder(node, self.dials, limit)  # type: ignore[arg-type]

    @asynccontextmanager
    async def call(self, **target: Any) -> AsyncIterator[Caller]:
        caller = Caller(self.forwards, **target)
        try:
            yield caller
        finally:
            await caller.leave()

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Caller]:
        async with self.call(replica="r1", port=80) as caller:
            first = await caller.next()
            assert first.opened == api.ForwardOpened(replica="web/0", container_id="cl-r1-2")
            yield caller

    async def replica_reads(self) -> bytes:
        async with asyncio.timeout(10):
            return await asyncio.get_running_loop().sock_recv(self.dials.other, MIB)

    async def replica_sends(self, data: bytes) -> None:
        async with asyncio.timeout(10):
            await asyncio.get_running_loop().sock_sendall(self.dials.other, data)


@pytest.fixture
def make() -> AsyncGenerator[Callable[..., Stage], None]:
    made: list[Stage] = []

    def stage(limit: int = 3, **fields: Any) -> Stage:
        made.append(Stage(Node(**fields), limit))
        return made[-1]

    yield stage  # type: ignore[misc]
    for one in made:
        one.dials.other.close()
        assert one.forwards.open == 0, "every way to end gives the slot back"


async def test_bytes_go_both_ways(make: Callable[..., Stage]) -> None:
    stage = make()
    async with stage.connected() as caller:
        caller.say(data=b"question")
        assert await stage.replica_reads() == b"question"
        await stage.replica_sends(b"answer")
        assert (await caller.next()).data == b"answer"
    assert stage.dials.asked == [(OWN, 80, "web/0")]


async def test_the_container_may_be_named(make: Callable[..., Stage]) -> None:
    stage = make()
    async with stage.call(container_id="cl-r1", port=80) as caller:
        assert (await caller.next()).opened is not None
    for name in ("cl-r1-1", "cl-x"):
        async with stage.call(container_id=name, port=80) as caller:
            with pytest.raises(NotFound):
                await caller.next()


async def test_the_caller_may_end_first(make: Callable[..., Stage]) -> None:
    """``end``, and the end of the requests, close one direction only."""
    for said in ("end", "nothing more"):
        stage = make()
        async with stage.connected() as caller:
            caller.say(data=b"all of it")
            if said == "end":
                caller.say(end=True)
            else:
                caller.outbox.put_nowait(None)
            assert await stage.replica_reads() == b"all of it"
            assert await stage.replica_reads() == b""
            await stage.replica_sends(b"got it")
            assert (await caller.next()).data == b"got it"
            stage.dials.other.close()
            assert (await caller.next()).end
            assert await caller.ended()


async def test_the_replica_may_end_first(make: Callable[..., Stage]) -> None:
    stage = make()
    async with stage.connected() as caller:
        stage.dials.other.shutdown(socket.SHUT_WR)
        assert (await caller.next()).end
        caller.say(data=b"still here")
        assert await stage.replica_reads() == b"still here"
        caller.say(end=True)
        assert await stage.replica_reads() == b""
        assert await caller.ended()


async def test_what_was_sent_last_arrives_though_the_replica_reads_late(make: Callable[..., Stage]) -> None:
    """Ending well never cuts off what the kernel still holds."""
    stage = make()
    piece = b"x" * 100_000
    async with stage.connected() as caller:
        stage.dials.other.shutdown(socket.SHUT_WR)
        assert (await caller.next()).end
        caller.say(data=piece, end=True)
        assert await caller.ended()
    read = 0
    while data := await stage.replica_reads():
        read += len(data)
    assert read == len(piece)


async def test_a_replica_that_cuts_the_connection(make: Callable[..., Stage]) -> None:
    stage = make()
    async with stage.connected() as caller:
        forwarder.reset(stage.dials.other)
        with pytest.raises(Unavailable, match="replica web/0 cut the connection"):
            while True:
                await caller.next()


async def test_a_caller_that_leaves_cuts_the_connection(make: Callable[..., Stage]) -> None:
    stage = make()
    async with stage.connected() as caller:
        caller.say(data=b"x")
        assert await stage.replica_reads() == b"x"
    with pytest.raises(ConnectionResetError):
        await stage.replica_reads()


async def test_a_connection_ends_with_its_replica(make: Callable[..., Stage]) -> None:
    """Its program is gone, and the caller neither sends nor ends: nothing may be left."""
    stage = make()
    async with stage.connected() as caller:
        await stage.replica_sends(b"last words")
        stage.dials.other.close()
        stage.node.say(ReplicaPhase.BACKING_OFF)
        assert (await caller.next()).data == b"last words"
        assert (await caller.next()).end
        assert await caller.ended()


async def test_a_restart_in_place_ends_it_too(make: Callable[..., Stage]) -> None:
    stage = make()
    async with stage.connected() as caller:
        stage.dials.other.close()
        assert (await caller.next()).end
        ending = asyncio.ensure_future(caller.ended())
        stage.node.say(ReplicaPhase.RUNNING)  # the same container: nothing has changed
        await asyncio.sleep(0)
        assert not ending.done()
        stage.node.replica.container_id = "cl-r1-3"
        stage.node.say(ReplicaPhase.RUNNING)
        assert await ending


async def test_a_caller_that_reads_nothing_stops_the_replica(make: Callable[..., Stage]) -> None:
    stage = make()
    async with stage.connected():
        sent = 0
        while True:
            try:
                sent += stage.dials.other.send(bytes(MIB))
            except BlockingIOError:
                before = sent
                await asyncio.sleep(0.05)
                try:
                    sent += stage.dials.other.send(bytes(MIB))
                except BlockingIOError:
                    break
                assert sent - before <= 2 * MIB
        assert sent < 16 * MIB, "only the kernel's buffers hold anything"


async def test_a_replica_that_reads_nothing_stops_the_caller(make: Callable[..., Stage]) -> None:
    stage = make()
    async with stage.connected() as caller:
        for _ in range(400):
            caller.say(data=bytes(64 * 1024))
        size = -1
        while size != caller.outbox.qsize():
            size = caller.outbox.qsize()
            await asyncio.sleep(0.05)
        assert size > 100, "what the replica does not take stays with the caller"


async def test_connections_have_a_limit(make: Callable[..., Stage]) -> None:
    stage = make(limit=1)
    async with stage.connected(), stage.call(replica="r1", port=80) as second:
        assert stage.forwards.open == 1
        with pytest.raises(Exhausted, match="1 connections"):
            await second.next()
    async with stage.connected():
        pass


@pytest.mark.parametrize("phase", [ReplicaPhase.BACKING_OFF, ReplicaPhase.STARTING, ReplicaPhase.SUCCEEDED])
async def test_a_replica_that_does_not_run(make: Callable[..., Stage], phase: ReplicaPhase) -> None:
    stage = make()
    stage.node.replica.seen.phase = phase
    async with stage.call(replica="r1", port=80) as caller:
        with pytest.raises(PreconditionFailed, match="replica web/0 does not run: it is "):
            await caller.next()


async def test_a_replica_that_is_not_here(make: Callable[..., Stage]) -> None:
    async with make().call(replica="zzz", port=80) as caller:
        with pytest.raises(NotFound):
            await caller.next()


async def test_in_the_nodes_network_only_ports_of_the_workload_are_reached(
    make: Callable[..., Stage],
) -> None:
    host = {"security_context": {"host_network": True}, "ports": [{"container_port": 8000}]}
    stage = make(target=HOSTS, **host)
    async with stage.call(replica="r1", port=8000) as caller:
        assert (await caller.next()).opened is not None
    for port in (22, 2379):
        async with stage.call(replica="r1", port=port) as caller:
            with pytest.raises(Denied, match=r"only ports that its workload names \(8000\)"):
                await caller.next()
    assert stage.dials.asked == [(HOSTS, 8000, "web/0")]


async def test_a_replica_whose_network_is_unknown_is_not_taken_for_the_node(
    make: Callable[..., Stage],
) -> None:
    stage = make(target=ProbeTarget("127.0.0.1", None), ports=[{"container_port": 80}])
    async with stage.call(replica="r1", port=80) as caller:
        with pytest.raises(Unavailable, match="network of replica web/0 is not known"):
            await caller.next()
    assert not stage.dials.asked


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({}, "target"),
        ({"data": b"x"}, "target"),
        ({"target": {"replica": "r1", "port": 0}}, "target.port"),
        ({"target": {"replica": "r1", "port": 65536}}, "target.port"),
        ({"target": {"replica": "r1", "port": -1}}, "target.port"),
        ({"target": {"port": 80}}, "container_id"),
        ({"target": {"replica": "r1", "container_id": "cl-r1-2", "port": 80}}, "target.container_id"),
        ({"target": {"replica": "r1", "name": "web", "port": 80}}, "target.name"),
        ({"target": {"replica": "r1", "namespace": "default", "port": 80}}, "target.namespace"),
        ({"target": {"replica": "r1", "port": 80}, "data": b"x"}, "data"),
        ({"target": {"replica": "r1", "port": 80}, "end": True}, "data"),
    ],
)
async def test_bad_beginnings(make: Callable[..., Stage], fields: dict[str, Any], path: str) -> None:
    stage = make()
    target = fields.pop("target", None) if (fields := dict(fields)) else None
    async with stage.call() as caller:
        caller.say(target=None if target is None else api.ForwardTarget(**target), **fields)
        with pytest.raises(Invalid) as caught:
            await caller.next()
    assert [violation.path for violation in caught.value.violations] == [path]
    assert not stage.dials.asked


async def test_no_beginning(make: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forwarder, "TARGET_TIMEOUT_S", 0.05)
    async with make().call() as caller:
        with pytest.raises(DeadlineExceeded, match="no target was named"):
            await caller.next()
    async with make().call() as caller:
        caller.outbox.put_nowait(None)
        with pytest.raises(Invalid, match="target"):
            await caller.next()


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ([{"target": api.ForwardTarget(port=1)}], "first message only"),
        ([{"data": bytes(600 * 1024)}], "at most 524288 bytes"),
        ([{"end": True}, {"data": b"x"}], "after the end"),
        ([{"end": True}, {"end": True}], "after the end"),
    ],
)
async def test_bad_pieces(make: Callable[..., Stage], said: list[dict[str, Any]], why: str) -> None:
    stage = make()
    async with stage.connected() as caller:
        for fields in said:
            caller.say(**fields)
        with pytest.raises(CloudlessError, match=why):
            while True:
                await caller.next()


async def test_unknown_fields_are_refused(make: Callable[..., Stage]) -> None:
    stage = make()
    async with stage.connected() as caller:
        message = api.ForwardRequest(data=b"x")
        message._unknown_fields = b"\x50\x01"
        caller.outbox.put_nowait(message)
        with pytest.raises(Invalid, match="does not know"):
            while True:
                await caller.next()


async def test_what_fails_on_the_way_in_is_raised(make: Callable[..., Stage]) -> None:
    class Broken(Exception):
        pass

    stage = make()

    async def requests() -> AsyncIterator[api.ForwardRequest]:
        yield api.ForwardRequest(target=api.ForwardTarget(replica="r1", port=80))
        raise Broken

    async with aclosing(stage.forwards.serve(requests())) as answers:
        assert (await anext(answers)).opened is not None
        with pytest.raises(Broken):
            await anext(answers)
