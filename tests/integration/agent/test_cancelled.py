"""Exec, Attach and Forward given up at every single await: no task, no pipe and no file is left."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator
from contextlib import aclosing
from typing import Any

import pytest
from tests.integration.agent.stage import LIMIT_S, Stage, assignment

from cloudless import api
from cloudless.agent.config import AgentConfig
from cloudless.agent.execs.session import Session
from cloudless.agent.main import Agent, agent
from cloudless.aio.clock import SystemClock
from cloudless.aio.ids import random_id
from cloudless.domain.errors import PreconditionFailed

#: Echoes on a port, and what is typed.
SCRIPT = "nc -ll -p 9000 -e cat & exec cat"
#: No conversation has so many awaits.
MAX_STEPS = 300


class Counted:
    """Awaits ``work``; ``on_wait`` hears of each time that it waits, numbered from 0, before it does."""

    def __init__(self, work: Coroutine[Any, Any, Any], on_wait: Callable[[int], None]) -> None:
        self._work = work
        self._on_wait = on_wait

    def __await__(self) -> Generator[Any, Any, Any]:
        steps = self._steps()
        return (yield from steps)

    def _steps(self) -> Generator[Any, Any, Any]:
        number, inner = 0, self._work.__await__()
        try:
            waits_for = next(inner)
            while True:
                self._on_wait(number)
                number += 1
                try:
                    sent = yield waits_for
                except BaseException as error:
                    waits_for = inner.throw(error)
                else:
                    waits_for = inner.send(sent)
        except StopIteration as end:
            return end.value


class Outbox:
    """What a caller says; no generator, which would leave a task of its own behind."""

    def __init__(self) -> None:
        self._said: asyncio.Queue[Any] = asyncio.Queue()

    def say(self, message: Any) -> None:
        self._said.put_nowait(message)

    def __aiter__(self) -> Outbox:
        return self

    async def __anext__(self) -> Any:
        if (message := await self._said.get()) is None:
            raise StopAsyncIteration
        return message


async def run_a_program(service: Any) -> None:
    said = Outbox()
    said.say(api.ExecRequest(start=api.ExecStart(replica="r1", command=["cat"], stdin=True)))
    async with aclosing(service.exec(said)) as answers:
        async for answer in answers:
            if answer.started is not None:
                said.say(api.ExecRequest(stdin=b"hello\n"))
            if answer.stdout is not None:
                said.say(api.ExecRequest(stdin_close=api.ExecStdinClose()))


async def attach(service: Any) -> None:
    said = Outbox()
    said.say(api.ExecRequest(attach=api.AttachStart(replica="r1", stdin=True)))
    async with aclosing(service.attach(said)) as answers:
        async for answer in answers:
            if answer.started is not None:
                said.say(api.ExecRequest(stdin=b"hello\n"))
            if answer.stdout is not None:
                return


async def forward(service: Any) -> None:
    said = Outbox()
    said.say(api.ForwardRequest(target=api.ForwardTarget(replica="r1", port=9000)))
    async with aclosing(service.forward(said)) as answers:
        async for answer in answers:
            if answer.opened is not None:
                said.say(api.ForwardRequest(data=b"hello\n"))
            if answer.data:
                said.say(api.ForwardRequest(end=True))


def open_files() -> str:
    """What this process has open, a line each, for whoever reads a failed test."""
    lines = []
    for name in sorted(os.listdir("/proc/self/fd"), key=int):
        with contextlib.suppress(OSError):
            lines.append(f"{name}: {os.readlink(f'/proc/self/fd/{name}')}")
    return "\n".join(lines)


class Node:
    """The agent in this process, and what it holds."""

    def __init__(self, running: Agent, config: AgentConfig) -> None:
        self.service: Any = running.service
        self._folder = config.folder / "execs"

    def watch_logs(self) -> None:
        """What the first follower who has to wait opens, and the node keeps."""
        logs = self.service._attachments._logs
        logs._watcher.arm(logs._root).cancel()

    def held(self) -> tuple[int, int, int, int]:
        """Programs, records with their pipes, open files, tasks."""
        records = len(os.listdir(self._folder)) if self._folder.exists() else 0
        return (
            self.service._programs._places.taken,
            records,
            len(os.listdir("/proc/self/fd")),
            len(asyncio.all_tasks()),
        )

    async def until_it_listens(self) -> None:
        async with asyncio.timeout(LIMIT_S):
            while True:
                with contextlib.suppress(PreconditionFailed):
                    return await forward(self.service)

    async def back_to(self, before: tuple[int, ...], where: str) -> None:
        end_s = time.monotonic() + LIMIT_S
        while any(now > then for now, then in zip(self.held(), before, strict=True)):
            assert time.monotonic() < end_s, f"{where}: {self.held()}, before it was {before}\n{open_files()}"
            await asyncio.sleep(0.005)


@pytest.fixture
async def node(
    settings: dict[str, Any], stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Node]:
    # The process of the tests is not to be spared when memory runs out.
    monkeypatch.setattr("cloudless.agent.main.protect", lambda: True)
    settings["data_dir"].mkdir()
    config = AgentConfig.model_validate(settings)
    async with agent(config, SystemClock(), new_id=random_id) as running:
        await stage.until(lambda: stage.facts is not None and not stage.facts.not_ready)
        stage.tell(assignment("r1", "sh", "-c", SCRIPT, stdin=True))
        await stage.until_running("r1")
        made = Node(running, config)
        await made.until_it_listens()
        made.watch_logs()
        await stage.stub()  # the second of the connections stands, and comes no more into what is counted
        yield made
        stage.tell(removed=("r1",))
        await stage.until_gone("r1")


async def given_up(work: Callable[[asyncio.Task[Any]], Awaitable[None]]) -> bool:
    """Whether it was; False when it came to its end first."""

    async def run() -> None:
        task = asyncio.current_task()
        assert task is not None
        await work(task)

    task = asyncio.ensure_future(run())
    done, _ = await asyncio.wait({task}, timeout=LIMIT_S)
    assert done, "it goes on although it was cancelled"
    if not task.cancelled():
        task.result()
    return task.cancelled()


@pytest.mark.parametrize("call", [run_a_program, attach, forward])
async def test_at_every_await(node: Node, call: Callable[[Any], Coroutine[Any, Any, None]]) -> None:
    await call(node.service)
    before = node.held()
    for step in range(MAX_STEPS):

        def work(task: asyncio.Task[Any], step: int = step) -> Counted:
            return Counted(call(node.service), lambda at: task.cancel() and None if at == step else None)

        if not await given_up(work):
            break
        await node.back_to(before, f"given up at await {step}")
    assert 3 < step < MAX_STEPS - 1
    await call(node.service)


async def test_at_every_await_of_the_program_itself(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller goes while the agent is at any point of starting the program and listening to it."""
    await run_a_program(node.service)
    before = node.held()
    hooks: list[Callable[[int], None]] = [lambda at: None]
    real = Session.run

    async def run(self: Session) -> None:
        await Counted(real(self), lambda at: hooks[0](at))

    monkeypatch.setattr(Session, "run", run)
    for step in range(MAX_STEPS):

        async def work(task: asyncio.Task[Any], step: int = step) -> None:
            hooks[0] = lambda at: task.cancel() and None if at == step else None
            await run_a_program(node.service)

        if not await given_up(work):
            break
        await node.back_to(before, f"left at the program's await {step}")
    assert 3 < step < MAX_STEPS - 1
    hooks[0] = lambda at: None
    await run_a_program(node.service)
