"""Programs in replicas with their input and output connected, through SDK, coordinator and node."""

from __future__ import annotations

import asyncio
import glob
import os
import pathlib
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tests.integration.program.conftest import IMAGE
from tests.integration.program.served import Served, alive, until
from tests.integration.program.test_lifecycle import manifest

import cloudless
from cloudless import api
from cloudless.domain.errors import Invalid, NotFound, PreconditionFailed
from cloudless.transport.channel import connect

LIMIT_S = 20.0


SCRIPT = "trap 'exit 0' TERM; sleep 100000 & wait"


@pytest.fixture(scope="module")
def both(program: Served) -> Iterator[Served]:
    """A program with a workload of two replicas to execute in."""
    start(program, "web", replicas=2, env={"FROM_SPEC": "1"})
    yield program
    program.cli("delete", "web", "--grace", "0s", "--wait", "-q")


@pytest.fixture
def web(both: Served) -> Iterator[Served]:
    """The same; of what a test executes nothing may be left."""
    yield both
    assert records(both) == []
    assert groups(both) == []


def start(served: Served, name: str, **fields: object) -> None:
    text = manifest(name=name, command=["sh", "-c", SCRIPT], **fields)
    served.cli("apply", "-f", "-", "-q", stdin=text)


def records(served: Served) -> list[str]:
    """Programs that the node still has a record of, after a while for it to let go."""
    folder = served.data_dir / "agent" / "execs"

    def look() -> list[str]:
        return sorted(path.name for path in folder.glob("*")) if folder.exists() else []

    return [] if until(lambda: not look() or None, "no record is left") else look()


def groups(served: Served) -> list[str]:
    """Groups of programs that are still there, after a while for the node to remove them."""

    def look() -> list[str]:
        # Not ``Path.glob``: that raises when a container's group goes while it looks.
        return glob.glob(f"*/cloudless/{served.node_id}/*/x-*", root_dir="/sys/fs/cgroup")

    return [] if until(lambda: not look() or None, "no group is left") else look()


async def until_listed(client: cloudless.Client, *exec_ids: str) -> None:
    """Wait until these run in web: one that was ended may be listed a while longer."""
    async with asyncio.timeout(LIMIT_S):
        while (found := await client.execs("web")).failures or {one.id for one in found} != set(exec_ids):
            await asyncio.sleep(0.05)


@asynccontextmanager
async def executed(served: Served, *command: str, **options: Any) -> AsyncIterator[cloudless.ExecProcess]:
    """A program in a replica of web, or of another workload, for a while at most."""
    name = options.pop("name", "web")
    async with (
        asyncio.timeout(LIMIT_S),
        served.client() as client,
        client.open_exec(name, command, **options) as program,
    ):
        yield program


def pids_with(text: str) -> list[int]:
    """Living processes of the machine whose command line holds this."""
    found = []
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if any(text == word for word in words) and alive(int(folder.name)):
            found.append(int(folder.name))
    return found


async def test_output_error_and_code(web: Served) -> None:
    async with executed(web, "sh", "-c", "echo out; echo err >&2; exit 3") as program:
        assert program.replica in ("web/0", "web/1")
        assert program.exec_id.startswith("x-")
        assert not program.tty
        out, err = await asyncio.gather(program.stdout.collect(100), program.stderr.collect(100))
        assert (out, err) == (b"out\n", b"err\n")
        assert (await program.wait()).exit_code == 3


async def test_the_end_comes_though_nobody_reads(web: Served) -> None:
    async with executed(web, "sh", "-c", "yes | head -c 3000000; exit 4") as program:
        assert (await program.wait()).exit_code == 4


async def test_order_of_both_outputs(web: Served) -> None:
    seen = []
    # Each waits until the one before has come: they travel through two pipes.
    async with executed(web, "sh", "-c", "echo a; read x; echo b >&2; read x; echo c") as program:
        async for piece in program.output():
            seen.append(piece)
            await program.stdin.write(b"go on\n")
    assert seen == [("stdout", b"a\n"), ("stderr", b"b\n"), ("stdout", b"c\n")]


async def test_a_named_replica_environment_folder_and_user(web: Served) -> None:
    async with web.client() as client, asyncio.timeout(LIMIT_S):
        options = {"replica": "1", "env": {"A": "b c"}, "working_dir": "/tmp", "user": "web"}
        script = "echo $FROM_SPEC $A; pwd; id -un; echo $HOME"
        async with client.open_exec("web", ["sh", "-c", script], **options) as program:  # type: ignore[arg-type]
            assert program.replica == "web/1"
            said = await program.stdout.collect(1000)
    assert said.decode().splitlines() == ["1 b c", "/tmp", "web", "/home/web"]


async def test_much_goes_in_and_comes_out_the_same(web: Served) -> None:
    data = os.urandom(5_000_000)
    async with executed(web, "cat") as program, asyncio.TaskGroup() as group:
        reading = group.create_task(program.stdout.collect(len(data) + 1))
        await program.stdin.write(data)
        await program.stdin.close()
        assert (await program.wait()).exit_code == 0
        assert await reading == data


async def test_half_close(web: Served) -> None:
    async with executed(web, "sh", "-c", "cat; echo after; exit 5") as program:
        await program.stdin.write(b"one\n")
        assert await program.stdout.read() == b"one\n"
        await program.stdin.close()
        assert await program.stdout.collect(100) == b"after\n"
        assert (await program.wait()).exit_code == 5


async def test_input_that_nobody_wants_is_no_error(web: Served) -> None:
    async with executed(web, "head", "-c", "3") as program:
        await program.stdin.write(b"x" * 3_000_000)
        assert await program.stdout.collect(10) == b"xxx"
        assert (await program.wait()).exit_code == 0


@pytest.mark.parametrize(("word", "code"), [("/no/such", 127), ("nosuch", 127), ("/etc/passwd", 126)])
async def test_what_cannot_be_run(web: Served, word: str, code: int) -> None:
    async with executed(web, word) as program:
        end = await program.wait()
        assert (end.exit_code, end.reason) == (code, "CannotExecute")
        assert word in end.message


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/no/such", "working directory /no/such does not exist"),
        ("/etc/passwd", "working directory /etc/passwd is no folder"),
    ],
)
async def test_a_working_directory_that_is_none(web: Served, path: str, said: str) -> None:
    async with executed(web, "ls", working_dir=path) as program:
        assert await program.wait() == cloudless.sdk.exec.ExecExit(126, reason="CannotExecute", message=said)
    refused = web.cli("exec", "web", "--workdir", path, "--", "ls", code=126)
    assert (refused.out, refused.err) == ("", f"error: {said}\n")
    async with web.client() as client:
        answer = await client.exec("web", ["ls"], working_dir=path)
        assert (answer.exit_code, answer.stderr) == (126, f"{said}\n".encode())


async def test_signals(web: Served) -> None:
    async with executed(web, "sleep", "1000") as program:
        await program.signal(signal.SIGTERM)
        assert (await program.wait()).exit_code == 143
    script = "trap 'echo caught; exit 7' USR1; echo up; while :; do sleep 0.05; done"
    async with executed(web, "sh", "-c", script) as program:
        assert await program.stdout.read() == b"up\n"
        await program.signal(signal.SIGUSR1)
        assert await program.stdout.collect(100) == b"caught\n"
        assert (await program.wait()).exit_code == 7


async def test_time_is_up(web: Served) -> None:
    async with web.client() as client, asyncio.timeout(LIMIT_S):
        script = "trap 'echo bye; exit 9' TERM; echo up; while :; do sleep 0.05; done"
        # Time enough for a shell to get to its trap.
        async with client.open_exec("web", ["sh", "-c", script], timeout_s=3) as program:
            assert await program.stdout.collect(100) == b"up\nbye\n"
            end = await program.wait()
    assert (end.exit_code, end.reason) == (9, "TimedOut")


async def test_a_terminal(web: Served) -> None:
    script = (
        "stty size; tty; echo $TERM; trap 'stty size; exit 0' WINCH; echo ready; while :; do sleep 0.01; done"
    )
    async with executed(web, "sh", "-c", script, tty=True, size=(41, 111)) as program:
        assert program.tty
        seen = b""
        while b"ready" not in seen:
            seen += await program.stdout.read()
        assert seen.split()[:2] == [b"41", b"111"]
        assert seen.split()[2:] == [b"/dev/pts/0", b"xterm", b"ready"]
        await program.resize(20, 60)
        assert (await program.stdout.collect(100)).split() == [b"20", b"60"]
        assert (await program.wait()).exit_code == 0


@pytest.mark.parametrize("text", [b"", b"whole line\n", b"no line feed"])
async def test_the_end_of_input_on_a_terminal(web: Served, text: bytes) -> None:
    async with executed(web, "sh", "-c", "stty -echo; echo up; cat; exit 6", tty=True) as it:
        seen = b""
        while b"up\r\n" not in seen:  # a terminal may give the end of a line later than the line
            piece = await it.stdout.read()
            assert piece, seen
            seen += piece
        await it.stdin.write(text)
        await it.stdin.close()
        assert (await it.stdout.collect(1000)).replace(b"\r", b"") == text
        assert (await it.wait()).exit_code == 6


async def test_a_detached_program_outlives_its_caller(web: Served) -> None:
    async with web.client() as client, asyncio.timeout(LIMIT_S):
        started = await client.exec_detached("web", ["sleep", "4401"])
        assert started.exec_id
        (pid,) = until(lambda: pids_with("4401") or None, "it runs")
        with pytest.raises(cloudless.CannotExecute):
            await client.exec_detached("web", ["/no/such"])
    assert alive(pid)
    os.kill(pid, signal.SIGKILL)


async def test_programs_are_listed_and_ended(web: Served) -> None:
    script = "trap '' TERM; sleep 4403 & sleep 4403 & wait"
    async with web.client() as client, asyncio.timeout(LIMIT_S), executed(web, "cat", user="0") as attached:
        started = await client.exec_detached("web", ["sh", "-c", script])
        until(lambda: len(pids_with("4403")) == 2, "all of it runs")
        found = {one.id: one for one in await client.execs("web")}
        assert set(found) == {attached.exec_id, started.exec_id}
        behind, beside = found[started.exec_id], found[attached.exec_id]
        assert (behind.command, behind.detached) == (["sh", "-c", script], True)
        assert alive(behind.message.pid)
        assert (beside.command, beside.detached, beside.message.user) == (["cat"], False, "0")
        await client.kill_exec("web", started.exec_id, grace_s=0.3)
        assert (pids_with("4403"), alive(behind.message.pid)) == ([], False)
        await client.kill_exec("web", attached.exec_id, signal=signal.SIGHUP)
        assert (await attached.wait()).exit_code == 128 + signal.SIGHUP
        await until_listed(client)
        with pytest.raises(NotFound, match=started.exec_id):
            await client.kill_exec("web", started.exec_id)


def test_programs_are_listed_and_ended_from_the_command_line(web: Served) -> None:
    replica, exec_id = web.cli("exec", "-d", "web/1", "--", "sleep", "4404").out.split()
    assert replica == "web/1"
    assert web.cli("get", "execs", "web/1", "-o", "name").out == f"exec/{exec_id}\n"
    assert web.cli("get", "execs", "web/0").said == "no execs\n"
    (listed,) = web.cli("get", "execs", "-o", "json").json["items"]
    assert (listed["exec_id"], listed["command"], listed["node"]) == (exec_id, ["sleep", "4404"], "node-1")
    web.cli("exec", "web", "--kill", exec_id, "--signal", "STOP")
    assert web.cli("exec", "web", "--kill", exec_id[:6]).out == f"web/1 {exec_id} ended\n"
    assert pids_with("4404") == []
    until(lambda: web.cli("get", "execs", "web").said == "no execs\n", "it is not listed any more")
    web.cli("exec", "web", "--kill", exec_id, code=5)


async def test_a_node_lists_and_ends_what_runs_on_it(web: Served) -> None:
    async with web.client() as client, connect(web.agent_address) as channel:
        started = await client.exec_detached("web", ["sleep", "4405"])
        node = api.AgentServiceStub(channel)
        listed = await node.list_execs(api.ListExecsRequest(replica=started.replica_id))
        assert [one.exec_id for one in listed.execs] == [started.exec_id]
        await node.kill_exec(api.KillExecRequest(exec_id=started.exec_id))
        assert pids_with("4405") == []


async def test_leaving_ends_whatever_hides(web: Served) -> None:
    script = "(env -i setsid sh -c 'sleep 4402 & sleep 4402' &) & echo up; wait; sleep 4402"
    async with executed(web, "sh", "-c", script) as program:
        assert await program.stdout.read() == b"up\n"
        until(lambda: len(pids_with("4402")) == 3, "all run")
    until(lambda: not pids_with("4402"), "all are gone")


async def test_refusals(web: Served) -> None:
    async with web.client() as client, asyncio.timeout(LIMIT_S):
        with pytest.raises(NotFound):
            async with client.open_exec("nosuch", ["true"]):
                pass
        with pytest.raises(NotFound):
            async with client.open_exec("web", ["true"], replica="9"):
                pass
        with pytest.raises(Invalid) as caught:
            async with client.open_exec("web", [""], working_dir="tmp", size=(1, 2)):
                pass
        paths = {one.path for one in caught.value.violations}
        assert paths == {"start.command", "start.working_dir", "start.size"}
        await client.create(cloudless.Workload("none", image=IMAGE, replicas=0))
        with pytest.raises(PreconditionFailed):
            async with client.open_exec("none", ["true"]):
                pass
        await client.delete("none")


async def test_the_container_is_deleted(web: Served) -> None:
    start(web, "gone")
    async with executed(web, "sleep", "1000", name="gone") as program:
        web.cli("delete", "gone", "--grace", "0s", "-q")
        end = await program.wait()
    assert (end.exit_code, end.reason) == (137, "ContainerEnded")


async def test_the_container_is_deleted_while_nobody_reads(web: Served) -> None:
    start(web, "stalled")
    async with executed(web, "dd", "if=/dev/zero", name="stalled"):
        await asyncio.sleep(0.5)  # its pipes are full by then
        await asyncio.to_thread(web.cli, "delete", "stalled", "--grace", "0s", "--wait", "-q")


async def test_out_of_memory(web: Served) -> None:
    start(web, "small", resources={"limits": {"memory": "32Mi"}})
    async with executed(web, "sh", "-c", "tail /dev/zero", name="small") as program:
        end = await program.wait()
        assert end.exit_code == 137
        assert end.out_of_memory
        assert end.reason == "OutOfMemory"
    web.cli("delete", "small", "--grace", "0s", "-q")
