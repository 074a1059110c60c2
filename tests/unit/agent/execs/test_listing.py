"""What runs on a node by exec: listed, signalled, ended."""

from __future__ import annotations

import asyncio
import datetime
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from tests.unit.agent.execs.test_service import Call, called, started
from tests.unit.agent.virtual import virtual
from tests.unit.agent.world import World

from cloudless import api
from cloudless.agent.execs import limits
from cloudless.agent.execs.listing import shortened
from cloudless.agent.runtime.errors import RuntimeAway
from cloudless.agent.runtime.execport import ExecResult, ExecWish
from cloudless.agent.runtime.memoryexec import MemoryExec
from cloudless.domain.errors import Invalid, NotFound, Unavailable
from cloudless.transport.codec import encode
from cloudless.transport.limits import MAX_MESSAGE_BYTES


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def deaf(program: MemoryExec) -> int:
    """Until it is killed."""
    await asyncio.Event().wait()
    return 0


async def execs(world: World, **fields: Any) -> list[api.Exec]:
    return (await world.agent.service.list_execs(api.ListExecsRequest(**fields))).execs


async def kill(world: World, exec_id: str, **fields: Any) -> api.Exec:
    answer = await world.agent.service.kill_exec(api.KillExecRequest(exec_id=exec_id, **fields))
    assert answer.exec is not None
    return answer.exec


@virtual
async def test_an_attached_one_is_listed_and_ended(world: World) -> None:
    await started(world)
    now = world.clock.now()
    async with called(world, command=["forever", "a b"], user="u", tty=True) as call:
        begun = (await call.next()).started
        assert begun is not None
        (one,) = await execs(world)
        assert one == api.Exec(
            exec_id=begun.exec_id,
            namespace="default",
            replica="web/0",
            replica_id="r1",
            container_id="cl-r1-1",
            node="node-1",
            command=["forever", "a b"],
            user="u",
            tty=True,
            started_at=one.started_at,
            pid=1,
        )
        assert one.started_at is not None
        assert one.started_at >= now
        assert await execs(world, replica="r1") == await execs(world, container_id="cl-r1") == [one]
        assert await kill(world, begun.exec_id) == one
        assert (await call.rest())[-1].exit == api.ExecExit(exit_code=128 + 15)
    assert await execs(world) == []
    await world.kill()


@virtual
async def test_what_minds_no_signal_is_killed_after_its_grace(world: World) -> None:
    world.machine.commands["deaf"] = deaf
    await started(world)
    for grace, expected_s in ((None, limits.KILL_GRACE_S), (datetime.timedelta(seconds=60), 60.0)):
        async with called(world, command=["deaf"]) as call:
            begun = (await call.next()).started
            assert begun is not None
            since_s = world.clock.monotonic()
            await kill(world, begun.exec_id, grace_period=grace)
            assert world.clock.monotonic() - since_s == pytest.approx(expected_s, abs=0.5)
            assert (await call.rest())[-1].exit == api.ExecExit(exit_code=137)
    await world.kill()


@virtual
async def test_who_asked_for_the_end_may_leave(world: World) -> None:
    world.machine.commands["deaf"] = deaf
    await started(world)
    async with called(world, command=["deaf"]) as call:
        begun = (await call.next()).started
        assert begun is not None
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await kill(world, begun.exec_id)
        assert (await call.rest())[-1].exit == api.ExecExit(exit_code=137)
    await world.kill()


@virtual
async def test_one_signal_and_nothing_else(world: World) -> None:
    world.machine.commands["deaf"] = deaf
    await started(world)
    async with called(world, command=["deaf"]) as call:
        begun = (await call.next()).started
        assert begun is not None
        await kill(world, begun.exec_id[:3], signal=10)
        (program,) = world.machine.open_execs.values()
        assert program.signals == [10]
        await world.clock.sleep(100)
        assert len(await execs(world)) == 1
    await world.kill()


@virtual
async def test_detached_and_buffered_ones_too(world: World) -> None:
    await started(world)

    async def on_exec(container_id: str, request: Any) -> ExecResult:
        await asyncio.Event().wait()
        return ExecResult(0)

    world.machine.on_exec = on_exec
    call = Call(world)
    call.say(start=api.ExecStart(replica="r1", command=["forever"], detach=True))
    async with aclosing(call.answers):
        begun = (await call.next()).started
    assert begun is not None
    request = api.ExecCommandRequest(replica="r1", command=["buffered"])
    async with asyncio.TaskGroup() as group:
        command = group.create_task(world.agent.service.exec_command(request))
        await world.clock.sleep(1)
        first, second = await execs(world)
        assert (first.exec_id, first.command, first.detached) == (begun.exec_id, ["forever"], True)
        assert (second.command, second.detached) == (["buffered"], False)
        await kill(world, second.exec_id)
        assert command.done()
    assert command.result().exit_code == 128 + 15
    assert await kill(world, first.exec_id, grace_period=datetime.timedelta()) == first
    assert world.machine.detached[0].signals == [15, 9]
    assert await execs(world) == []
    await world.kill()


@virtual
async def test_one_that_is_lost_sight_of_is_listed_until_the_runtime_was_asked(world: World) -> None:
    await started(world)
    wish = ExecWish(("forever",), detach=True)
    first, second = (MemoryExec(f"x-{number}", wish, "cl-r1-1") for number in (1, 2))
    programs = world.agent.service._programs
    programs.adopt((first, second))
    for one in (first, second):
        one.ended.set_exception(RuntimeAway("gone"))
    await world.clock.sleep(1)
    assert [one.exec_id for one in await execs(world)] == ["x-1", "x-2"]
    again = MemoryExec("x-2", wish, "cl-r1-1")
    programs.adopt((again,))
    assert [one.exec_id for one in await execs(world)] == ["x-2"]
    programs.adopt(())
    assert [one.exec_id for one in await execs(world)] == ["x-2"], "it is looked after"
    again.finish(0)
    await world.clock.sleep(1)
    assert await execs(world) == []
    await world.kill()


@virtual
async def test_what_an_earlier_life_left_is_waited_for(world: World) -> None:
    world.machine.stop_answering("not up yet")
    await world.start()
    with pytest.raises(Unavailable, match="not known yet"):
        await execs(world)
    asked = asyncio.ensure_future(execs(world))
    await world.clock.sleep(1)
    world.machine.answer_again()
    assert await asked == []
    await world.kill()


@virtual
async def test_what_cannot_be_meant(world: World) -> None:
    await started(world)
    async with called(world, command=["forever"]) as one, called(world, command=["forever"]) as two:
        for call in (one, two):
            await call.next()
        with pytest.raises(NotFound, match="'nosuch'"):
            await kill(world, "nosuch")
        for fields, path in (
            ({"exec_id": ""}, "exec_id"),
            ({"exec_id": "x-"}, "exec_id"),
            ({"exec_id": "x-1", "signal": 65}, "signal"),
            ({"exec_id": "x-1", "signal": -1}, "signal"),
            ({"exec_id": "x-1", "grace_period": datetime.timedelta(seconds=-1)}, "grace_period"),
            ({"exec_id": "x-1", "grace_period": datetime.timedelta(seconds=601)}, "grace_period"),
            ({"exec_id": "x-1", "signal": 1, "grace_period": datetime.timedelta(1)}, "grace_period"),
            ({"exec_id": "x-1", "name": "web"}, "name"),
            ({"exec_id": "x-1", "namespace": "default"}, "namespace"),
        ):
            with pytest.raises(Invalid) as caught:
                await kill(world, **fields)  # type: ignore[arg-type]
            assert [one.path for one in caught.value.violations] == [path]
        for wrong in ({"name": "web"}, {"namespace": "default"}):
            with pytest.raises(Invalid):
                await execs(world, **wrong)
        with pytest.raises(NotFound):
            await execs(world, replica="nosuch")
    await world.kill()


def test_a_long_command_is_cut() -> None:
    words, cut = shortened(["sh", "-c", "ü" * 1000])
    assert cut
    assert sum(len(word.encode()) + 1 for word in words) <= limits.SHOWN_COMMAND_BYTES
    words, cut = shortened([""] * 1000)
    assert (len(words), cut) == (limits.SHOWN_COMMAND_BYTES, True)


def test_all_that_runs_on_a_node_fits_into_one_message() -> None:
    largest = api.Exec(
        exec_id="x-" + 16 * "y",
        namespace=63 * "y",
        replica=f"{63 * 'y'}/10000",
        replica_id=16 * "y",
        container_id=f"cl-{16 * 'y'}-1000000",
        node=253 * "y",
        command=[limits.SHOWN_COMMAND_BYTES * "y"],
        command_truncated=True,
        user=limits.SHOWN_USER_CHARS * "y",
        tty=True,
        detached=True,
        started_at=datetime.datetime.now(datetime.UTC),
        pid=2**31 - 1,
    )
    assert limits.MAX_PROGRAMS + limits.MAX_DETACHED <= limits.MAX_LISTED
    assert len(encode(api.ListExecsResponse(execs=limits.MAX_LISTED * [largest]))) < MAX_MESSAGE_BYTES
