"""The faults happen where they are asked for, and only there."""

from __future__ import annotations

import random

import pytest
from tests.unit.store.subject import put, take

from cloudless.aio.clock import ManualClock
from cloudless.store.errors import Unavailable
from cloudless.store.faulty import BuggyWatch, Fault, FaultAt, FaultyStore, RandomFaults
from cloudless.store.memory import open_memory


async def test_before_means_nothing_happened(clock: ManualClock) -> None:
    async with open_memory(clock) as store:
        faulty = FaultyStore(store, FaultAt(1, Fault.BEFORE))
        await put(faulty, "a")
        with pytest.raises(Unavailable) as caught:
            await put(faulty, "b")
        assert not caught.value.outcome_unknown
        await put(faulty, "c")
        assert [item.key for item in (await store.range("")).items] == ["a", "c"]


async def test_after_means_it_happened_unseen(clock: ManualClock) -> None:
    async with open_memory(clock) as store:
        faulty = FaultyStore(store, FaultAt(0, Fault.AFTER))
        with pytest.raises(Unavailable) as caught:
            await put(faulty, "a")
        assert caught.value.outcome_unknown
        assert await store.get("a") is not None


async def test_a_store_that_is_down(clock: ManualClock) -> None:
    async with open_memory(clock) as store:
        faulty = FaultyStore(store, down=True)
        with pytest.raises(Unavailable):
            await faulty.get("a")
        assert not (await faulty.status()).ready
        faulty.down = False
        assert await faulty.get("a") is None


async def test_equal_seeds_make_equal_faults(clock: ManualClock) -> None:
    async def outcomes(seed: int) -> list[bool]:
        async with open_memory(clock) as store:
            faulty = FaultyStore(store, RandomFaults(random.Random(seed), before=0.2, after=0.2))
            done: list[bool] = []
            for number in range(50):
                try:
                    await put(faulty, f"k{number}")
                    done.append(True)
                except Unavailable:
                    done.append(False)
            return done

    first = await outcomes(1)
    assert first == await outcomes(1)
    assert first != await outcomes(2)
    assert {True, False} == set(first)


async def test_a_watch_loses_and_repeats_batches(clock: ManualClock) -> None:
    async with open_memory(clock) as store:
        faulty = FaultyStore(store, mangle=BuggyWatch(random.Random(3), drop=0.2, duplicate=0.2))
        for _ in range(100):
            await put(store, "k")
        async with faulty.watch("", start_revision=2) as batches:
            revisions = [batch.revision for batch in await take(batches, 80)]
    assert revisions == sorted(revisions)
    assert len(set(revisions)) < len(revisions)
    assert set(range(2, revisions[-1])) - set(revisions)
