"""Items of a stream, and the pauses between them, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import pytest
from tests.unit.agent.virtual import virtual

from cloudless.aio.pauses import PAUSE, with_pauses

Seen = list[tuple[float, object]]


class Source:
    """Gives items after delays; knows how it ended."""

    def __init__(self, *steps: tuple[float, object]) -> None:
        self.steps = steps
        self.ended = ""

    async def items(self) -> AsyncGenerator[object, None]:
        try:
            for delay_s, item in self.steps:
                await asyncio.sleep(delay_s)
                if isinstance(item, Exception):
                    raise item
                yield item
            self.ended = "by itself"
        finally:
            self.ended = self.ended or "early"


async def read(source: Source, limits_s: Sequence[float | None]) -> Seen:
    """All that comes, with its time; the last limit is for all that follow."""
    limits, seen = list(limits_s), []
    loop = asyncio.get_running_loop()
    async with aclosing(
        with_pauses(source.items(), lambda: limits.pop(0) if limits[1:] else limits[0])
    ) as all:
        async for item in all:
            seen.append((round(loop.time(), 6), item))
    return seen


@virtual
async def test_without_a_limit_the_items_are_just_passed_on() -> None:
    source = Source((5, "a"), (50, "b"))
    assert await read(source, [None]) == [(5, "a"), (55, "b")]
    assert source.ended == "by itself"


@virtual
async def test_pauses_are_told_and_nothing_is_lost() -> None:
    assert await read(Source((1, "a"), (1, "b"), (3, "c"), (0, "d")), [2]) == [
        (1, "a"),
        (2, "b"),
        (4, PAUSE),
        (5, "c"),
        (5, "d"),
    ]


@virtual
async def test_after_a_pause_one_may_wait_for_ever() -> None:
    assert await read(Source((0, "a"), (100, "b"), (1, "c")), [None, 1, None]) == [
        (0, "a"),
        (1, PAUSE),
        (100, "b"),
        (101, "c"),
    ]


@virtual
async def test_an_error_is_raised_here() -> None:
    for limit_s in (None, 1.0, 100.0):
        with pytest.raises(ValueError, match="broken"):
            await read(Source((0, "a"), (5, ValueError("broken"))), [limit_s])


@virtual
async def test_who_leaves_in_a_pause_ends_the_wait() -> None:
    source = Source((1000, "a"))
    async with aclosing(with_pauses(source.items(), lambda: 1.0)) as items:
        assert await anext(items) is PAUSE
    assert source.ended == "early"
    assert len(asyncio.all_tasks()) == 1


@virtual
async def test_who_is_cancelled_in_a_wait_ends_it() -> None:
    source = Source((1000, "a"))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(2):
            await read(source, [100])
    assert source.ended == "early"
    assert asyncio.get_running_loop().time() == 2
