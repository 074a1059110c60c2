"""Links: the dialling side serves, the accepting side calls, and both notice the end."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
from collections.abc import AsyncIterator
from types import ModuleType
from typing import Any

import pytest

from cloudless.domain.errors import DeadlineExceeded, NotFound, Unavailable
from cloudless.transport.bidi import converse
from cloudless.transport.limits import LINK_AGENT, LINK_COORDINATOR, PUBLIC
from cloudless.transport.link import AcceptedChannel, Link, LinkRefused, dial_link
from cloudless.transport.server import GuardedServer

QUICK = dataclasses.replace(LINK_AGENT, keepalive_interval_s=0.5, keepalive_timeout_s=0.5)


class Registry:
    """The coordinator's side of the tests: takes every node but those called ``evil``."""

    def __init__(self) -> None:
        self.channels: asyncio.Queue[AcceptedChannel] = asyncio.Queue()
        self.hellos: list[dict[str, Any]] = []

    async def admit(self, hello: dict[str, Any], peer: str) -> dict[str, Any]:
        if hello.get("node") == "evil":
            raise LinkRefused("this node is not welcome")
        if hello.get("node") == "lost":
            raise NotFound("no such node")
        return {"session": 7, "peer": peer}

    def connected(self, hello: dict[str, Any], channel: AcceptedChannel) -> None:
        self.hellos.append(hello)
        self.channels.put_nowait(channel)


@dataclasses.dataclass
class Linked:
    registry: Registry
    coordinator: GuardedServer
    port: int
    agent: GuardedServer
    link: Link
    channel: AcceptedChannel


@pytest.fixture
async def linked(request: pytest.FixtureRequest, echo: Any, descriptors: bytes) -> AsyncIterator[Linked]:
    """A coordinator, and an agent that serves ``echo`` over its link."""
    registry = Registry()
    limits = getattr(request, "param", LINK_COORDINATOR)
    async with contextlib.AsyncExitStack() as stack:
        coordinator = await stack.enter_async_context(
            GuardedServer([], name="coordinator", links=registry, link_limits=limits)
        )
        port = await coordinator.listen("127.0.0.1", 0)
        agent = GuardedServer([echo], name="agent", descriptors=descriptors)
        await stack.enter_async_context(agent)
        link = await dial_link("127.0.0.1", port, {"node": "n1", "kind": "control"}, agent)
        channel = await registry.channels.get()
        yield Linked(registry, coordinator, port, agent, link, channel)
        await channel.aclose()


async def test_the_dialling_side_serves(demo: ModuleType, linked: Linked) -> None:
    assert linked.link.answer["session"] == 7
    assert linked.registry.hellos == [{"node": "n1", "kind": "control"}]
    answer = await demo.EchoStub(linked.channel).once(demo.Everything(text="hello"))
    assert answer.text == "hello"


async def test_calls_of_all_kinds_at_once(demo: ModuleType, linked: Linked) -> None:
    stub = demo.EchoStub(linked.channel)

    async def stream() -> int:
        request = demo.Everything(int32_value=2000, raw=bytes(16_000))
        return sum([len(message.raw) async for message in stub.many(request)])

    async def conversation() -> list[int]:
        async def numbers() -> AsyncIterator[Any]:
            for number in range(200):
                yield demo.Everything(int32_value=number)

        talk = converse(linked.channel, "/demo.Echo/Talk", numbers(), demo.Everything, demo.Everything)
        async with contextlib.aclosing(talk):
            return [message.int32_value async for message in talk]

    async with asyncio.TaskGroup() as group:
        streamed = group.create_task(stream())
        talked = group.create_task(conversation())
        unary = [group.create_task(stub.once(demo.Everything(int32_value=n))) for n in range(200)]
    assert streamed.result() == 2000 * 16_000
    assert talked.result() == list(range(200))
    assert [task.result().int32_value for task in unary] == list(range(200))


async def test_unread_streams_do_not_block_a_call(demo: ModuleType, linked: Linked) -> None:
    stub = demo.EchoStub(linked.channel)
    unread = [stub.many(demo.Everything(int32_value=10**6, raw=bytes(16_000))) for _ in range(50)]
    for stream in unread:
        await anext(stream)
    assert (await stub.once(demo.Everything(text="through"), timeout=5)).text == "through"
    for stream in unread:
        await stream.aclose()


async def test_more_calls_than_a_hundred_run_at_once(
    demo: ModuleType, linked: Linked, echo: Any, eventually: Any
) -> None:
    stub = demo.EchoStub(linked.channel)
    async with asyncio.TaskGroup() as group, asyncio.timeout(10):
        tasks = [group.create_task(stub.once(demo.Everything(text="wait"))) for _ in range(400)]
        await eventually(lambda: echo.started == 400)
        echo.release.set()
    assert all(task.result().text == "wait" for task in tasks)


async def test_every_call_has_a_deadline(demo: ModuleType, linked: Linked) -> None:
    linked.channel._unary_s = 0.05
    with pytest.raises(DeadlineExceeded):
        await demo.EchoStub(linked.channel).once(demo.Everything(text="wait"))


@pytest.mark.parametrize("side", ["agent", "coordinator", "cut"])
async def test_both_sides_notice_the_end(side: str, demo: ModuleType, linked: Linked, echo: Any) -> None:
    stub = demo.EchoStub(linked.channel)
    stream = stub.many(demo.Everything(int32_value=1, text="wait"))
    await anext(stream)
    if side == "agent":
        await linked.link.close()
    elif side == "coordinator":
        await linked.channel.aclose()
    else:
        linked.link.protocol.connection.abort("the node lost its power")
    async with asyncio.timeout(5):
        await linked.channel.closed.wait()
        await linked.link.closed.wait()
    with pytest.raises(Unavailable):
        await anext(stream)
    with pytest.raises(Unavailable, match="not connected"):
        await stub.once(demo.Everything())
    again = await dial_link("127.0.0.1", linked.port, {"node": "n1"}, linked.agent)
    channel = await linked.registry.channels.get()
    assert (await demo.EchoStub(channel).once(demo.Everything(text="back"))).text == "back"
    await channel.aclose()
    await again.closed.wait()


async def test_an_agent_that_drains_finishes_its_calls(
    demo: ModuleType, linked: Linked, echo: Any, eventually: Any
) -> None:
    stub = demo.EchoStub(linked.channel)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(stub.once(demo.Everything(text="wait")))
        await eventually(lambda: echo.started == 1)
        group.create_task(linked.agent.drain(5))
        await eventually(lambda: not linked.channel.connected)
        with pytest.raises(Unavailable):
            await stub.once(demo.Everything())
        echo.release.set()
    assert running.result().text == "wait"
    async with asyncio.timeout(5):
        await linked.channel.closed.wait()


@pytest.mark.parametrize(("node", "reason"), [("evil", "this node is not welcome"), ("lost", "no such node")])
async def test_a_refusal_says_why(node: str, reason: str, linked: Linked) -> None:
    with pytest.raises(LinkRefused, match=reason) as caught:
        await dial_link("127.0.0.1", linked.port, {"node": node}, linked.agent)
    assert caught.value.reason == reason


async def test_nobody_there_and_strangers_are_told_apart(linked: Linked, serve: Any, echo: Any) -> None:
    with pytest.raises(Unavailable, match="connection refused"):
        await dial_link("127.0.0.1", 1, {}, linked.agent)
    async with serve(echo) as (_, port):
        with pytest.raises(Unavailable, match=r"closed the connection|reset"):
            await dial_link("127.0.0.1", port, {}, linked.agent)  # a server without links
    with pytest.raises(ValueError, match="4096"):
        await dial_link("127.0.0.1", linked.port, {"much": "x" * 5000}, linked.agent)


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        (b"CLOUDLESS-LINK/1 not json\n", b"no JSON object"),
        (b"CLOUDLESS-LINK/1 [1]\n", b"no JSON object"),
        (b"CLOUDLESS-LINK/1 " + b"[" * 4000 + b"\n", b"no JSON object"),
        (b"CLOUDLESS-LINK/1 {}" + b" " * 5000, b""),
        (b"CLOUDLESS-LINK/1 {}\nPRI * HTTP/2.0", b""),
        (b"CLOUDLESS-LINK/2 {}\n", b""),
    ],
)
async def test_bad_first_lines_are_refused_cheaply(line: bytes, answer: bytes, linked: Linked) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", linked.port)
    writer.write(line)
    got = b""
    async with asyncio.timeout(5):
        with contextlib.suppress(ConnectionResetError):
            got = await reader.read()
    assert answer in got
    assert bool(answer) == bool(got)
    if got:
        assert json.loads(got)["accepted"] is False
    writer.close()
    assert linked.registry.channels.empty()


class SilentProxy:
    """Forwards bytes between two sockets until it is told to swallow them."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.silent = False
        self.writers: list[asyncio.StreamWriter] = []

    async def start(self) -> int:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port: int = self.server.sockets[0].getsockname()[1]
        return port

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self.target)
        self.writers += [writer, back]
        async with asyncio.TaskGroup() as group:
            group.create_task(self._pump(reader, back))
            group.create_task(self._pump(there, writer))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                if not self.silent:
                    writer.write(data)

    async def stop(self) -> None:
        self.server.close()
        for writer in self.writers:
            writer.transport.abort()


@pytest.mark.parametrize("linked", [QUICK], indirect=True, ids=["quick"])
async def test_a_silent_peer_is_given_up_on_both_sides(demo: ModuleType, linked: Linked) -> None:
    proxy = SilentProxy(linked.port)
    link = await dial_link("127.0.0.1", await proxy.start(), {"node": "n2"}, linked.agent, limits=QUICK)
    channel = await linked.registry.channels.get()
    stub = demo.EchoStub(channel)
    stream = stub.many(demo.Everything(int32_value=10**6, raw=bytes(16_000)))
    await anext(stream)
    proxy.silent = True
    async with asyncio.timeout(5):
        await link.closed.wait()
        await channel.closed.wait()
    with pytest.raises(Unavailable):
        await _drain(stream)
    await proxy.stop()


async def _drain(stream: Any) -> None:
    async for _ in stream:
        continue


async def test_ordinary_clients_use_the_same_port(demo: ModuleType, linked: Linked, client: Any) -> None:
    async with client(linked.port) as stub:
        with pytest.raises(Exception, match="no method"):
            await stub.once(demo.Everything())


async def test_links_count_as_connections(linked: Linked) -> None:
    assert linked.coordinator.connections == 1
    assert linked.agent.connections == 1
    await linked.link.close()
    await linked.channel.closed.wait()
    assert linked.coordinator.connections == 0
    assert linked.agent.connections == 0
    assert PUBLIC.connections_per_peer == 100
