"""A workload's own input and terminal: attached to, left, and attached to again."""

from __future__ import annotations

import asyncio
import pathlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tests.integration.program.served import Served, until
from tests.integration.program.test_lifecycle import manifest

import cloudless
from cloudless.domain.errors import Invalid, PreconditionFailed

LIMIT_S = 25.0
ONCE = {"policy": "NEVER"}
READER = 'while read -r line; do echo "got $line"; echo err >&2; done; echo over; exit 9'


@pytest.fixture(scope="module")
def own(serve: Callable[..., Served]) -> Served:
    return serve(name="attach")


def start(served: Served, name: str, script: str, **fields: Any) -> None:
    text = manifest(name=name, command=["sh", "-c", script], **fields)
    served.cli("apply", "-f", "-", "-q", stdin=text)


@asynccontextmanager
async def attached(served: Served, name: str, **options: Any) -> AsyncIterator[cloudless.ExecProcess]:
    async with (
        asyncio.timeout(LIMIT_S),
        served.client(patience_s=20.0) as client,
        client.attach(name, **options) as program,
    ):
        yield program


async def read_until(program: cloudless.ExecProcess, wanted: bytes) -> bytes:
    seen = b""
    while wanted not in seen:
        piece = await program.stdout.read()
        assert piece, seen
        seen += piece
    return seen


def pipes(served: Served) -> list[pathlib.Path]:
    return list((served.data_dir / "agent" / "runtimes" / "inputs").iterdir())


async def test_input_and_both_outputs_and_the_end(own: Served) -> None:
    start(own, "reader", READER, stdin=True, restart_policy=ONCE)
    async with attached(own, "reader") as program:
        assert program.replica == "reader/0"
        assert not program.tty
        await program.stdin.write(b"one\n")
        assert await read_until(program, b"\n") == b"got one\n"
        assert await program.stderr.read() == b"err\n"
    # Leaving has changed nothing.
    async with attached(own, "reader", tail=10) as program, attached(own, "reader") as second:
        assert await read_until(program, b"one\n") == b"got one\n"
        await second.stdin.write(b"two\n")
        assert await read_until(program, b"two\n") == b"got two\n"
        assert await read_until(second, b"two\n") == b"got two\n"
        await second.stdin.close()
        await program.stdin.close()
        assert await program.stdout.collect(100) == b"over\n"
        assert (await program.wait()).exit_code == 9
        assert (await second.wait()).exit_code == 9
    own.cli("delete", "reader", "--wait", "-q")
    until(lambda: not pipes(own), "the pipe is gone")


async def test_input_outlives_the_program_and_containerd(own: Served) -> None:
    start(own, "lasting", READER, stdin=True)
    for death in (own.kill, own.kill_containerd):
        await asyncio.to_thread(death)
        if death == own.kill:
            await asyncio.to_thread(own.start)
        await asyncio.to_thread(until, lambda: own.http("/readyz")[0] == 200, "it is ready")
        async with attached(own, "lasting") as program:
            await program.stdin.write(b"still\n")
            assert await read_until(program, b"\n") == b"got still\n"
    assert own.replicas("lasting")[0]["restarts"] == 0
    own.cli("delete", "lasting", "--grace", "0s", "--wait", "-q")


async def test_a_terminal(own: Served) -> None:
    start(own, "shell", "exec sh", tty=True)
    async with attached(own, "shell", size=(31, 101)) as program:
        assert program.tty
        await program.stdin.write(b"stty size; x=kept\r")
        assert b"31 101\r\n" in await read_until(program, b"31 101\r\n")
        await program.resize(20, 60)
        await program.stdin.write(b"stty size\r")
        await read_until(program, b"20 60\r\n")
    async with attached(own, "shell") as program:
        # A prompt has no line feed, and is seen at once.
        await program.stdin.write(b"PS1='so '; echo $x; printf 'pro''mpt'\r")
        assert b"kept\r\n" in await read_until(program, b"prompt")
        await program.stdin.write(b"\rexit 5\r")
        assert (await program.wait()).exit_code == 5
    own.cli("delete", "shell", "--grace", "0s", "--wait", "-q")


async def test_a_program_that_is_not_root_reads_it(own: Served) -> None:
    security = {"run_as_user": 1000, "run_as_group": 1000}
    script = "exec cat /dev/stdin"
    start(own, "user", script, stdin=True, security_context=security, restart_policy=ONCE)
    async with attached(own, "user") as program:
        await program.stdin.write(b"hello\n")
        assert await read_until(program, b"\n") == b"hello\n"
        await program.stdin.close()
        assert (await program.wait()).exit_code == 0
    own.cli("delete", "user", "--grace", "0s", "--wait", "-q")


async def test_only_looking_and_refusals(own: Served) -> None:
    script = "trap 'exit 0' TERM; echo began; while :; do sleep 0.1; echo tick; done"
    start(own, "plain", script, stop_grace_period="10s")
    with pytest.raises(PreconditionFailed) as caught:
        async with attached(own, "plain"):
            pass
    assert "stdin: true" in caught.value.hint
    async with attached(own, "plain", stdin=False, tail=5) as program:
        await read_until(program, b"tick\ntick\n")
        own.cli("delete", "plain", "-q")
        assert (await program.wait()).exit_code == 0
    start(own, "again", READER, stdin=True)
    async with attached(own, "again") as program:
        await program.signal(15)
        with pytest.raises(Invalid, match="executed"):
            await program.wait()
    async with attached(own, "again", stdin=False) as program:
        await program.stdin.write(b"x")
        with pytest.raises(Invalid, match=r"attach\.stdin"):
            await program.wait()
    own.cli("delete", "again", "--grace", "0s", "--wait", "-q")


def test_on_the_command_line(own: Served) -> None:
    start(own, "line", READER, stdin=True, restart_policy=ONCE)
    done = own.cli("attach", "line", "--end-stdin", stdin="a\nb\n", code=9)
    assert done.out == "got a\ngot b\nover\n"
    assert own.cli("attach", "line", "--no-stdin", "--end-stdin", code=2).err
    assert own.cli("attach", "nosuch", code=125).err
    own.cli("delete", "line", "--wait", "-q")
