"""Queues, slots, clocks and owners of tasks."""

from __future__ import annotations

import asyncio
import datetime
import random
from itertools import pairwise

import pytest

from cloudless.aio.backoff import Backoff
from cloudless.aio.clock import ManualClock, SystemClock
from cloudless.aio.keyqueue import KeyQueue
from cloudless.aio.slot import LatestSlot
from cloudless.aio.supervise import Supervisor
from cloudless.aio.turns import Turns

START = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


async def test_a_key_put_many_times_is_taken_once() -> None:
    queue: KeyQueue[str] = KeyQueue(SystemClock())
    for key in ("a", "b", "a", "a"):
        queue.put(key)
    assert len(queue) == 2
    assert [await queue.take(), await queue.take()] == ["a", "b"]


async def test_a_key_put_while_it_is_handled_is_taken_again_but_not_at_the_same_time() -> None:
    queue: KeyQueue[str] = KeyQueue(SystemClock())
    queue.put("a")
    key = await queue.take()
    queue.put("a")
    assert len(queue) == 0, "two workers would handle the same key"
    queue.done(key)
    assert await queue.take() == "a"


async def test_wake_up_times_keep_the_earliest() -> None:
    clock = ManualClock(START)
    queue: KeyQueue[str] = KeyQueue(clock)
    queue.wake_at("a", 50)
    queue.wake_at("a", 20)
    queue.wake_at("a", 90)
    clock.advance(20)
    async with asyncio.timeout(5):
        assert await queue.take() == "a"
    queue.done("a")
    clock.advance(100)
    queue.put("end")
    assert await queue.take() == "end", "superseded wake-ups must not come back"


async def test_a_taker_wakes_for_a_key_that_is_due_sooner() -> None:
    queue: KeyQueue[str] = KeyQueue(SystemClock())
    queue.wake_at("late", queue._clock.monotonic() + 1000)
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        taker = group.create_task(queue.take())
        await asyncio.sleep(0)
        queue.wake_at("soon", queue._clock.monotonic() + 0.01)
    assert taker.result() == "soon"


async def test_the_newest_value_wins() -> None:
    slot: LatestSlot[int] = LatestSlot()
    slot.put(1)
    slot.put(2)
    assert await slot.take() == 2
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await slot.take()


def test_jitter_stays_within_half_and_the_whole() -> None:
    backoff = Backoff(base_s=8, cap_s=8, jitter=random.Random(7))
    delays = [backoff.next() for _ in range(100)]
    assert all(4 <= delay <= 8 for delay in delays)
    assert len(set(delays)) > 50


async def test_leaving_the_block_ends_every_child() -> None:
    ended = []

    async def child(name: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(name)

    async with Supervisor("owner") as owner:
        owner.start("a", child("a"))
        owner.start("b", child("b"))
        await asyncio.sleep(0)
        assert set(owner.names) == {"a", "b"}
    assert sorted(ended) == ["a", "b"]


async def test_a_failed_child_fails_the_owner() -> None:
    async def broken() -> None:
        raise LookupError("a bug")

    with pytest.raises(LookupError):
        async with asyncio.timeout(5), Supervisor("owner") as owner:
            owner.start("broken", broken())
            await owner.wait()


async def test_a_failure_nobody_waited_for_is_raised_on_leaving() -> None:
    async def broken() -> None:
        raise LookupError("a bug")

    with pytest.raises(LookupError):
        async with Supervisor("owner") as owner:
            owner.start("broken", broken())
            await asyncio.sleep(0)
            await asyncio.sleep(0)


async def test_two_children_never_share_a_name() -> None:
    async with Supervisor("owner") as owner:
        owner.start("a", asyncio.Event().wait())
        with pytest.raises(RuntimeError, match="already runs"):
            owner.start("a", asyncio.Event().wait())


async def test_a_restarting_child_runs_again_until_it_ends_well() -> None:
    runs = []

    async def flaky() -> None:
        runs.append(1)
        if len(runs) < 3:
            raise ConnectionError("again")

    async with asyncio.timeout(5), Supervisor("owner") as owner:
        await owner.start_restarting("flaky", flaky, Backoff(base_s=0.001, cap_s=0.001))
    assert len(runs) == 3


async def test_stopping_one_child_leaves_the_others() -> None:
    async with Supervisor("owner") as owner:
        owner.start("a", asyncio.Event().wait())
        owner.start("b", asyncio.Event().wait())
        await owner.stop("a")
        assert owner.names == ("b",)


async def test_a_manual_clock_wakes_sleepers_when_their_time_has_come() -> None:
    clock = ManualClock(START)
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        sleeper = group.create_task(clock.sleep(10))
        await asyncio.sleep(0)
        clock.advance(9.9)
        await asyncio.sleep(0)
        assert not sleeper.done()
        clock.advance(0.1)
    assert clock.now() == START + datetime.timedelta(seconds=10)


async def test_turns_let_some_pass_at_a_time_in_order_and_others_between() -> None:
    turns, passed = Turns(2), []

    async def one(number: int) -> None:
        await turns.take()
        passed.append(number)

    tasks = [asyncio.ensure_future(one(number)) for number in range(7)]
    tasks[3].cancel()
    seen = []
    while not all(task.done() for task in tasks):
        await asyncio.sleep(0)
        seen.append(len(passed))
    assert passed == [0, 1, 2, 4, 5, 6]
    assert max(after - before for before, after in pairwise([0, *seen])) == 2
    for _ in range(3):
        await asyncio.sleep(0)
    assert not turns._renews, "nothing runs when nobody comes"
    await one(8)
    assert passed[-1] == 8
