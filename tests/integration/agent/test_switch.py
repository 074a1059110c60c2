"""Ten blue and ten green replicas behind one port: who answers, and that nobody notices the switch."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from tests.integration.agent.conftest import AgentProcess
from tests.integration.agent.stage import Stage, assignment
from tests.integration.published.conftest import WEB
from tests.integration.published.load import ask, load
from tests.ports import free_ports

from cloudless.domain.replica import Assignment

#: Answers requests on 8080, and gives back lines on 8081 for as long as the client stays.
BOTH = "nc -ll -p 8081 -e cat &\n" + WEB
BLUE, GREEN = {1: 100}, {2: 100}
EACH = 10


class Set:
    """Replicas of one revision behind ``port``, with lines given back behind ``echo_port``."""

    def __init__(self, revision: int, count: int, port: int, echo_port: int) -> None:
        self.revision = revision
        self.names = [f"rev{revision}-{number}" for number in range(count)]
        self._ports = [
            {"container_port": 8080, "publish": port},
            {"container_port": 8081, "publish": echo_port},
        ]

    def told(self, *, run: bool = True, **changes: Any) -> list[Assignment]:
        fields = {
            "ports": self._ports,
            "readiness_probe": {"tcp": {"port": 8080}, "period": "100ms"},
            "stop_grace_period": "5s",
            **changes,
        }
        command = ("sh", "-c", BOTH)
        return [
            assignment(name, *command, run=run, **fields).replaced(revision=self.revision, ordinal=number)
            for number, name in enumerate(self.names)
        ]


async def ready(stage: Stage, *sets: Set) -> None:
    for one in sets:
        for name in one.names:
            await stage.until_running(name, ready=True)


def revisions(answers: Iterable[str]) -> set[str]:
    return {answer.split()[1] for answer in answers}


async def until_answered_by(port: int, revision: int) -> None:
    """Ask until only this revision answers."""
    async with asyncio.timeout(10):
        while revisions([await ask(port) for _ in range(5)]) != {str(revision)}:
            continue


class Echo:
    """A connection that stays."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def alive(self) -> bool:
        try:
            self._writer.write(b"still here\n")
            async with asyncio.timeout(5):
                return await self._reader.readline() == b"still here\n"
        except OSError:
            return False


@asynccontextmanager
async def echo(port: int) -> AsyncIterator[Echo]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        made = Echo(reader, writer)
        assert await made.alive()
        yield made
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def test_switching_to_and_fro_fails_no_request_and_breaks_no_connection(
    stage: Stage, agent_process: AgentProcess
) -> None:
    port, echo_port = free_ports(2)
    blue, green = Set(1, EACH, port, echo_port), Set(2, EACH, port, echo_port)
    stage.tell(*blue.told(), *green.told(), shares=BLUE)
    await ready(stage, blue, green)
    async with AsyncExitStack() as stack, load(port) as requests:
        assert revisions(requests.answers) == {"1"}, "green was never asked"
        kept = [await stack.enter_async_context(echo(echo_port)) for _ in range(5)]
        for shares, revision in ((GREEN, 2), (BLUE, 1), (GREEN, 2), (BLUE, 1), (GREEN, 2)):
            stage.tell(shares=shares)
            await until_answered_by(port, revision)
            # Other requests, all of them made after the switch: an earlier one may be answered late.
            async with load(port) as later:
                await later.until_more(100)
            assert later.failures == []
            assert revisions(later.answers) == {str(revision)}
            assert len(later.answers) == EACH, "all of the set answer"
            kept.append(await stack.enter_async_context(echo(echo_port)))
        assert [await one.alive() for one in kept] == [True] * len(kept)
        # The old set goes: what is established there gets its time, what goes on elsewhere stays.
        stage.tell(*blue.told(run=False, rollout={"drain_time": "1s"}))
        await stage.until_gone(*blue.names)
        await requests.until_more(300)
        living = [await one.alive() for one in kept]
    assert requests.failures == []
    assert living == [False] * 5 + [True, False, True, False, True], "those to the blue set, and only those"
    assert "SharesNotMet" not in stage.reasons


async def test_an_agent_that_is_killed_keeps_the_shares_without_anybody_to_ask(
    stage: Stage, agent_process: AgentProcess
) -> None:
    port, echo_port = free_ports(2)
    blue, green = Set(1, 2, port, echo_port), Set(2, 2, port, echo_port)
    stage.tell(*blue.told(), *green.told(), shares=BLUE)
    await ready(stage, blue, green)
    async with load(port) as requests:
        await agent_process.kill(signal.SIGKILL)
        await requests.until_more(100)
        stage.deaf = True
        await agent_process.start()
        # Meanwhile the probes of the green ones pass again, which must change nothing.
        for _ in range(5):  # each with its own deadline
            await requests.until_more(300)
    assert requests.failures == []
    assert revisions(requests.answers) == {"1"}
    stage.deaf = False
