"""StreamLogs and ReadLogs of an agent in memory, whose containers' loggers are in this process."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.unit.agent.world import World, assignment

from cloudless import api
from cloudless.agent.logs import logger
from cloudless.agent.logs.index import LogAbout
from cloudless.agent.output import split_id
from cloudless.domain import loglines
from cloudless.domain.errors import Invalid, NotFound

K = api.LogMarkerKind
RESTART_AT_ONCE = {"restart_policy": {"backoff": {"base": "0s"}}}
SOON_S = 5.0
T0 = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    yield made
    if made._agent is not None:
        await made.kill()


class Container:
    """What writes the log of the container of a replica that runs."""

    def __init__(self, world: World, replica_id: str = "r1") -> None:
        self.id = world.container(replica_id).fact.id
        self._world = world
        folder = world.config.folder / "logs" / replica_id / str(split_id(self.id)[1])
        self._log = logger.Log(str(folder), 10**7, 5)
        self._log.put(b"", 0)

    def write(self, text: bytes, stream: bytes = b"stdout") -> None:
        assert logger.take(self._log, stream, text) == b""

    def end(self, code: int, **how: Any) -> None:
        """The process ends, and the logger behind it."""
        self._world.machine.end(self.id, code, **how)
        self.close()

    def close(self) -> None:
        self._log.end()
        logger.os.close(self._log.fd)


class Lines:
    """What ReadLogs said so far."""

    def __init__(self, batches: Any) -> None:
        self._batches = batches
        self.chunks: list[api.LogChunk] = []
        self.is_caught_up = False
        self.ended = False

    async def next(self) -> None:
        try:
            async with asyncio.timeout(SOON_S):
                batch = await anext(self._batches)
        except StopAsyncIteration:
            self.ended = True
        else:
            self.chunks += batch.chunks
            self.is_caught_up |= batch.caught_up

    async def rest(self) -> Lines:
        while not self.ended:
            await self.next()
        return self

    async def until(self, *wanted: str) -> Lines:
        """Lines, or kinds of markers."""
        while not set(wanted) <= {*self.texts, *self.kinds}:
            assert not self.ended
            await self.next()
        return self

    async def caught_up(self) -> Lines:
        while not self.is_caught_up:
            await self.next()
        return self

    @property
    def texts(self) -> list[str]:
        return [one.data.decode() for chunk in self.chunks for one in loglines.parse(chunk.lines)]

    @property
    def kinds(self) -> list[str]:
        return [str(chunk.marker.kind.name) for chunk in self.chunks if chunk.marker is not None]

    @property
    def sources(self) -> dict[str, api.LogSource]:
        return {chunk.replica_id: chunk.source for chunk in self.chunks if chunk.source is not None}

    def resume(self) -> api.LogResume:
        last = {chunk.replica_id: chunk.cursor for chunk in self.chunks if chunk.cursor}
        return api.LogResume(
            cursors=[api.LogCursor(replica_id=name, cursor=cursor) for name, cursor in last.items()]
        )


@asynccontextmanager
async def logs(world: World, **request: Any) -> AsyncIterator[Lines]:
    if not request.keys() & {"name", "workload_ids"}:
        request["workload_ids"] = ["w1"]
    async with aclosing(world.agent.service.read_logs(api.ReadLogsRequest(**request))) as batches:
        yield Lines(batches)


async def read(world: World, **request: Any) -> Lines:
    async with logs(world, **request) as lines:
        return await lines.rest()


async def entries(world: World, **request: Any) -> list[api.LogEntry]:
    async with (
        asyncio.timeout(SOON_S),
        aclosing(world.agent.service.stream_logs(api.StreamLogsRequest(**request))) as found,
    ):
        return [entry async for entry in found]


async def started(world: World, *replicas: str, **spec: Any) -> list[Container]:
    told = [assignment(name, ordinal=number, **spec) for number, name in enumerate(replicas)]
    await world.start(*told)
    for name in replicas:
        await world.until_running(name)
    return [Container(world, name) for name in replicas]


# -- whose logs ------------------------------------------------------------------------


async def test_replicas_of_a_workload_by_id_or_name(world: World) -> None:
    one, two = await started(world, "r1", "r2")
    one.write(b"one\n")
    two.write(b"two\n")
    assert sorted((await read(world)).texts) == ["one", "two"]
    assert sorted((await read(world, namespace="default", name="web")).texts) == ["one", "two"]
    assert (await read(world, replica="1")).texts == ["two"]
    assert (await read(world, replica="r1")).texts == ["one"]
    assert (await read(world, workload_ids=["other"])).chunks == []
    assert (await read(world, namespace="prod", name="web")).chunks == []
    sources = (await read(world, tail_lines=0)).sources
    told = sources["r2"]
    assert (
        told.namespace,
        told.name,
        told.ordinal,
        told.workload_id,
        told.revision,
        told.node,
        told.gone,
    ) == (
        "default",
        "web",
        1,
        "w1",
        1,
        "node-1",
        False,
    )


async def test_a_replica_that_is_gone_stays_readable_also_for_the_next_agent(world: World) -> None:
    (one,) = await started(world, "r1")
    one.write(b"last words\n")
    await world.tell(assignment("r1", run=False))
    one.close()
    await world.until_gone("r1")
    for _ in range(2):
        lines = await read(world)
        assert (lines.texts, lines.sources["r1"].gone) == (["last words"], True)
        assert lines.kinds == ["STARTED", "EXITED", "SOURCE_ENDED"]
        assert (await read(world, current_only=True)).chunks == []
        await world.kill()
        await world.start()


async def test_of_very_many_that_are_gone_the_newest_are_read(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloudless.agent.streaming.MAX_GONE_SOURCES", 2)
    await world.start()
    store = world.agent.service._streamer._store
    for number in (3, 1, 4, 2):
        name = f"gone{number}"
        store.prepare(name, 1, LogAbout(name, "default", "web", number, "w1", 1), started_ns=number)
        store.ended(name, number)
    lines = await read(world)
    assert set(lines.sources) == {"gone3", "gone4"}
    assert lines.kinds.count("LEFT_OUT") == 1
    assert set((await read(world, replica="gone1")).sources) == {"gone1"}
    assert (await read(world, current_only=True)).kinds == []
    cursor = api.LogCursor(replica_id="gone1", cursor="1.0-0-0")
    resumed = await read(world, current_only=True, resume=api.LogResume(cursors=[cursor]))
    assert set(resumed.sources) == {"gone1"}


async def test_a_source_that_began_on_an_older_program_has_no_name(world: World) -> None:
    folder = world.config.folder / "logs" / "old" / "1"
    folder.mkdir(parents=True)
    (folder / "0000000001-0000000000000000.log").write_bytes(loglines.time_text(1) + b" stdout F x\n")
    await world.start()
    assert (await read(world, namespace="default", name="web")).chunks == []
    assert [entry.line for entry in await entries(world, replica="old")] == [b"x"]


# -- what happens ----------------------------------------------------------------------


async def test_ends_and_restarts_are_told_as_they_happen(world: World) -> None:
    (one,) = await started(world, "r1", **RESTART_AT_ONCE)
    async with logs(world, follow=True) as lines:
        await lines.caught_up()
        one.write(b"before\n")
        await lines.until("before")
        one.end(137, out_of_memory=True)
        await world.until_running("r1", restarts=1)
        again = Container(world)
        again.write(b"after\n")
        await lines.until("after", "EXITED", "RESTARTED")
        assert lines.kinds == ["STARTED", "EXITED", "RESTARTED"]
        (exited,) = [one.marker for one in lines.chunks if one.marker and one.marker.kind == K.EXITED]
        assert exited.exit is not None
        assert (exited.exit.code, exited.exit.signal, exited.exit.oom_killed) == (137, 9, True)
        await world.tell(assignment("r1", run=False, **RESTART_AT_ONCE))
        again.close()
        await lines.until("SOURCE_ENDED")
    assert (await read(world, previous=True)).texts == ["before"]


async def test_an_end_is_told_while_the_replica_waits_for_its_next_try(world: World) -> None:
    (one,) = await started(world, "r1")
    async with logs(world, follow=True) as lines:
        await lines.caught_up()
        one.write(b"words\n")
        world.machine.end(one.id, 1)  # and the logger lives on
        await lines.until("words", "EXITED")
        assert lines.kinds == ["STARTED", "EXITED"]
    one.close()


async def test_a_replica_to_come_is_taken_in(world: World) -> None:
    (one,) = await started(world, "r1")
    one.write(b"old\n")
    async with logs(world, follow=True, tail_lines=0) as lines:
        await lines.caught_up()
        await world.tell(assignment("r2", ordinal=1))
        await world.until_running("r2")
        Container(world, "r2").write(b"new\n")
        await lines.until("new")
        assert (lines.texts, set(lines.sources)) == (["new"], {"r1", "r2"})


async def test_following_goes_on_with_another_agent(world: World) -> None:
    (one,) = await started(world, "r1")
    one.write(b"one\n")
    async with logs(world, follow=True) as lines:
        await lines.until("one")
        resume = lines.resume()
    await world.kill()
    one.write(b"two\n")
    await world.start(assignment("r1"))
    async with logs(world, follow=True, resume=resume, tail_lines=0) as lines:
        await lines.until("two")
        one.write(b"three\n")
        await lines.until("three")
        assert (lines.texts, lines.kinds) == (["two", "three"], [])


async def test_who_resumes_gets_the_rest_of_what_is_gone_since(world: World) -> None:
    (one,) = await started(world, "r1")
    one.write(b"one\n")
    async with logs(world, follow=True, current_only=True) as lines:
        await lines.until("one")
        resume = lines.resume()
    one.write(b"two\n")
    await world.tell(assignment("r1", run=False))
    one.close()
    await world.until_gone("r1")
    rest = await read(world, current_only=True, resume=resume)
    assert (rest.texts, rest.kinds) == (["two"], ["EXITED", "SOURCE_ENDED"])
    again = await read(world, current_only=True, resume=rest.resume())
    assert (again.texts, again.kinds) == ([], [])


async def test_a_dead_logger_is_told_in_the_log_and_by_an_event(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloudless.agent.loggers.LOGGER_CHECK_S", 0.01)
    (one,) = await started(world, "r1")
    one.write(b"one\n")
    (world.config.folder / "logs" / "r1" / "1" / "alive").touch()  # and nobody holds its lock
    async with logs(world, follow=True) as lines:
        await lines.until("one", "LOGGER_LOST")
        assert "EXITED" not in lines.kinds
    while "LoggerLost" not in world.reasons():
        await asyncio.sleep(0.01)


# -- which lines -----------------------------------------------------------------------


async def test_every_field_of_read_logs_has_an_effect(world: World) -> None:
    (one,) = await started(world, "r1", **RESTART_AT_ONCE)
    one.write(b"first\n")
    one.end(1)
    await world.until_running("r1", restarts=1)
    again = Container(world)
    again.write(b"good\nbad\n")
    again.write(b"error\n", b"stderr")
    everything = ["first", "good", "bad", "error"]
    assert (await read(world)).texts == everything
    assert (await read(world, tail_lines=2)).texts == ["bad", "error"]
    assert (await read(world, since=T0)).texts == everything
    assert (await read(world, since=T0 + datetime.timedelta(days=9999))).texts == []
    assert (await read(world, until=T0)).texts == []
    assert (await read(world, previous=True)).texts == ["first"]
    assert (await read(world, stream="stderr")).texts == ["error"]
    assert (await read(world, include=["o"], exclude=["^g"])).texts == ["error"]
    assert (await read(world, limit_bytes=6)).texts == ["first"]
    assert (await read(world, timestamps=True)).texts[0].endswith("Z first")
    begun = await read(world, limit_bytes=6)
    assert (await read(world, resume=begun.resume())).texts == everything[1:]
    again.close()


@pytest.mark.parametrize(
    ("path", "request_"),
    [
        ("workload_ids", api.ReadLogsRequest()),
        ("workload_ids", api.ReadLogsRequest(workload_ids=["w"], name="web")),
        ("tail_lines", api.ReadLogsRequest(name="web", tail_lines=-1)),
        ("stream", api.ReadLogsRequest(name="web", stream="both")),
        ("include[0]", api.ReadLogsRequest(name="web", include=["("])),
        ("previous", api.ReadLogsRequest(name="web", previous=True, follow=True)),
        (
            "resume.cursors[0].cursor",
            api.ReadLogsRequest(name="web", resume=api.LogResume(cursors=[api.LogCursor(cursor="1")])),
        ),
        ("name", api.StreamLogsRequest(name="web")),
        ("namespace", api.StreamLogsRequest(container_id="cl-r1-1", namespace="default")),
        ("label_selector", api.StreamLogsRequest(container_id="cl-r1-1", label_selector="a")),
        ("resume", api.StreamLogsRequest(container_id="cl-r1-1", resume=api.LogResume())),
        ("current_only", api.StreamLogsRequest(container_id="cl-r1-1", current_only=True)),
        ("container_id", api.StreamLogsRequest()),
        ("limit_bytes", api.StreamLogsRequest(container_id="cl-r1-1", limit_bytes=-1)),
    ],
)
async def test_bad_requests_name_their_field(world: World, path: str, request_: Any) -> None:
    await started(world, "r1")
    service = world.agent.service
    call = service.read_logs if isinstance(request_, api.ReadLogsRequest) else service.stream_logs
    with pytest.raises(Invalid) as caught:
        async with aclosing(call(request_)) as answers:  # type: ignore[arg-type]
            await anext(answers)
    assert [one.path for one in caught.value.violations] == [path]


async def test_entries_of_one_container(world: World) -> None:
    (one,) = await started(world, "r1", **RESTART_AT_ONCE)
    one.write(b"first\n")
    one.end(1)
    await world.until_running("r1", restarts=1)
    again = Container(world)
    again.write(b"second\n")
    again.write(b"oops\n", b"stderr")
    (entry,) = await entries(world, container_id=one.id)
    assert (entry.line, entry.stream, entry.replica, entry.container_id) == (
        b"first",
        "stdout",
        "web/0",
        one.id,
    )
    assert [one.line for one in await entries(world, replica="r1")] == [b"first", b"second", b"oops"]
    assert [one.line for one in await entries(world, replica="r1", tail_lines=1)] == [b"oops"]
    assert [one.line for one in await entries(world, replica="r1", stream="stderr")] == [b"oops"]
    assert [one.line for one in await entries(world, replica="r1", previous=True)] == [b"first"]
    assert [one.line for one in await entries(world, replica="r1", include=["sec"])] == [b"second"]
    assert [one.line for one in await entries(world, replica="r1", exclude=["s"])] == []
    assert [one.line for one in await entries(world, replica="r1", limit_bytes=4)] == [b"firs"]
    assert [one.line for one in await entries(world, replica="r1", until=T0)] == []
    assert [len(one.line) for one in await entries(world, container_id=one.id, timestamps=True)] == [36]
    followed = asyncio.ensure_future(entries(world, container_id=again.id, follow=True))
    again.end(0)
    assert [one.line for one in await followed] == [b"second", b"oops"], "it ends with the container"
    with pytest.raises(NotFound):
        await entries(world, container_id="cl-nobody")


def test_every_field_of_the_nodes_requests_is_named_here() -> None:
    text = Path(__file__).read_text()
    for message in (api.ReadLogsRequest, api.StreamLogsRequest):
        for name in message._betterproto.meta_by_field_name:
            assert f"{name}=" in text, f"{message.__name__}.{name}: no test here speaks of it"
