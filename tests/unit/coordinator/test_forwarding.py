"""Forwarded connections: which replica they meet, and what becomes of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest
from tests.unit.coordinator.test_bulk import running
from tests.unit.coordinator.world import World

from cloudless import api
from cloudless.coordinator import limits
from cloudless.coordinator.services import forwarding
from cloudless.coordinator.services.quota import Quota, current_caller
from cloudless.domain.errors import (
    DeadlineExceeded,
    Exhausted,
    Invalid,
    NotFound,
    PreconditionFailed,
    Unavailable,
)
from cloudless.domain.replica import UNPROBED
from cloudless.transport.context import CallContext, calling


class Connection:
    """One call; ``say`` something, wait for what comes ``next``."""

    def __init__(self, world: World) -> None:
        self._outbox: asyncio.Queue[api.ForwardRequest | None] = asyncio.Queue()
        self.answers = world.coordinator.service.forward(self._requests())

    def say(self, **fields: Any) -> None:
        self._outbox.put_nowait(api.ForwardRequest(**fields))

    async def next(self) -> api.ForwardResponse:
        async with asyncio.timeout(100):
            return await anext(self.answers)  # type: ignore[no-any-return]

    async def _requests(self) -> AsyncIterator[api.ForwardRequest]:
        while (request := await self._outbox.get()) is not None:
            yield request


@asynccontextmanager
async def connection(world: World, **target: Any) -> AsyncIterator[Connection]:
    made = Connection(world)
    if target:
        made.say(target=api.ForwardTarget(**{"name": "web", "port": 80} | target))
    async with aclosing(made.answers):  # type: ignore[type-var]
        yield made


async def met(world: World, **target: Any) -> str:
    """The replica that a new connection meets."""
    async with connection(world, **{"name": "web"} | target) as made:
        opened = (await made.next()).opened
        assert opened is not None
        return opened.replica


async def test_data_and_end_are_passed_both_ways(world: World) -> None:
    (one,) = await running(world, 1)
    async with connection(world, port=8080) as made:
        opened = (await made.next()).opened
        assert opened == api.ForwardOpened(replica="web/0", container_id=f"cl-{one}-0")
        made.say(data=b"hello")
        assert (await made.next()).data == b"hello"
        made.say(data=b"bye", end=True)
        last = await made.next()
        assert (last.data, last.end) == (b"bye", True)
    (target,) = world.agents["n1"].forwards
    assert target == api.ForwardTarget(container_id=f"cl-{one}-0", port=8080)


async def test_the_same_ready_replica_as_long_as_it_is_ready(world: World) -> None:
    one, _ = await running(world)
    assert [await met(world) for _ in range(3)] == ["web/0"] * 3
    agent = world.agents["n1"]
    agent.run(one, ready=False)
    await world.until(lambda: not world.cluster.observations[one].ready)
    assert await met(world) == "web/1"
    agent.run(one)
    await world.until(lambda: world.cluster.observations[one].ready)
    assert await met(world) == "web/0"


async def test_a_named_replica_need_not_be_ready(world: World) -> None:
    _, two = await running(world)
    world.agents["n1"].run(two, ready=False)
    await world.until(lambda: not world.cluster.observations[two].ready)
    for replica in ("1", two[:6]):
        assert await met(world, replica=replica) == "web/1"
    with pytest.raises(NotFound, match="no replica 9"):
        await met(world, replica="9")


async def test_nobody_is_ready(world: World) -> None:
    with pytest.raises(NotFound):
        await met(world)
    (one,) = await running(world, 1)
    agent = world.agents["n1"]
    agent.run(one, ready=False)
    await world.until(lambda: not world.cluster.observations[one].ready)
    with pytest.raises(PreconditionFailed, match="is ready: web/0 is running but not ready") as caught:
        await met(world)
    assert "--replica" in caught.value.hint
    agent.crash(one)
    with pytest.raises(PreconditionFailed, match="web/0 is backing off"):
        await world.until(lambda: world.cluster.observations[one].restarts == 1)
        await met(world)
    with pytest.raises(PreconditionFailed, match="replica 0 of workload default/web does not run"):
        await met(world, replica="0")


async def test_a_replica_that_was_not_probed_yet_is_worth_asking_for_again(world: World) -> None:
    (one,) = await running(world, 1)
    world.agents["n1"].run(one, ready=False, message=UNPROBED)
    await world.until(lambda: not world.cluster.observations[one].ready)
    with pytest.raises(Unavailable, match="web/0 waits for its first probe"):
        await met(world)
    assert await met(world, replica="0") == "web/0"


async def test_a_replica_that_went_a_moment_ago_is_passed_over(world: World) -> None:
    """Its node knows better than the store: the next one is tried before anybody notices."""
    await running(world)
    agent = world.agents["n1"]
    agent.forward_failures = [PreconditionFailed("replica web/0 does not run: it is stopping")]
    assert await met(world) == "web/1"
    agent.forward_failures = [
        PreconditionFailed("connection refused: the first"),
        NotFound("the second"),
    ]
    with pytest.raises(PreconditionFailed, match="the first"):
        await met(world)
    agent.forward_failures = [Exhausted("500 connections")]
    with pytest.raises(Exhausted):
        await met(world)


async def test_a_node_that_is_away(world: World) -> None:
    await running(world, 1)
    world.channels["n1"][1].close()
    await world.until(lambda: "bulk" not in world.coordinator.nodes._links["id-n1"].channels)
    with pytest.raises(Unavailable, match="n1 is not connected"):
        await met(world)


async def test_a_connection_ends_with_its_node(world: World) -> None:
    await running(world, 1)
    async with connection(world, port=80) as made:
        await made.next()
        world.cut("n1")
        with pytest.raises(Unavailable):
            await made.next()


async def test_a_connection_ends_with_the_coordinator(world: World) -> None:
    await running(world, 1)
    async with connection(world, port=80) as made:
        await made.next()
        waiting = asyncio.ensure_future(made.next())
        await asyncio.sleep(0)
        world.coordinator.closing.begin()
        with pytest.raises(Unavailable, match="is stopping"):
            await waiting


async def test_other_namespaces(world: World) -> None:
    await world.create("web", 1, namespace="prod")
    await world.until(lambda: any(one.ready for one in world.cluster.observations.values()))
    assert await met(world, namespace="prod") == "web/0"
    with pytest.raises(NotFound, match="default/web"):
        await met(world)


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"data": b"x"}, "target"),
        ({"end": True}, "target"),
        ({"target": {"name": "web", "port": 0}}, "target.port"),
        ({"target": {"name": "web", "port": 70_000}}, "target.port"),
        ({"target": {"name": "", "port": 80}}, "name"),
        ({"target": {"name": "web", "port": 80, "container_id": "cl-x-0"}}, "target.container_id"),
        ({"target": {"name": "web", "port": 80}, "data": b"x"}, "data"),
        ({"target": {"name": "web", "port": 80}, "end": True}, "data"),
    ],
)
async def test_bad_beginnings(world: World, fields: dict[str, Any], path: str) -> None:
    given = dict(fields)
    if "target" in given:
        given["target"] = api.ForwardTarget(**given["target"])
    async with connection(world) as made:
        made.say(**given)
        with pytest.raises(Invalid) as caught:
            await made.next()
    assert [violation.path for violation in caught.value.violations] == [path]


async def test_unknown_fields_are_refused(world: World) -> None:
    async with connection(world) as made:
        target = api.ForwardTarget(name="web", port=80)
        target._unknown_fields = b"\x50\x01"
        made.say(target=target)
        with pytest.raises(Invalid, match="does not know"):
            await made.next()


async def test_a_caller_that_says_nothing(world: World) -> None:
    async with connection(world) as made:
        with pytest.raises(DeadlineExceeded, match="no target was named within 10 s"):
            await made.next()


async def test_one_caller_may_not_take_everything(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        world.coordinator.service._forwarding, "_quota", Quota("connections", of_caller=1, in_all=2)
    )
    await running(world, 1)

    async def open_from(host: str) -> str:
        with calling(CallContext(method="Forward", peer=f"{host}:4000")):
            return await met(world)

    async with connection(world, port=80) as first:
        with calling(CallContext(method="Forward", peer="10.0.0.1:1")):
            await first.next()
        with pytest.raises(Exhausted, match=r"1 connections from 10\.0\.0\.1"):
            await open_from("10.0.0.1")
        assert await open_from("10.0.0.2") == "web/0"
        async with connection(world, port=80) as second:
            with calling(CallContext(method="Forward", peer="10.0.0.3:1")):
                await second.next()
            with pytest.raises(Exhausted, match="2 connections are open on this coordinator"):
                await open_from("10.0.0.4")
    assert world.coordinator.service._forwarding._quota.open == 0


def test_every_field_of_a_target_is_proved() -> None:
    proofs = {
        "namespace": test_other_namespaces,
        "name": test_nobody_is_ready,
        "replica": test_a_named_replica_need_not_be_ready,
        "port": test_data_and_end_are_passed_both_ways,
        "container_id": test_bad_beginnings,
    }
    assert set(api.ForwardTarget._betterproto.meta_by_field_name) == set(proofs)


def test_who_calls() -> None:
    for peer, host in (("10.0.0.1:80", "10.0.0.1"), ("[::1]:80", "[::1]"), ("unix", "unix")):
        with calling(CallContext(method="Forward", peer=peer)):
            assert current_caller() == host


def test_limits_fit_together() -> None:
    assert limits.MAX_FORWARDS_OF_CALLER <= limits.MAX_FORWARDS
    assert forwarding.MAX_FORWARD_TRIES > 1
