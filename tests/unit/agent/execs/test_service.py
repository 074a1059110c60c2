"""Exec on an agent in memory: called directly, as the server would."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.unit.agent.virtual import virtual
from tests.unit.agent.world import World, assignment

from cloudless import api
from cloudless.agent.execs import limits
from cloudless.agent.execs.attach import Attachments
from cloudless.agent.logs.reader import ReadOptions
from cloudless.agent.logs.record import LogBatch
from cloudless.agent.runtime.execport import ExecEnd, ExecWish
from cloudless.agent.runtime.memoryexec import MemoryExec
from cloudless.domain.errors import CloudlessError, Exhausted, Invalid, NotFound, Unavailable
from cloudless.domain.logrecord import LogCursor
from cloudless.transport.context import CALLER_KEY, CallContext, calling


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


class Call:
    """One call; ``say`` something, wait for what comes ``next``."""

    def __init__(self, world: World, method: str = "exec") -> None:
        self._outbox: asyncio.Queue[api.ExecRequest | Exception | None] = asyncio.Queue()
        self.answers = getattr(world.agent.service, method)(self._requests())

    def say(self, **fields: Any) -> None:
        self._outbox.put_nowait(api.ExecRequest(**fields))

    def break_off(self, error: Exception) -> None:
        self._outbox.put_nowait(error)

    def end(self) -> None:
        self._outbox.put_nowait(None)

    async def next(self) -> api.ExecResponse:
        async with asyncio.timeout(1000):
            return await anext(self.answers)  # type: ignore[no-any-return]

    async def rest(self) -> list[api.ExecResponse]:
        async with asyncio.timeout(1000):
            return [answer async for answer in self.answers]

    async def _requests(self) -> AsyncIterator[api.ExecRequest]:
        while (request := await self._outbox.get()) is not None:
            if isinstance(request, Exception):
                raise request
            yield request


@asynccontextmanager
async def called(world: World, **fields: Any) -> AsyncIterator[Call]:
    call = Call(world)
    call.say(start=api.ExecStart(**{"replica": "r1", "command": ["echo"], "stdin": True} | fields))
    async with aclosing(call.answers):
        yield call


async def echo(program: MemoryExec) -> int:
    """Says what it reads, and ends with its input."""
    while data := await program.stdin.read():
        await program.say(data)
    await program.say(b"bye", "stderr")
    return 3


async def forever(program: MemoryExec) -> int:
    """Until it is signalled."""
    await program.signalled.wait()
    return 128 + program.signals[-1]


async def shout(program: MemoryExec) -> int:
    """Writes for ever."""
    while True:
        await program.say(b"x" * 1000)


async def started(world: World) -> None:
    world.machine.commands.update(echo=echo, forever=forever, shout=shout)
    await world.start(assignment())
    await world.until_running()


def only(world: World) -> MemoryExec:
    (program,) = world.machine.open_execs.values()
    return program


@virtual
async def test_all_of_a_program(world: World) -> None:
    await started(world)
    async with called(world, command=["echo", "x"], env={"A": "1"}, working_dir="/w", user="u") as call:
        begun = (await call.next()).started
        assert begun is not None
        assert (begun.replica, begun.replica_id, begun.node) == ("web/0", "r1", "node-1")
        assert begun.exec_id == only(world).exec_id
        assert only(world).wish == ExecWish(("echo", "x"), ("A=1",), "/w", "u", stdin=True)
        call.say(stdin=b"one")
        assert (await call.next()).stdout == b"one"
        call.say(stdin_close=api.ExecStdinClose())
        err, end = await call.rest()
        assert (err.stderr, end.exit) == (b"bye", api.ExecExit(exit_code=3))
    assert not world.machine.open_execs
    await world.kill()


@virtual
async def test_the_end_of_the_messages_is_the_end_of_input(world: World) -> None:
    await started(world)
    async with called(world) as call:
        await call.next()
        call.end()
        assert (await call.rest())[-1].exit == api.ExecExit(exit_code=3)
    await world.kill()


@virtual
async def test_a_terminal(world: World) -> None:
    await started(world)
    size = api.TerminalSize(rows=30, columns=100)
    async with called(world, command=["forever"], tty=True, size=size) as call:
        begun = (await call.next()).started
        assert begun is not None
        assert begun.tty
        call.say(resize=api.TerminalSize(rows=1, columns=2))
        call.say(signal=2)
        assert [answer.exit.exit_code for answer in await call.rest() if answer.exit] == [130]
    async with called(world, command=["forever"], tty=True) as call:
        await call.next()
        assert only(world).sizes == [limits.DEFAULT_SIZE]
    await world.kill()


@virtual
async def test_what_cannot_be_run(world: World) -> None:
    await started(world)
    async with called(world, command=["nosuch"]) as call:
        (answer,) = await call.rest()
        assert answer.exit is not None
        assert (answer.exit.exit_code, answer.exit.reason) == (127, "CannotExecute")
    async with called(world, command=["nosuch"], detach=True, stdin=False) as call:
        (answer,) = await call.rest()
        assert answer.exit is not None
    await world.kill()


@virtual
async def test_time_is_up(world: World) -> None:
    await started(world)
    async with called(world, command=["forever"], timeout=datetime.timedelta(seconds=5)) as call:
        end = (await call.rest())[-1].exit
        assert end is not None
        assert (end.exit_code, end.reason, end.message) == (143, "TimedOut", "its time was up after 5 s")
    await world.kill()


@virtual
async def test_leaving_ends_it_and_makes_room(world: World) -> None:
    await started(world)
    places = world.agent.service._programs._places
    places.limit = 1
    async with called(world, command=["shout"]) as call:
        await call.next()
        with pytest.raises(Exhausted, match="1 programs"):
            async with called(world) as second:
                await second.next()
        # Nobody reads: its output waits in a small box, and then it does.
        await world.clock.sleep(10)
        pipe = only(world).stdout
        assert pipe is not None
        assert pipe.waiting <= 4
        assert places.taken == 1
    while places.taken:
        await world.clock.sleep(0.01)
    assert not world.machine.open_execs
    await world.kill()


@virtual
async def test_a_detached_one_is_not_the_callers(world: World) -> None:
    await started(world)
    async with called(world, command=["forever"], detach=True, stdin=False) as call:
        (answer,) = await call.rest()
        assert answer.started is not None
    await world.kill()


@virtual
async def test_detached_ones_have_a_limit_for_each_caller(world: World) -> None:
    await started(world)
    places = world.agent.service._programs._detached
    assert 2 * places.of_caller <= places.limit
    places.of_caller, places.limit = 2, 3

    async def detach(caller: str, command: str = "forever") -> list[api.ExecResponse]:
        with calling(CallContext("/Exec", "", metadata={CALLER_KEY: caller})):
            call = Call(world)
            call.say(start=api.ExecStart(replica="r1", command=[command], detach=True))
            return await call.rest()

    # The limit must hold while they wait for their start, too.
    async with asyncio.TaskGroup() as group, AsyncExitStack() as busy:
        for _ in range(limits.CONCURRENT_STARTS):
            await busy.enter_async_context(world.agent.service._programs._starts)
        tries = [group.create_task(refusal(detach("one"))) for _ in range(5)]
        await world.clock.sleep(1)
    refused = [one.result() for one in tries if one.result()]
    assert [("2 detached programs" in one, "for one" in one) for one in refused] == 3 * [(True, True)]
    assert (await detach("two"))[0].started is not None
    assert "3 detached programs" in await refusal(detach("two"))
    places.limit = 4
    assert (await detach("two", "nosuch"))[0].exit is not None
    assert places.taken == 3, "what could not be run has no place"
    for program in world.machine.detached:
        program.ended.set_result(ExecEnd(0))
    while places.taken:
        await world.clock.sleep(0.01)
    await world.kill()


async def refusal(call: Coroutine[Any, Any, Any]) -> str:
    """What the node says to it when it has no room; else empty."""
    try:
        await call
    except Exhausted as error:
        return error.message
    return ""


@virtual
async def test_attached_callers_have_a_limit(world: World) -> None:
    world.machine.commands.update(echo=echo)
    await world.start(assignment(stdin=True))
    await world.until_running()
    places = world.agent.service._attachments._places
    places.limit = 1
    first, second = Call(world, "attach"), Call(world, "attach")
    for call in (first, second):
        call.say(attach=api.AttachStart(replica="r1"))
    async with aclosing(first.answers):
        await first.next()
        with pytest.raises(Exhausted, match="1 callers are attached"):
            await second.next()
    assert places.taken == 0
    await world.kill()


BAD: list[tuple[dict[str, Any], str]] = [
    ({"command": []}, "start.command"),
    ({"command": ["x"], "working_dir": "relative"}, "start.working_dir"),
    ({"env": {"A=B": "x"}}, "start.env"),
    ({"user": "a\0b"}, "start.user"),
    ({"size": api.TerminalSize(rows=1, columns=1)}, "start.size"),
    ({"tty": True, "size": api.TerminalSize(rows=0, columns=1)}, "start.size.rows"),
    ({"tty": True, "size": api.TerminalSize(rows=1, columns=70000)}, "start.size.columns"),
    ({"detach": True}, "start.stdin"),
    ({"detach": True, "stdin": False, "tty": True}, "start.tty"),
    ({"name": "web"}, "start.name"),
]


@virtual
async def test_bad_beginnings(world: World) -> None:
    await started(world)
    for fields, path in BAD:
        with pytest.raises(Invalid) as caught:
            async with called(world, **fields) as call:
                await call.next()
        assert path in {one.path for one in caught.value.violations}, fields
    for fields in ({"attach": api.AttachStart(replica="r1")}, {"stdin": b"x"}):
        call = Call(world)
        call.say(**fields)
        with pytest.raises(Invalid):
            await call.next()
    for replica in ("nosuch", ""):
        with pytest.raises((NotFound, Invalid)):
            async with called(world, replica=replica) as call:
                await call.next()
    call = Call(world)
    with pytest.raises(Invalid, match="within"):
        await call.next()  # says nothing
    await world.kill()


@virtual
async def test_bad_messages_end_the_call_and_the_program(world: World) -> None:
    await started(world)
    bad: list[dict[str, Any]] = [
        {"start": api.ExecStart(command=["x"])},
        {"attach": api.AttachStart()},
        {},
        {"stdin": b"x", "signal": 1},
        {"stdin": b"x" * (limits.MAX_STDIN_BYTES + 1)},
        {"signal": 0},
        {"signal": 65},
        {"resize": api.TerminalSize(rows=1)},
    ]
    for fields in bad:
        with pytest.raises(Invalid):
            async with called(world, command=["forever"]) as call:
                await call.next()
                call.say(**fields)
                await call.rest()
    with pytest.raises(Invalid, match=r"stdin: needs start\.stdin"):
        async with called(world, command=["forever"], stdin=False) as call:
            await call.next()
            call.say(stdin=b"x")
            await call.rest()
    async with called(world, command=["forever"]) as call:
        await call.next()
        call.break_off(Unavailable("the caller's connection broke"))
        with pytest.raises(CloudlessError):
            await call.rest()
    while world.machine.open_execs:
        await world.clock.sleep(0.01)
    await world.kill()


async def test_who_is_attached_is_told_of_output_that_is_missing() -> None:
    class Logs:
        async def read(self, *_: object) -> AsyncIterator[LogBatch]:
            head = b"2026-01-01T00:00:00.000000000Z stdout F "
            yield LogBatch(head + b"one\n", LogCursor(1, 44, 4))
            yield LogBatch(head + b"two\n", LogCursor(3, 44, 1004), gap_bytes=996)

    attachments = Attachments(None, None, Logs(), node_name="n1")  # type: ignore[arg-type]
    over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    output = attachments._output("cl-r1-1", ReadOptions(follow=True), over)
    found = [(one.stdout or b"", one.stderr or b"") async for one in output]
    assert [out for out, _ in found] == [b"one\n", b"", b"two\n"]
    assert b"[996 bytes of output are missing here" in found[1][1]
