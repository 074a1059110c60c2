"""Logs: from the right replicas on the right nodes, merged, resumed, and never too much in memory."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from tests.unit.coordinator.fakelogs import T0, FakeSource
from tests.unit.coordinator.world import Stream, World

from cloudless import api
from cloudless.coordinator import limits
from cloudless.coordinator.services.logstream import LogStreams
from cloudless.coordinator.services.quota import Quota
from cloudless.domain import loglines
from cloudless.domain.errors import Exhausted, Invalid, NotFound, Unavailable

K = api.LogMarkerKind
SPREAD = api.Placement(spread_topology=[api.SpreadRule(topology="node")])


class Lines:
    """What came out of a stream so far."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self.batches: list[api.LogBatch] = []
        self.cursors: dict[str, str] = {}

    async def next(self) -> api.LogBatch:
        batch: api.LogBatch = await self._stream.next()
        self.batches.append(batch)
        self.cursors |= {chunk.replica_id: chunk.cursor for chunk in batch.chunks if chunk.cursor}
        return batch

    async def rest(self) -> Lines:
        with suppress(StopAsyncIteration):
            while True:
                await self.next()
        return self

    async def until(self, *texts: str) -> Lines:
        while not set(texts) <= set(self.texts):
            await self.next()
        return self

    async def caught_up(self) -> Lines:
        while not any(batch.caught_up for batch in self.batches):
            await self.next()
        return self

    @property
    def chunks(self) -> list[api.LogChunk]:
        return [chunk for batch in self.batches for chunk in batch.chunks]

    @property
    def texts(self) -> list[str]:
        found = []
        for batch in self.batches:
            lines = [line for chunk in batch.chunks for line in chunk.lines.splitlines(keepends=True)]
            found += loglines.parse(b"".join(sorted(lines, key=lambda line: line[:30])))
        return [record.data.decode() for record in found]

    @property
    def kinds(self) -> list[str]:
        return [chunk.marker.kind.name or "" for chunk in self.chunks if chunk.marker is not None]

    def resume(self) -> api.LogResume:
        cursors = [api.LogCursor(replica_id=name, cursor=at) for name, at in self.cursors.items()]
        return api.LogResume(cursors=cursors)


@asynccontextmanager
async def logs(world: World, **request: Any) -> AsyncIterator[Lines]:
    if "label_selector" not in request:
        request.setdefault("name", "web")
    async with world.stream("stream_logs", api.StreamLogsRequest(**request)) as stream:
        yield Lines(stream)


async def read(world: World, **request: Any) -> Lines:
    async with logs(world, **request) as lines:
        return await lines.rest()


def fill(world: World, *, name: str = "web") -> None:
    """Give every replica a source on its node, without lines."""
    for agent in world.agents.values():
        for replica_id, assignment in agent.assignments.items():
            agent.logs.sources.setdefault(
                replica_id,
                FakeSource(assignment.workload_id, assignment.name, assignment.namespace, assignment.ordinal),
            )


async def running(world: World, replicas: int = 2, **fields: Any) -> list[FakeSource]:
    """The sources of the replicas of a workload "web" that runs, by ordinal."""
    await world.create("web", replicas, **fields)
    await world.until_ready("web", replicas)
    fill(world)
    return by_ordinal(world)


def by_ordinal(world: World) -> list[FakeSource]:
    found = [one for agent in world.agents.values() for one in agent.logs.sources.values() if not one.gone]
    return sorted(found, key=lambda one: one.ordinal)


def said(word: str, *seconds: float) -> list[tuple[float, bytes]]:
    return [(at, f"{word}{at}".encode()) for at in seconds]


# -- what there was --------------------------------------------------------------------


async def test_logs_of_all_replicas_are_in_order_of_time(world: World) -> None:
    one, two = await running(world)
    one.lines, two.lines = said("a", 1, 4, 5), said("b", 2, 3, 6)
    lines = await read(world)
    assert lines.texts == ["a1", "b2", "b3", "a4", "a5", "b6"]
    assert lines.batches[0].opened
    declared = {
        (chunk.source.name, chunk.source.ordinal) for chunk in lines.chunks if chunk.source is not None
    }
    assert declared == {("web", 0), ("web", 1)}


async def test_logs_of_several_nodes_are_in_order_of_time(world: World) -> None:
    await world.join("n2")
    one, two = await running(world, 2, placement=SPREAD)
    one.lines = said("a", *range(0, 40, 2))
    two.lines = said("b", *range(1, 20, 2), 19, 19, 19, 33)
    for agent in world.agents.values():
        agent.logs.step = 5
    lines = await read(world)
    assert sorted(lines.texts) == sorted(text.decode() for _, text in one.lines + two.lines)
    times = [float(text[1:]) for text in lines.texts]
    assert times == sorted(times)


async def test_a_merged_stream_can_be_resumed_after_every_batch(world: World) -> None:
    await world.join("n2")
    one, two = await running(world, 2, placement=SPREAD)
    one.lines = said("a", *range(0, 40, 2))
    two.lines = said("b", 1, 1, 3, 5, 5, 5, 5, 9, 22, 22)
    world.agents["n1"].logs.step, world.agents["n2"].logs.step = 7, 3
    whole = await read(world)
    cut = [chunk for chunk in whole.chunks if "@" in chunk.cursor]
    assert cut, "a chunk was passed on in parts"
    for stop in range(1, len(whole.batches)):
        async with logs(world) as begun:
            for _ in range(stop):
                await begun.next()
        rest = await read(world, resume=begun.resume())
        assert sorted(begun.texts + rest.texts) == sorted(whole.texts), stop


async def test_logs_of_one_replica(world: World) -> None:
    one, two = await running(world)
    one.lines, two.lines = said("a", 1), said("b", 2)
    (two_id,) = [name for name, each in world.agents["n1"].logs.sources.items() if each is two]
    for name in ("1", two_id[:5], two_id):
        assert (await read(world, replica=name)).texts == ["b2"]
    for name in ("7", "zzzz"):
        with pytest.raises(NotFound, match="has no replica"):
            await read(world, replica=name)


async def test_how_logs_are_asked_for_reaches_the_node(world: World) -> None:
    await running(world, 1)
    fields: dict[str, Any] = {
        "tail_lines": 0,
        "since": T0,
        "until": T0 + datetime.timedelta(seconds=9),
        "timestamps": True,
        "previous": True,
        "stream": "stderr",
        "include": ["a", "b"],
        "exclude": ["c"],
        "limit_bytes": 77,
        "current_only": True,
    }
    await read(world, **fields)
    asked = world.agents["n1"].logs.requests[0]
    assert {name: getattr(asked, name) for name in fields} == fields
    assert not asked.follow
    async with logs(world, follow=True) as lines:
        await lines.caught_up()
    assert world.agents["n1"].logs.requests[-1].follow


@pytest.mark.parametrize(
    ("what", "given"),
    [
        ("tail_lines", {"tail_lines": -1}),
        ("limit_bytes", {"limit_bytes": -1}),
        ("stream", {"stream": "stdin"}),
        ("include[1]", {"include": ["a", "("]}),
        ("exclude[0]", {"exclude": ["[z-a]"]}),
        ("include", {"include": ["a"] * 99}),
        ("previous", {"previous": True, "follow": True}),
        ("until", {"since": T0, "until": T0 - datetime.timedelta(seconds=1)}),
        ("resume.cursors[0].cursor", {"resume": api.LogResume(cursors=[api.LogCursor(cursor="x")])}),
        ("container_id", {"container_id": "c"}),
        ("label_selector", {"name": "web", "label_selector": "a=b"}),
        ("label_selector", {"label_selector": "a=b", "replica": "0"}),
        ("label_selector", {"label_selector": "a in b"}),
        ("name", {"name": ""}),
        ("replica", {"replica": "../x"}),
    ],
)
async def test_bad_requests_name_their_field(bare: World, what: str, given: dict[str, Any]) -> None:
    with pytest.raises(Invalid) as caught:
        await read(bare, **given)
    assert [one.path for one in caught.value.violations] == [what]


async def test_the_limit_counts_over_all_nodes(world: World) -> None:
    await world.join("n2")
    one, two = await running(world, 2, placement=SPREAD)
    one.lines, two.lines = said("a", 1, 3, 5), said("b", 2, 4, 6)
    lines = await read(world, limit_bytes=8)
    assert lines.texts == ["a1", "b2", "a3"[:2]]
    assert lines.kinds == ["LIMIT_REACHED"]
    assert loglines.parse(lines.chunks[-2].lines)[-1].partial
    assert lines.chunks[-2].cursor == ""


async def test_a_workload_without_placed_replicas_has_no_logs(bare: World) -> None:
    await bare.create("web", 2)
    assert (await read(bare)).chunks == []
    with pytest.raises(NotFound):
        await read(bare, name="nobody")


async def test_logs_of_another_namespace(world: World) -> None:
    await world.create("web", 1, namespace="prod")
    await world.until(lambda: any(one.ready for one in world.cluster.observations.values()))
    fill(world)
    by_ordinal(world)[0].lines = said("p", 1)
    assert (await read(world, namespace="prod")).texts == ["p1"]
    with pytest.raises(NotFound, match="default/web"):
        await read(world)


# -- what is gone ----------------------------------------------------------------------


async def test_replicas_that_are_gone_are_read_wherever_their_logs_are(world: World) -> None:
    await world.join("n2")
    (one,) = await running(world, 1)
    one.lines = said("new", 5)
    for name, number in (("n1", 1), ("n2", 2)):
        old = FakeSource(one.workload_id, lines=said(f"old{number}-", number), gone=True)
        world.agents[name].logs.sources[f"gone{number}"] = old
    assert (await read(world)).texts == ["old1-1", "old2-2", "new5"]
    assert (await read(world, current_only=True)).texts == ["new5"]
    assert (await read(world, replica="gone2")).texts == ["old2-2"]
    with pytest.raises(Invalid, match="beginning of several"):
        await read(world, replica="gone")


async def test_a_workload_that_is_gone_is_found_by_its_name(world: World) -> None:
    world.agents["n1"].logs.sources["x1"] = FakeSource("w-old", "gone", lines=said("g", 1), gone=True)
    assert (await read(world, name="gone")).texts == ["g1"]
    async with logs(world, name="gone", follow=True) as lines:
        assert (await lines.rest()).texts == ["g1"], "nothing is to come, so it ends"
    with pytest.raises(NotFound):
        await read(world, name="gone", replica="nope")


async def test_a_node_that_is_away_and_may_have_old_logs_is_named(world: World) -> None:
    await world.join("n2")
    (one,) = await running(world, 1, placement=api.Placement(node_selector={}))
    one.lines = said("a", 1)
    (where,) = [name for name, agent in world.agents.items() if agent.logs.sources]
    other = "n2" if where == "n1" else "n1"
    world.cut(other)
    await world.settle()
    lines = await read(world)
    assert (lines.texts, lines.kinds) == (["a1"], ["NODE_UNREACHABLE"])
    assert [chunk.marker.node for chunk in lines.chunks if chunk.marker is not None] == [other]
    assert (await read(world, current_only=True)).kinds == []


async def test_a_node_with_replicas_that_is_away_is_an_error_after_the_rest(world: World) -> None:
    await world.join("n2")
    one, two = await running(world, 2, placement=SPREAD)
    one.lines, two.lines = said("a", 1), said("b", 2)
    await world.pass_time(10)
    away = next(name for name, agent in world.agents.items() if two in agent.logs.sources.values())
    world.cut(away)
    await world.settle()
    async with logs(world) as lines:
        with pytest.raises(Unavailable, match=f"{away} is not connected"):
            await lines.rest()
        assert lines.texts == ["a1"]
        assert lines.kinds == ["NODE_UNREACHABLE"]


# -- what comes ------------------------------------------------------------------------


async def test_followed_logs_hold_replicas_that_come_later(world: World) -> None:
    (one,) = await running(world, 1)
    agent = world.agents["n1"]
    one.lines = said("a", 1, 2)
    async with logs(world, follow=True, tail_lines=5) as lines:
        assert (await lines.caught_up()).texts == ["a1", "a2"]
        await world.scale("web", 2)
        await world.until_ready("web", 2)
        fill(world)
        by_ordinal(world)[1].lines = said("b", 3)
        agent.logs.changed()
        await lines.until("b3")
        assert len(agent.logs.requests) == 1, "the node itself takes new replicas in"


async def test_a_followed_workload_is_read_on_nodes_that_join(world: World) -> None:
    one = (await running(world, 1))[0]
    one.lines = said("a", 1)
    async with logs(world, follow=True, tail_lines=5) as lines:
        await lines.caught_up()
        second = await world.join("n2")
        await world.scale("web", 6)
        await world.until_ready("web", 6)
        assert second.assignments, "some of them run on the new node"
        fill(world)
        for source in second.logs.sources.values():
            source.lines = said(f"new{source.ordinal}-", 5)
        second.logs.changed()
        await lines.until(*(f"new{source.ordinal}-5" for source in second.logs.sources.values()))
    asked = second.logs.requests[0]
    assert asked.follow
    assert asked.resume is not None, "so that they are read from their beginning"


async def test_a_followed_log_goes_on_when_its_node_is_back(world: World) -> None:
    (one,) = await running(world, 1)
    one.lines = said("a", 1, 2, 2)
    async with logs(world, follow=True) as lines:
        await lines.caught_up()
        world.cut("n1")
        await world.pass_time(1)
        one.lines += said("a", 3)
        await world.relink("n1")
        await lines.until("a3")
        assert lines.texts == ["a1", "a2", "a2", "a3"], "nothing is lost and nothing comes twice"
        assert lines.kinds == ["NODE_UNREACHABLE", "NODE_BACK"]


async def test_a_followed_node_may_be_away_at_the_beginning(world: World) -> None:
    (one,) = await running(world, 1)
    one.lines = said("a", 1)
    world.cut("n1")
    await world.settle()
    async with logs(world, follow=True) as lines:
        await lines.caught_up()
        while "NODE_UNREACHABLE" not in lines.kinds:
            await lines.next()
        await world.relink("n1")
        await lines.until("a1")
        assert [chunk.source.name for chunk in lines.chunks if chunk.source is not None] == ["web"]
        assert list(lines.cursors) == list(world.agents["n1"].logs.sources)


async def test_following_ends_with_the_workload(world: World) -> None:
    (one,) = await running(world, 1)
    one.lines = said("a", 1)
    async with logs(world, follow=True) as lines:
        await lines.caught_up()
        await world.delete("web")
        await world.until_gone("web")
        one.lines += said("last", 9)
        one.ended = True
        world.agents["n1"].logs.changed()
        await lines.rest()
        assert lines.texts == ["a1", "last9"]


@pytest.mark.parametrize("ahead_s", [0.5, 0, -0.5])
async def test_following_ends_with_until(world: World, ahead_s: float) -> None:
    (one,) = await running(world, 1)
    one.lines = said("a", 1)
    node = world.agents["n1"].logs
    until = world.clock.now() + datetime.timedelta(seconds=5)
    async with logs(world, follow=True, until=until) as lines:
        await lines.caught_up()
        ending = asyncio.ensure_future(lines.rest())
        await world.pass_time(4)
        assert not ending.done()
        await world.pass_time(1 - ahead_s)
        one.lines += said("last", 4)
        node.until_passed = True  # its clock may be ahead of the coordinator's, or behind
        node.changed()
        await world.pass_time(1)
        assert (await ending).texts == ["a1", "last4"]
    assert len(node.requests) == 1, "nobody is asked again"


async def test_following_until_does_not_wait_for_a_node_that_is_away(world: World) -> None:
    await running(world, 1)
    until = world.clock.now() + datetime.timedelta(seconds=5)
    async with logs(world, follow=True, until=until) as lines:
        await lines.caught_up()
        world.cut("n1")
        await world.pass_time(6)
        assert (await lines.rest()).kinds == ["NODE_UNREACHABLE"]


async def test_workloads_by_label_and_those_to_come(world: World) -> None:
    await world.create("web", 1)
    await world.call(
        "create_workload",
        api.CreateWorkloadRequest(name="api", labels={"tier": "back"}, spec=api.WorkloadSpec(image="a:1")),
    )
    await world.until_ready("api", 1)
    fill(world)
    for source in world.agents["n1"].logs.sources.values():
        source.lines = said(source.name, 1)
    assert (await read(world, label_selector="tier=back")).texts == ["api1"]
    assert (await read(world, label_selector="tier=nothing")).texts == []
    async with logs(world, label_selector="tier", follow=True) as lines:
        await lines.until("api1")
        await world.call(
            "create_workload",
            api.CreateWorkloadRequest(name="db", labels={"tier": "x"}, spec=api.WorkloadSpec(image="a:1")),
        )
        await world.until_ready("db", 1)
        fill(world)
        for source in world.agents["n1"].logs.sources.values():
            if source.name == "db":
                source.lines = said("db", 2)
        world.agents["n1"].logs.changed()
        await lines.until("db2")


async def test_a_coordinator_that_stops_ends_followed_logs(world: World) -> None:
    await running(world, 1)
    async with logs(world, follow=True) as lines:
        await lines.caught_up()
        waiting = asyncio.ensure_future(lines.next())
        await world.pass_time(0)
        world.coordinator.closing.begin()
        with pytest.raises(Unavailable, match="stopping"):
            await waiting


async def test_a_slow_reader_stops_the_node_and_not_the_memory(world: World) -> None:
    (one,) = await running(world, 1)
    logs_of_node = world.agents["n1"].logs
    one.lines = [(at, b"x" * 1000) for at in range(4000)]
    logs_of_node.step = 1
    taken = 0
    original = logs_of_node._rest

    def counted(known: dict[str, int]) -> Any:
        nonlocal taken
        for batch in original(known):
            taken += 1
            yield batch

    logs_of_node._rest = counted  # type: ignore[method-assign]
    async with logs(world) as lines:
        await lines.next()
        await lines.next()
        await world.pass_time(5)
        assert taken <= limits.LOG_BUFFER_BYTES // 1000 + 10
        await lines.rest()
    assert len(lines.texts) == 4000


async def test_too_many_sources_are_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloudless.coordinator.services.logstream.MAX_LOG_SOURCES", 1)
    await running(world, 2)
    with pytest.raises(Exhausted, match="more than 1 replicas"):
        await read(world)


async def test_only_so_many_readers_may_pause_for_long(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloudless.coordinator.services.logstream.MAX_PATIENT_LOGS", 2)
    patient = 0

    def count() -> None:
        nonlocal patient
        patient += 1

    monkeypatch.setattr("cloudless.coordinator.services.logstream.be_patient", count)
    await running(world, 1)
    for _ in range(2):
        async with logs(world, follow=True) as one, logs(world, follow=True) as two, logs(world) as three:
            for lines in (one, two, three):
                await lines.next()
    assert patient == 4, "two of three, and all is given back"


@pytest.mark.parametrize(("of_caller", "in_all"), [(1, 9), (9, 1)])
async def test_there_may_be_only_so_many_readers(world: World, of_caller: int, in_all: int) -> None:
    service = world.coordinator.service._logs
    assert isinstance(service, LogStreams)
    service._quota = Quota("readers of logs", of_caller=of_caller, in_all=in_all)
    await running(world, 1)
    async with logs(world, follow=True) as lines:
        await lines.next()
        with pytest.raises(Exhausted, match="1 readers of logs"):
            await read(world)
    await read(world)
    assert 1000 <= limits.MAX_LOG_STREAMS_OF_CALLER < limits.MAX_LOG_STREAMS


async def test_a_resumed_stream_gets_the_rest_of_what_is_gone_since(world: World) -> None:
    await world.join("n2")
    (one,) = await running(world, 1)
    one.lines = said("a", 1, 2)
    async with logs(world, follow=True, current_only=True) as lines:
        await lines.caught_up()
    old = FakeSource(one.workload_id, lines=said("old", 1, 2, 3), gone=True)
    unknown = FakeSource(one.workload_id, lines=said("unknown", 1), gone=True)
    for agent in world.agents.values():
        if one not in agent.logs.sources.values():
            agent.logs.sources |= {"left": old, "other": unknown}
    begun = lines.resume()
    begun.cursors.append(api.LogCursor(replica_id="left", cursor="1.1-2-0"))
    assert (await read(world, current_only=True, resume=begun)).texts == ["old3"]
