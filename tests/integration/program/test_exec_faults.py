"""Whoever dies in the middle of an exec, nothing of it is left; and no exit code is made up."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest
from tests.integration.program.callers import from_host
from tests.integration.program.census import open_files, tasks_of
from tests.integration.program.served import Served, alive, command, environment, until
from tests.integration.program.test_exec import executed, groups, pids_with, start, until_listed

import cloudless
from cloudless.domain.errors import Exhausted, Unavailable

#: All of a program must be gone so soon after whoever asked for it; who is deaf is given 5 s by the node.
GONE_S = 30.0
#: Starts of hundreds take their time on a machine that has other work.
MANY_S = 400.0
#: Threads for what blocks, which asyncio begins when several block at once, and keeps.
POOL = min(32, (os.cpu_count() or 1) + 4)
#: Hides as well as it can, and is deaf to SIGTERM.
DEAF = (
    "trap '' TERM HUP; (env -i setsid sh -c \"trap '' TERM HUP; sleep {mark} & sleep {mark}\" &) & "
    "echo up; sleep {mark}; sleep {mark}"
)


@pytest.fixture(scope="module")
def own(serve: Callable[..., Served]) -> Served:
    """A program of our own, to be killed as often as we like."""
    made = serve(name="exec-faults")
    start(made, "web")
    return made


@pytest.fixture
def web(own: Served) -> Iterator[Served]:
    """Nothing that a test executed may be left, nor any record of it."""
    yield own
    folder = own.data_dir / "agent" / "execs"
    until(lambda: not list(folder.glob("*")), "no record is left", GONE_S)
    assert groups(own) == []


def gone(mark: str, since_s: float) -> None:
    until(lambda: not pids_with(mark), f"all of {mark} is gone", GONE_S - (time.monotonic() - since_s))


async def running(program: cloudless.ExecProcess, mark: str, count: int = 3) -> None:
    assert await program.stdout.read() == b"up\n"
    until(lambda: len(pids_with(mark)) >= count, "all of it runs")


def client_process(served: Served, mark: str, *options: str) -> subprocess.Popen[bytes]:
    """``cloudless exec`` as a process of its own, in which the hiding program runs."""
    process = subprocess.Popen(
        command("exec", *options, "web", "--", "sh", "-c", DEAF.format(mark=mark)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment(CLOUDLESS_ADDRESS=served.address),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    until(lambda: len(pids_with(mark)) >= 3, "all of it runs")
    return process


def close(process: subprocess.Popen[bytes]) -> int:
    code = process.wait(20)
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    return code


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_the_client_dies(web: Served, number: signal.Signals) -> None:
    mark = str(5100 + number)
    process = client_process(web, mark, "-i")
    since_s = time.monotonic()
    process.send_signal(number)
    close(process)
    gone(mark, since_s)


def test_a_hundred_are_left_behind(web: Served) -> None:
    before = open_files(web), tasks_of(web)
    for _ in range(5):
        process = subprocess.Popen(
            [sys.executable, "-c", CLIENT, web.address, "5201"],
            stdout=subprocess.PIPE,
            env=environment(),
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        process.kill()
        process.wait()
        process.stdout.close()
    gone("5201", time.monotonic())
    until(lambda: open_files(web) <= before[0] + 2, "its files are closed", GONE_S)
    until(lambda: tasks_of(web) <= before[1] + POOL, "its threads are gone", GONE_S)


#: A client with twenty programs at once.
CLIENT = """
import asyncio, sys, cloudless
async def main():
    together = asyncio.Barrier(20)
    async def one(client):
        command = ["sh", "-c", "echo up; exec sleep " + sys.argv[2]]
        async with client.open_exec("web", command) as program:
            await program.stdout.read()
            if await together.wait() == 0:
                print("up", flush=True)
            await program.wait()
    async with cloudless.connect(sys.argv[1]) as client:
        await asyncio.gather(*(one(client) for _ in range(20)))
asyncio.run(main())
"""


def test_a_thousand_in_sequence(web: Served) -> None:
    before = open_files(web), tasks_of(web), memory(web)
    asyncio.run(asyncio.wait_for(thousand(web), MANY_S))
    until(lambda: open_files(web) <= before[0] + 2, "its files are closed", GONE_S)
    until(lambda: tasks_of(web) <= before[1] + POOL, "its threads are gone", GONE_S)
    assert memory(web) - before[2] < 16 * 1024 * 1024


async def thousand(web: Served) -> None:
    async with web.client() as client:
        for number in range(500):
            async with client.open_exec("web", ["sh", "-c", f"exit {number % 7}"]) as program:
                assert (await program.wait()).exit_code == number % 7
            assert (await client.exec("web", ["sh", "-c", f"exit {number % 7}"])).exit_code == number % 7


async def test_the_program_dies_and_its_next_life_ends_what_ran(web: Served) -> None:
    with pytest.raises(Unavailable):
        async with executed(web, "sh", "-c", DEAF.format(mark="5301")) as program:
            await running(program, "5301")
            web.kill()
            await program.wait()
    assert pids_with("5301")  # nobody was there to end it
    web.start()
    gone("5301", time.monotonic())


async def test_the_program_is_stopped(web: Served) -> None:
    async with executed(web, "sh", "-c", "echo up; exec sleep 5351") as program:
        await running(program, "5351", 1)
        await asyncio.to_thread(web.kill, signal.SIGTERM)
        with pytest.raises(Unavailable):
            await program.wait()
    gone("5351", time.monotonic())
    await asyncio.to_thread(web.start)


async def test_containerd_dies(web: Served) -> None:
    with pytest.raises(Unavailable):
        async with executed(web, "sh", "-c", DEAF.format(mark="5401")) as program:
            await running(program, "5401")
            since_s = time.monotonic()
            web.kill_containerd()
            await program.wait()
    gone("5401", since_s)
    until(lambda: web.cli("exec", "web", "--", "true", code=None).code == 0, "exec works again")


async def test_the_shim_dies(web: Served) -> None:
    """With it go container and program: the stream ends with a status, or with how it ended."""
    start(web, "frail")
    (one,) = await asyncio.to_thread(web.until_running, "frail", 1)
    shim = int(pathlib.Path(f"/proc/{one.pid}/stat").read_text().rpartition(")")[2].split()[1])
    ends: list[int] = []
    with contextlib.suppress(cloudless.CloudlessError):
        async with executed(web, "sh", "-c", "echo up; exec sleep 5501", name="frail") as program:
            await running(program, "5501", 1)
            os.kill(shim, signal.SIGKILL)
            ends.append((await program.wait()).exit_code)
    assert ends in ([], [137])
    gone("5501", time.monotonic())
    web.cli("delete", "frail", "--grace", "0s", "--wait", "-q")


async def test_a_detached_program_outlives_the_program_that_started_it(web: Served) -> None:
    async with web.client() as client:
        started = await client.exec_detached("web", ["sleep", "5601"], user="0")
        listed = list(await client.execs("web"))
        assert [one.id for one in listed] == [started.exec_id]
    (pid,) = until(lambda: pids_with("5601") or None, "it runs")
    await asyncio.to_thread(web.kill)
    await asyncio.to_thread(web.start)
    await asyncio.sleep(6)  # longer than the next look for what was left
    assert alive(pid)
    async with web.client() as client:
        assert await client.execs("web") == listed, "the next life knows all about it"
        await client.kill_exec("web", started.exec_id)
        assert not alive(pid)
        await until_listed(client)


async def test_two_hundred_at_once(web: Served) -> None:
    before = open_files(web), tasks_of(web)
    together = asyncio.Barrier(200)

    async def one(client: cloudless.Client, number: int) -> None:
        async with client.open_exec("web", ["sh", "-c", "read x; echo $x; exit 3"]) as program:
            await together.wait()  # now all of them run
            await program.stdin.write(f"{number}\n".encode())
            assert await program.stdout.collect(100) == f"{number}\n".encode()
            assert (await program.wait()).exit_code == 3

    # The last one begins when all others have.
    options = {"timeout_s": MANY_S, "patience_s": 60.0}
    async with asyncio.timeout(MANY_S), web.client(**options) as client, asyncio.TaskGroup() as group:
        for number in range(200):
            group.create_task(one(client, number))
    until(lambda: open_files(web) <= before[0] + 5, "its files are closed", GONE_S)
    until(lambda: tasks_of(web) <= before[1] + POOL, "its threads are gone", GONE_S)


async def test_two_hundred_buffered_ones_at_once(web: Served) -> None:
    before = open_files(web)

    async def one(client: cloudless.Client, number: int) -> None:
        command = ["sh", "-c", f"sleep 1; echo {number}; exit 3"]
        done = await client.exec("web", command, timeout_s=MANY_S)  # it includes the wait for its start
        assert (done.exit_code, done.stdout) == (3, f"{number}\n".encode())

    async with asyncio.timeout(MANY_S), web.client() as client, asyncio.TaskGroup() as group:
        for number in range(200):
            group.create_task(one(client, number))
    until(lambda: open_files(web) <= before + 5, "its files are closed", GONE_S)


async def test_one_caller_may_not_have_everything(web: Served) -> None:
    """Over the limit there is a clear answer, and room again when others have ended."""
    async with asyncio.timeout(MANY_S), web.client() as one, web.client() as two:
        programs = []
        try:
            with pytest.raises(Exhausted, match="256 programs"):
                for number in range(300):
                    client = one if number % 2 else two
                    program = client.open_exec("web", ["sleep", "5701"], stdin=False)
                    await program.__aenter__()
                    programs.append(program)
            async with from_host("127.0.0.9", web.address) as address, cloudless.connect(address) as other:
                # Another caller gets in, both ways, although the first one has all it may have.
                assert (await other.exec("web", ["echo", "in"])).stdout == b"in\n"
                async with other.open_exec("web", ["cat"]) as program:
                    assert program.exec_id
        finally:
            for program in programs:
                await program.__aexit__(None, None, None)
    gone("5701", time.monotonic())


async def test_output_that_is_never_read(web: Served) -> None:
    before, mark = memory(web), "5801"
    async with executed(web, "dd", "if=/dev/zero", f"bs={mark}"):  # it cuts its own words at the "="
        until(lambda: pids_with(mark), "it writes")
        first = await settled(lambda: written_by(mark))
        assert memory(web) - before < 16 * 1024 * 1024
        assert first == written_by(mark)  # it is held back
    gone(mark, time.monotonic())


async def settled(read: Callable[[], int]) -> int:
    """A number that has not changed for a while."""
    last, same = read(), 0
    while same < 40:  # 2 s: on a busy machine all of them may wait for a processor for some time
        await asyncio.sleep(0.05)
        now = read()
        same = same + 1 if now == last else 0
        last = now
    return last


def written_by(mark: str) -> int:
    (pid,) = pids_with(mark)
    lines = pathlib.Path(f"/proc/{pid}/io").read_text().splitlines()
    return int(dict(line.split(": ") for line in lines)["wchar"])


def memory(served: Served) -> int:
    """Private bytes of the program."""
    assert served.process is not None
    lines = pathlib.Path(f"/proc/{served.process.pid}/smaps_rollup").read_text().splitlines()
    found = [line.split() for line in lines if line.startswith("Private")]
    return sum(int(words[1]) * 1024 for words in found)
