from __future__ import annotations

import asyncio
import itertools
import signal

import pytest
from tests.unit.agent.runtime.contract import RuntimeBench, RuntimeContract, end_of, following

from cloudless.agent.runtime.errors import RegistryAway, RuntimeAway
from cloudless.agent.runtime.execport import ExecRequest, ExecResult
from cloudless.agent.runtime.memory import MemoryRuntime
from cloudless.agent.runtime.memoryexec import MemoryExec
from cloudless.agent.runtime.memorymachine import MemoryMachine, Program
from cloudless.agent.runtime.port import Away, OutOfMemory, PullProgress
from cloudless.aio.clock import SystemClock

IMAGE = "docker.io/library/app:1"


async def cat(program: MemoryExec) -> int:
    while data := await program.stdin.read():
        await program.say(data)
    return 0


async def sleeping(container_id: str, request: ExecRequest) -> ExecResult:
    if request.argv[0] == "sleep":
        await asyncio.sleep(float(request.argv[1]))
    return ExecResult(0, f"{request.argv[-1]}\n".encode() if request.argv[0] == "echo" else b"")


@pytest.fixture
def machine() -> MemoryMachine:
    machine = MemoryMachine(SystemClock())
    machine.images[IMAGE] = machine.add_image(IMAGE)
    machine.programs["exit-seven"] = Program(ends_after_s=0.01, exit_code=7)
    machine.programs["no-such-program"] = Program(cannot_execute=127)
    machine.commands["cat"] = cat
    machine.on_exec = sleeping
    return machine


@pytest.fixture
def bench(machine: MemoryMachine) -> RuntimeBench:
    async def another_life() -> MemoryRuntime:
        return MemoryRuntime(machine, "n1")

    numbers = itertools.count()
    return RuntimeBench(
        MemoryRuntime(machine, "n1"),
        another_life,
        MemoryRuntime(machine, "n2"),
        machine.images[IMAGE],
        lambda: f"r{next(numbers)}",
    )


class TestMemory(RuntimeContract):
    async def test_it_can_be_away(self, bench: RuntimeBench, machine: MemoryMachine) -> None:
        async with following(bench.runtime) as events:
            machine.stop_answering("gone fishing")
            assert await anext(events) == Away("gone fishing")
        with pytest.raises(RuntimeAway, match="gone fishing"):
            await bench.runtime.list()
        machine.answer_again()
        assert await bench.runtime.list() == ()

    async def test_memory_runs_out_before_the_end(self, bench: RuntimeBench, machine: MemoryMachine) -> None:
        machine.programs["hungry"] = Program(ends_after_s=0.01, exit_code=137, out_of_memory=True)
        wish = bench.wish("hungry")
        await bench.runtime.create(wish)
        async with following(bench.runtime) as events:
            await bench.runtime.start(wish.id)
            assert await anext(events) == OutOfMemory(wish.id)
            assert (await end_of(events, wish.id)).exit_code == 137

    async def test_the_deaf_are_killed(self, bench: RuntimeBench, machine: MemoryMachine) -> None:
        machine.programs["deaf"] = Program(deaf=frozenset({signal.SIGTERM}))
        wish = bench.wish("deaf")
        await bench.runtime.create(wish)
        await bench.runtime.start(wish.id)
        await bench.runtime.kill(wish.id, signal.SIGTERM)
        assert machine.running()[0].signals == [signal.SIGTERM]
        await bench.runtime.kill(wish.id, signal.SIGKILL)
        assert machine.running() == []

    async def test_pull(self, bench: RuntimeBench, machine: MemoryMachine) -> None:
        machine.add_image("docker.io/library/new:1", size_bytes=7)
        seen: list[PullProgress] = []
        image = await bench.runtime.pull("docker.io/library/new:1", None, seen.append)
        assert await bench.runtime.resolve(image.name) == image
        assert seen == [PullProgress("downloading", 0, 7)]
        machine.registry_away = True
        with pytest.raises(RegistryAway):
            await bench.runtime.pull(image.name, None, seen.append)
        await bench.runtime.remove_image(image.name)
