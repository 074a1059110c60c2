"""Logs and commands: through the coordinator to the right replica on the right node."""

from __future__ import annotations

import asyncio
import datetime

import pytest
from tests.unit.coordinator.world import Stream, World

from cloudless import api
from cloudless.coordinator import limits
from cloudless.domain.errors import NotFound, PreconditionFailed, Unavailable
from cloudless.domain.replica import ReplicaPhase

T0 = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


def entries(word: str, *seconds: float) -> list[api.LogEntry]:
    return [
        api.LogEntry(at=T0 + datetime.timedelta(seconds=at), stream="stdout", line=f"{word}{at}".encode())
        for at in seconds
    ]


async def everything(stream: Stream) -> list[api.LogEntry]:
    found = []
    while True:
        try:
            found.append(await stream.next())
        except StopAsyncIteration:
            return found


async def running(world: World, replicas: int = 2, **fields: object) -> list[str]:
    """Ids of the replicas of a workload "web" that runs, by ordinal."""
    await world.create("web", replicas, **fields)
    status = (await world.until_ready("web", replicas)).status
    assert status is not None
    return [replica.id for replica in status.replicas]


# -- logs ------------------------------------------------------------------------------


async def test_logs_of_all_replicas_are_in_order_of_time(world: World) -> None:
    one, two = await running(world)
    agent = world.agents["n1"]
    agent.logs = {one: entries("a", 1, 4, 5), two: entries("b", 2, 3, 6)}
    async with world.stream("stream_logs", api.StreamLogsRequest(name="web")) as stream:
        found = await everything(stream)
    assert [entry.line for entry in found] == [b"a1", b"b2", b"b3", b"a4", b"a5", b"b6"]
    assert {(entry.replica, entry.replica_id) for entry in found} == {("web/0", one), ("web/1", two)}


async def test_logs_of_one_replica(world: World) -> None:
    one, two = await running(world)
    world.agents["n1"].logs = {one: entries("a", 1), two: entries("b", 2)}
    for name in ("1", two[:5], two):
        async with world.stream("stream_logs", api.StreamLogsRequest(name="web", replica=name)) as stream:
            assert [entry.line for entry in await everything(stream)] == [b"b2"]
    for name in ("7", "zzzz"):
        async with world.stream("stream_logs", api.StreamLogsRequest(name="web", replica=name)) as stream:
            with pytest.raises(NotFound, match="has no replica"):
                await stream.next()


async def test_how_logs_are_asked_for_reaches_the_node(world: World) -> None:
    (one,) = await running(world, 1)
    since = T0 + datetime.timedelta(seconds=5)
    request = api.StreamLogsRequest(name="web", tail_lines=0, since=since, timestamps=True)
    async with world.stream("stream_logs", request) as stream:
        assert not await everything(stream)
    asked = world.agents["n1"].log_requests[0]
    assert (asked.replica, asked.tail_lines, asked.since, asked.timestamps) == (one, 0, since, True)
    assert not asked.follow


async def test_followed_logs_hold_replicas_that_come_later(world: World) -> None:
    (one,) = await running(world, 1)
    agent = world.agents["n1"]
    agent.logs = {one: entries("a", 1, 2)}
    request = api.StreamLogsRequest(name="web", follow=True, tail_lines=5)
    async with world.stream("stream_logs", request) as stream:
        assert [(await stream.next()).line for _ in range(2)] == [b"a1", b"a2"]
        following = asyncio.ensure_future(stream.next())
        agent.start_replicas = False
        await world.scale("web", 2)
        await world.until(lambda: len(agent.log_requests) == 2)
        asked = agent.log_requests[1]
        assert (asked.follow, asked.tail_lines) == (True, None), "a new replica is read from its beginning"
        following.cancel()
        await asyncio.wait({following})


async def test_a_followed_log_goes_on_when_its_node_is_back(world: World) -> None:
    (one,) = await running(world, 1)
    agent = world.agents["n1"]
    agent.logs = {one: entries("a", 1, 2, 2)}
    async with world.stream("stream_logs", api.StreamLogsRequest(name="web", follow=True)) as stream:
        assert [(await stream.next()).line for _ in range(3)] == [b"a1", b"a2", b"a2"]
        following = asyncio.ensure_future(stream.next())
        await world.pass_time(1)
        world.cut("n1")
        await world.pass_time(1)
        agent.logs = {one: entries("a", 1, 2, 2, 3)}
        await world.relink("n1")
        assert (await following).line == b"a3", "nothing is lost and nothing comes twice"
        assert agent.log_requests[-1].since == T0 + datetime.timedelta(seconds=2)


async def test_a_node_that_is_away_is_named_after_what_could_be_read(world: World) -> None:
    await world.join("n2")
    spread = api.Placement(spread_topology=[api.SpreadRule(topology="node")])
    await running(world, 2, placement=spread)
    for agent in world.agents.values():
        agent.logs = {replica_id: entries(agent.name, 1) for replica_id in agent.observed}
    await world.pass_time(10)
    world.cut("n2")
    await world.settle()
    async with world.stream("stream_logs", api.StreamLogsRequest(name="web")) as stream:
        assert (await stream.next()).line == b"n11"
        with pytest.raises(Unavailable, match="n2 is not connected"):
            await stream.next()


async def test_a_slow_reader_stops_the_node_and_not_the_memory(world: World) -> None:
    (one,) = await running(world, 1)
    agent = world.agents["n1"]
    given = 0

    async def endless(request: api.StreamLogsRequest):  # type: ignore[no-untyped-def]
        nonlocal given
        while True:
            given += 1
            yield entries("x", given)[0]

    agent.stream_logs = endless  # type: ignore[method-assign]
    async with world.stream("stream_logs", api.StreamLogsRequest(name="web")) as stream:
        await stream.next()
        await world.pass_time(5)
        assert given <= limits.LOG_BUFFER_ENTRIES + 5
        for _ in range(1000):
            await stream.next()
        assert given > 1000
    assert one


async def test_a_workload_without_placed_replicas_has_no_logs(bare: World) -> None:
    await bare.create("web", 2)
    async with bare.stream("stream_logs", api.StreamLogsRequest(name="web")) as stream:
        assert not await everything(stream)
    async with bare.stream("stream_logs", api.StreamLogsRequest(name="nobody")) as stream:
        with pytest.raises(NotFound):
            await stream.next()


# -- commands --------------------------------------------------------------------------


async def execute(world: World, **fields: object) -> api.ExecCommandResponse:
    fields.setdefault("command", ["true"])
    request = api.ExecCommandRequest(name="web", **fields)  # type: ignore[arg-type]
    return await world.call("exec_command", request)  # type: ignore[no-any-return]


async def test_a_command_runs_in_a_ready_replica(world: World) -> None:
    one, two = await running(world)
    agent = world.agents["n1"]
    answer = await execute(world)
    assert (answer.replica, answer.container_id) == ("web/0", f"cl-{one}-0")
    assert (answer.exit_code, answer.stdout) == (3, b"out")
    agent.run(one, ready=False)
    await world.until(lambda: not world.cluster.observations[one].ready)
    assert (await execute(world)).container_id == f"cl-{two}-0"


async def test_a_command_runs_in_the_replica_that_is_named(world: World) -> None:
    _, two = await running(world)
    for replica in ("1", two[:6]):
        assert (await execute(world, replica=replica)).replica == "web/1"
    with pytest.raises(NotFound, match="no replica 9"):
        await execute(world, replica="9")


async def test_everything_about_a_command_reaches_the_node(world: World) -> None:
    await running(world, 1)
    fields = {
        "command": ["sh", "-c", "id"],
        "env": {"A": "1"},
        "working_dir": "/srv",
        "user": "1000:1000",
        "timeout": datetime.timedelta(seconds=7),
        "output_limit_bytes": 1000,
        "stdin": b"input",
    }
    await execute(world, **fields)
    asked = world.agents["n1"].execs[0]
    assert {name: getattr(asked, name) for name in fields} == fields
    await execute(world)
    by_default = world.agents["n1"].execs[1]
    assert by_default.timeout == limits.EXEC_TIMEOUT
    assert by_default.output_limit_bytes == limits.EXEC_OUTPUT_BYTES


async def test_a_command_needs_a_replica_that_runs(world: World) -> None:
    with pytest.raises(NotFound):
        await execute(world)
    (one,) = await running(world, 1)
    agent = world.agents["n1"]
    agent.crash(one)
    await world.until(lambda: world.cluster.observations[one].phase is ReplicaPhase.BACKING_OFF)
    with pytest.raises(PreconditionFailed, match="web/0 is backing_off"):
        await execute(world)


async def test_a_command_on_a_node_that_is_away(world: World) -> None:
    await running(world, 1)
    world.channels["n1"][1].close()
    await world.until(lambda: "bulk" not in world.coordinator.nodes._links["id-n1"].channels)
    with pytest.raises(Unavailable, match="n1 is not connected"):
        await execute(world)


async def test_logs_and_exec_of_another_namespace(world: World) -> None:
    await world.create("web", 1, namespace="prod")
    await world.settle()
    await world.until(lambda: any(one.ready for one in world.cluster.observations.values()))
    assert (await execute(world, namespace="prod")).replica == "web/0"
    with pytest.raises(NotFound, match="default/web"):
        await execute(world)
    async with world.stream("stream_logs", api.StreamLogsRequest(namespace="prod", name="web")) as stream:
        assert not await everything(stream)
