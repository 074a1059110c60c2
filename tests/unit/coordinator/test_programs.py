"""Exec and Attach through the coordinator: which replica is met, and what passes."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest
from tests.unit.coordinator.fakeagent import FakeChannel
from tests.unit.coordinator.test_bulk import running
from tests.unit.coordinator.world import World

from cloudless import api
from cloudless.coordinator import limits
from cloudless.coordinator.services import programs
from cloudless.coordinator.services.quota import Quota
from cloudless.domain.errors import (
    DeadlineExceeded,
    Exhausted,
    Invalid,
    NotFound,
    PreconditionFailed,
    Unavailable,
)
from cloudless.transport.context import CallContext, calling

START: dict[str, Any] = {
    "command": ["sh", "-c", "id"],
    "env": {"A": "1"},
    "working_dir": "/srv",
    "user": "1000:1000",
    "stdin": True,
    "tty": True,
    "size": api.TerminalSize(rows=30, columns=100),
    "detach": False,
    "timeout": datetime.timedelta(seconds=7),
}
ATTACH: dict[str, Any] = {"stdin": True, "size": api.TerminalSize(rows=30, columns=100), "tail_lines": 5}


class Conversation:
    """One call; ``say`` something, wait for what comes ``next``."""

    def __init__(self, world: World, method: str) -> None:
        self._outbox: asyncio.Queue[api.ExecRequest | None] = asyncio.Queue()
        self.answers = getattr(world.coordinator.service, method)(self._requests())

    def say(self, **fields: Any) -> None:
        self._outbox.put_nowait(api.ExecRequest(**fields))

    def end(self) -> None:
        self._outbox.put_nowait(None)

    async def next(self) -> api.ExecResponse:
        async with asyncio.timeout(100):
            return await anext(self.answers)  # type: ignore[no-any-return]

    async def _requests(self) -> AsyncIterator[api.ExecRequest]:
        while (request := await self._outbox.get()) is not None:
            yield request


@asynccontextmanager
async def conversation(world: World, method: str = "exec", **fields: Any) -> AsyncIterator[Conversation]:
    made = Conversation(world, method)
    if fields:
        made.say(**fields)
    async with aclosing(made.answers):
        yield made


def start(**fields: Any) -> api.ExecStart:
    return api.ExecStart(**{"name": "web", "command": ["true"]} | fields)


async def met(world: World, **fields: Any) -> str:
    """The replica that a program meets."""
    async with conversation(world, start=start(**fields)) as made:
        started = (await made.next()).started
        assert started is not None
        return started.replica


async def pass_all(world: World, made: Conversation, **said: Any) -> None:
    """Say one of everything; nothing may be changed on the way."""
    for name, value in said.items():
        made.say(**{name: value})
    assert (await made.next()).stdout == b"hello"
    assert (await made.next()).stderr == b"hello"
    assert (await made.next()).exit == api.ExecExit(exit_code=7)
    with pytest.raises(StopAsyncIteration):
        await made.next()
    sent = [api.ExecRequest(**{name: value}) for name, value in said.items()]
    assert world.agents["n1"].programs[1:] == sent


async def test_everything_is_passed_both_ways(world: World) -> None:
    (one,) = await running(world, 1)
    async with conversation(world, start=start(**START)) as made:
        started = (await made.next()).started
        assert started is not None
        assert (started.exec_id, started.replica, started.node) == ("x-1", "web/0", "n1")
        size, close = api.TerminalSize(rows=1, columns=2), api.ExecStdinClose()
        await pass_all(world, made, resize=size, signal=15, stdin=b"hello", stdin_close=close)
    asked = world.agents["n1"].programs[0].start
    assert asked == api.ExecStart(**START, container_id=f"cl-{one}-0")


async def test_attach_passes_everything_both_ways(world: World) -> None:
    (one,) = await running(world, 1)
    async with conversation(world, "attach", attach=api.AttachStart(name="web", **ATTACH)) as made:
        assert (await made.next()).started is not None
        size, close = api.TerminalSize(rows=1, columns=2), api.ExecStdinClose()
        await pass_all(world, made, resize=size, signal=15, stdin=b"hello", stdin_close=close)
    asked = world.agents["n1"].programs[0].attach
    assert asked == api.AttachStart(**ATTACH, container_id=f"cl-{one}-0")


async def test_a_ready_replica_or_the_one_that_is_named(world: World) -> None:
    one, two = await running(world)
    assert await met(world) == "web/0"
    for replica in ("1", two[:6]):
        assert await met(world, replica=replica) == "web/1"
    world.agents["n1"].run(one, ready=False)
    await world.until(lambda: not world.cluster.observations[one].ready)
    assert await met(world) == "web/1"
    assert await met(world, replica="0") == "web/0"


async def test_leaving_ends_the_call_to_the_node(world: World) -> None:
    await running(world, 1)
    async with conversation(world, start=start()) as made:
        await made.next()
        assert world.agents["n1"].programs_ended == 0
    assert world.agents["n1"].programs_ended == 1


@pytest.mark.parametrize("method", ["exec", "attach"])
async def test_bad_beginnings(world: World, method: str) -> None:
    await running(world, 1)
    other = {"exec": {"attach": api.AttachStart(name="web")}, "attach": {"start": start()}}[method]
    here = "node's own address"
    named: dict[str, Any] = {
        "exec": {"start": start(container_id="c")},
        "attach": {"attach": api.AttachStart(name="web", container_id="c")},
    }[method]
    for fields, text in ((other, "first message"), ({"stdin": b"x"}, "first message"), (named, here)):
        async with conversation(world, method, **fields) as made:
            with pytest.raises(Invalid) as caught:
                await made.next()
            assert any(text in one.description for one in caught.value.violations)
    async with conversation(world, method) as made:
        made.end()
        with pytest.raises(Invalid, match="did not come"):
            await made.next()
    async with conversation(world, method) as made:
        with pytest.raises(DeadlineExceeded):
            await made.next()


async def test_nowhere_to_run(world: World) -> None:
    with pytest.raises(NotFound):
        await met(world)
    (one,) = await running(world, 1)
    with pytest.raises(NotFound, match="no replica 9"):
        await met(world, replica="9")
    world.agents["n1"].crash(one)
    await world.until(lambda: not world.cluster.observations[one].ready)
    with pytest.raises(PreconditionFailed, match="web/0 is backing off"):
        await met(world)


async def test_a_node_that_goes_away(world: World) -> None:
    await running(world, 1)
    async with conversation(world, start=start()) as made:
        await made.next()
        world.channels["n1"][1].close()
        with pytest.raises(Unavailable):
            await made.next()
    await world.until(lambda: "bulk" not in world.coordinator.nodes._links["id-n1"].channels)
    with pytest.raises(Unavailable, match="n1 is not connected"):
        await met(world)


async def test_a_node_whose_second_connection_comes_a_moment_later(world: World) -> None:
    await running(world, 1)
    nodes = world.coordinator.nodes
    world.channels["n1"][1].close()
    await world.until(lambda: "bulk" not in nodes._links["id-n1"].channels)
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(met(world))
        await world.pass_time(limits.BULK_WAIT_S / 2)
        assert not waiting.done()
        nodes.connected(world.agents["n1"].hello("bulk"), FakeChannel(world.agents["n1"]))
    assert waiting.result() == "web/0"
    world.cut("n1")
    await world.until(lambda: not nodes.is_linked("id-n1"))
    async with asyncio.timeout(limits.BULK_WAIT_S / 2):
        with pytest.raises(Unavailable, match="n1 is not connected"):
            await met(world)


async def test_the_coordinator_stops(world: World) -> None:
    await running(world, 1)
    async with conversation(world, start=start()) as made:
        await made.next()
        world.coordinator.closing.begin()
        with pytest.raises(Unavailable, match="stopping"):
            await made.next()


async def test_a_caller_has_so_many_at_most(world: World) -> None:
    await running(world, 1)
    service = world.coordinator.service._programs
    assert isinstance(service, programs.Programs)
    service._quota = Quota("programs", of_caller=1, in_all=2)
    async with conversation(world, start=start()) as made:
        await made.next()
        with pytest.raises(Exhausted, match="1 programs"):
            await met(world)
        with calling(CallContext("/Exec", "192.0.2.7:1234")):
            assert await met(world) == "web/0", "another caller gets in"
    assert await met(world) == "web/0"
    assert world.agents["n1"].callers == ["", "192.0.2.7", ""], "the node counts what is detached"
    assert 0 < limits.MAX_EXECS_OF_CALLER < limits.MAX_EXECS
