"""What readers who pause hold: bytes are counted, on their way from nodes to any number of streams."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AsyncExitStack

import pytest
from tests.unit.coordinator.fakelogs import FakeSource
from tests.unit.coordinator.test_logs import Lines, logs, running
from tests.unit.coordinator.world import World

from cloudless import api
from cloudless.coordinator import limits
from cloudless.coordinator.services.logbudget import LogBudget
from cloudless.coordinator.services.logsource import WIDER_BYTES
from cloudless.coordinator.services.logstream import LogStreams

LINE_BYTES = 1000
LINES = 1000
#: Lines of one batch.
STEP = 50
BATCH_BYTES = STEP * (LINE_BYTES + 100)
STREAMS = 30


def budget_of(world: World, limit_bytes: int | None = None) -> LogBudget:
    """What the streams share; with another limit from now on."""
    streams = world.coordinator.service._logs
    assert isinstance(streams, LogStreams)
    if limit_bytes is not None:
        streams._budget = LogBudget(limit_bytes)
    return streams._budget


class Sent:
    """Counts the lines that leave the node."""

    def __init__(self, world: World, source: FakeSource) -> None:
        source.lines = [(at, b"x" * LINE_BYTES) for at in range(LINES)]
        self._logs = world.agents["n1"].logs
        self._logs.step = STEP
        self._all = self._logs._rest
        self._logs._rest = self._rest  # type: ignore[method-assign, assignment]
        self.bytes = 0

    def _rest(self, known: dict[str, int]) -> Iterator[api.LogBatch]:
        for batch in self._all(known):
            self.bytes += sum(chunk.lines.count(b"\n") for chunk in batch.chunks) * LINE_BYTES
            yield batch


async def paused(stack: AsyncExitStack, world: World, count: int) -> list[Lines]:
    """Readers of the flood who took their first lines and then nothing more."""
    readers = [await stack.enter_async_context(logs(world, follow=True)) for _ in range(count)]
    for reader in readers:
        await reader.next()
        await reader.next()
    await world.pass_time(60)
    return readers


@pytest.mark.parametrize("budget_bytes", [0, 3 * BATCH_BYTES, 20 * BATCH_BYTES])
async def test_readers_who_pause_hold_a_batch_each_and_the_budget(world: World, budget_bytes: int) -> None:
    (source,) = await running(world, 1)
    sent, budget = Sent(world, source), budget_of(world, budget_bytes)
    async with AsyncExitStack() as stack:
        readers = await paused(stack, world, STREAMS)
        # One that waited for a batch when the budget was not used up may put it on top of it.
        assert sent.bytes - STREAMS * STEP * LINE_BYTES <= budget_bytes + (STREAMS + 1) * BATCH_BYTES
        assert budget.held_bytes <= budget_bytes + (STREAMS + 1) * BATCH_BYTES
        assert [len(reader.texts) for reader in readers] == [STEP] * STREAMS
        for reader in readers:
            await reader.caught_up()
            assert len(reader.texts) == LINES, "and then they get the rest"
        source.lines = [*source.lines, (LINES, b"last")]
        world.agents["n1"].logs.changed()
        for reader in readers:
            await reader.until("last")
    assert budget.held_bytes == 0


async def test_one_reader_alone_may_let_its_buffer_fill(world: World) -> None:
    (source,) = await running(world, 1)
    sent = Sent(world, source)
    async with AsyncExitStack() as stack:
        (reader,) = await paused(stack, world, 1)
        held = sent.bytes - STEP * LINE_BYTES
        assert limits.LOG_BUFFER_BYTES / 2 < held <= limits.LOG_BUFFER_BYTES + BATCH_BYTES
        assert len((await reader.caught_up()).texts) == LINES


async def test_wide_windows_of_links_are_of_the_budget_too(world: World) -> None:
    (source,) = await running(world, 1)
    agent = world.agents["n1"]
    budget = budget_of(world, 2 * WIDER_BYTES + 10)
    for _ in range(2):
        agent.narrow_calls = 0
        async with AsyncExitStack() as stack:
            readers = [await stack.enter_async_context(logs(world, follow=True)) for _ in range(5)]
            for reader in readers:
                await reader.caught_up()
            assert agent.narrow_calls == 3, "two of five have wide ones"
            source.lines = [*source.lines, (len(source.lines), b"more")]
            agent.logs.changed()
            for reader in readers:
                await reader.until("more")
        assert budget.held_bytes == 0


async def test_all_that_is_held_in_the_end_is_what_the_docs_say() -> None:
    streams, base_kib = limits.MAX_LOG_STREAMS_OF_CALLER, 64
    narrow_kib = 72
    assert limits.LOG_BUDGET_BYTES // 1024 + streams * (base_kib + narrow_kib) <= 200 * 1024
    assert limits.LOG_BUDGET_BYTES >= 100 * WIDER_BYTES, "readers of an ordinary day have wide windows"
