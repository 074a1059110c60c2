"""Programs in replicas by the SDK: what is read, what is thrown away, how long a start may take."""

from __future__ import annotations

import asyncio

import pytest
from fake_coordinator import FakeCoordinator

import cloudless
from cloudless import api
from cloudless.domain import errors

SAYS = [
    api.ExecResponse(stdout=b"out"),
    api.ExecResponse(stderr=b"err"),
    api.ExecResponse(exit=api.ExecExit(exit_code=1)),
]


@pytest.fixture
async def web(client: cloudless.Client, fake: FakeCoordinator) -> cloudless.Workload:
    fake.program = list(SAYS)
    return await client.apply(cloudless.Workload("web", image="web:1"))


async def everything_has_come(process) -> None:
    """Until the program's end lies in the box, unread."""
    async with asyncio.timeout(5):
        while not process._box.over:
            await asyncio.sleep(0)


async def whole(output) -> bytes:
    return b"".join([data async for data in output])


async def both(process) -> bytes:
    return b"".join([data async for _, data in process.output()])


@pytest.mark.parametrize(
    ("reads", "said"),
    [
        (lambda process: process.stderr.collect(100), b"err"),
        (lambda process: process.stderr.read(), b"err"),
        (lambda process: whole(process.stderr), b"err"),
        (both, b"outerr"),
    ],
    ids=["collect", "read", "async for", "output"],
)
async def test_who_has_asked_gets_it_after_wait(web, reads, said):
    """A reader that is a task does not run before whoever made it lets go."""
    async with web.exec("tar") as process:
        await everything_has_come(process)
        async with asyncio.TaskGroup() as group:
            reader = group.create_task(reads(process))
            assert (await process.wait()).exit_code == 1
        assert reader.result() == said


@pytest.mark.parametrize(
    ("method", "use", "said"),
    [
        ("program", lambda client: client.open_exec("web", ["ls"]), "Exec did not begin within 0.1 s"),
        ("attach", lambda client: client.attach("web"), "Attach did not begin within 0.1 s"),
    ],
)
async def test_a_start_has_the_deadline_of_a_call(web, fake, method, use, said):
    fake.silent.add(method)
    async with cloudless.connect(fake.address, timeout_s=0.1) as hasty, asyncio.timeout(5):
        with pytest.raises(errors.DeadlineExceeded, match=said):
            async with use(hasty):
                pass


async def test_once_begun_it_takes_as_long_as_it_takes(web, fake):
    fake.program = []
    async with (
        cloudless.connect(fake.address, timeout_s=1.0) as hasty,
        hasty.open_exec("web", ["cat"]) as process,
    ):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.5):
                await process.stdout.read()
        await process.stdin.write(b"still here")
        assert await process.stdout.read() == b"still here"


async def test_who_asks_without_a_task_gets_it_after_wait(web):
    async with web.exec("tar") as process:
        await everything_has_come(process)
        complaints = process.stderr.collect(100)
        await process.wait()
        assert await complaints == b"err"
        assert await process.stdout.read() == b"", "nobody had asked for it"


async def test_endless_input_does_not_keep_others_from_the_end(web):
    """Nothing in such a loop waits once the program is gone: it has to let others run by itself."""
    async with web.exec("true", stdin=True) as process:

        async def feed() -> None:
            while True:
                await process.stdin.write(b"x")

        feeding = asyncio.create_task(feed())
        await everything_has_come(process)
        assert (await process.wait()).exit_code == 1
        feeding.cancel()
        await asyncio.gather(feeding, return_exceptions=True)


async def test_what_cannot_be_sent_is_an_error_at_once(web, client):
    async with asyncio.timeout(5):
        with pytest.raises(ValueError, match=r"start\.env"):
            async with web.exec("env", env={"A": 1}):
                pass


async def test_a_command_is_a_list_of_words(web, client):
    for command in ("ls -l", [["ls", "-l"]], [b"ls"]):
        with pytest.raises(TypeError, match="list of words"):
            client.open_exec("web", command)
        with pytest.raises(TypeError, match="list of words"):
            await client.exec("web", command)
        with pytest.raises(TypeError, match="list of words"):
            await client.exec_detached("web", command)
    with pytest.raises(TypeError, match="list of words"):
        web.exec(["ls", "-l"])
