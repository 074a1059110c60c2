"""One leader at a time, and no write of an old one."""

from __future__ import annotations

import asyncio
import logging
import random
import shutil
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from tests.unit.store.subject import DEADLINE_S, delete, open_files, put

from cloudless.aio.clock import ManualClock
from cloudless.store.election import Leadership, lead
from cloudless.store.errors import Fenced
from cloudless.store.faulty import Fault, FaultAt, FaultyStore, RandomFaults
from cloudless.store.local import LocalStore
from cloudless.store.memory import open_memory
from cloudless.store.port import Compare, Delete, Get, Put, Store

KEY = "leader"
TTL_S = 10


class Candidate:
    """Runs for leadership in a task of its own, as a process would."""

    def __init__(self, store: Store, clock: ManualClock, name: str) -> None:
        self.leadership: asyncio.Future[Leadership] = asyncio.get_running_loop().create_future()
        self.reason = ""
        self.task = asyncio.ensure_future(self._run(store, clock, name))

    async def _run(self, store: Store, clock: ManualClock, name: str) -> None:
        async with lead(store, clock, key=KEY, candidate=name.encode(), ttl_s=TTL_S) as leadership:
            self.leadership.set_result(leadership)
            self.reason = await leadership.lost()

    async def elected(self) -> Leadership:
        async with asyncio.timeout(DEADLINE_S):
            return await asyncio.shield(self.leadership)

    async def resign(self) -> None:
        (await self.elected()).stand_down("the test says so")
        await self.task

    async def ended(self) -> str:
        async with asyncio.timeout(DEADLINE_S):
            await self.task
        return self.reason


async def settle(rounds: int = 30) -> None:
    """Let everything run that can run without time passing."""
    for _ in range(rounds):
        await asyncio.sleep(0)


@pytest.fixture
async def store(clock: ManualClock):
    async with open_memory(clock) as store:
        yield store


async def test_the_first_candidate_leads(store: LocalStore, clock: ManualClock) -> None:
    async with lead(store, clock, key=KEY, candidate=b"one", ttl_s=TTL_S) as leadership:
        found = await store.get(KEY)
        assert found is not None
        assert (found.value, found.create_revision) == (b"one", leadership.epoch)
        assert found.lease
        assert leadership.holds
        result = await leadership.txn([], [Put("k", b"1")])
        assert result.succeeded
    assert not leadership.holds
    assert await store.get(KEY) is None


async def test_the_next_one_follows_at_once_when_the_leader_resigns(
    store: LocalStore, clock: ManualClock
) -> None:
    one = Candidate(store, clock, "one")
    first = await one.elected()
    others = [Candidate(store, clock, f"other-{n}") for n in range(3)]
    await settle()
    assert not any(other.leadership.done() for other in others)
    epochs = [first.epoch]
    await one.resign()
    while others:
        async with asyncio.timeout(DEADLINE_S):
            await asyncio.wait([o.leadership for o in others], return_when=asyncio.FIRST_COMPLETED)
        winners = [other for other in others if other.leadership.done()]
        assert len(winners) == 1
        epochs.append((await winners[0].elected()).epoch)
        others.remove(winners[0])
        await winners[0].resign()
    assert epochs == sorted(set(epochs))
    assert clock.monotonic() == 0


async def test_an_old_leader_cannot_write(store: LocalStore, clock: ManualClock) -> None:
    one = Candidate(store, clock, "one")
    old = await one.elected()
    await delete(store, Delete(KEY))  # as its lease would, while the old one is paused
    two = Candidate(store, clock, "two")
    new = await two.elected()
    assert new.epoch > old.epoch
    assert old.holds, "it does not know yet"
    with pytest.raises(Fenced):
        await old.txn([], [Put("k", b"old")])
    assert not old.holds
    with pytest.raises(Fenced):
        await old.txn([], [Put("k", b"old")])
    assert not (await store.txn([old.fence()], [Put("k", b"old")])).succeeded
    assert await store.get("k") is None
    await new.txn([Compare.absent("k")], [Put("k", b"new")])
    assert await one.ended()
    assert new.holds
    await two.resign()


async def test_a_failed_compare_is_not_a_lost_epoch(store: LocalStore, clock: ManualClock) -> None:
    at = await put(store, "k", b"1")
    async with lead(store, clock, key=KEY, candidate=b"one", ttl_s=TTL_S) as leadership:
        result = await leadership.txn([Compare.absent("k")], [Put("k", b"2")], [Get("k"), Put("l", b"")])
        assert not result.succeeded
        assert [getattr(answer, "mod_revision", None) for answer in result.responses] == [at, None]
        assert leadership.holds


async def test_a_leader_renews(store: LocalStore, clock: ManualClock) -> None:
    async with lead(store, clock, key=KEY, candidate=b"one", ttl_s=TTL_S) as leadership:
        for _ in range(30):
            await settle(5)
            clock.advance(TTL_S / 4)
            await settle(5)
        assert leadership.holds
        assert await store.get(KEY) is not None


async def test_a_leader_cut_off_stands_down_before_its_lease_ends(
    store: LocalStore, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    cut = FaultyStore(store)
    one, two = Candidate(cut, clock, "one"), Candidate(store, clock, "two")
    old = await one.elected()
    await settle()
    cut.down = True
    while old.holds:
        assert not two.leadership.done()
        clock.advance(0.25)
        await settle()
    assert clock.monotonic() < TTL_S
    assert "renewed" in await one.ended()
    while not two.leadership.done():
        clock.advance(0.25)
        await settle()
    assert TTL_S <= clock.monotonic() < TTL_S + 2
    assert (await two.elected()).epoch > old.epoch
    await two.resign()


async def test_a_leader_that_was_paused_stands_down_at_once(store: LocalStore, clock: ManualClock) -> None:
    one = Candidate(store, clock, "one")
    leadership = await one.elected()
    await settle()
    clock.advance(TTL_S * 3)
    assert not leadership.holds
    with pytest.raises(Fenced):
        await leadership.txn([], [Put("k", b"")])
    assert await one.ended()
    assert await store.get("k") is None


@pytest.mark.parametrize("index", range(12))
@pytest.mark.parametrize("fault", [Fault.BEFORE, Fault.AFTER])
async def test_a_fault_anywhere_delays_but_never_doubles(
    store: LocalStore, clock: ManualClock, index: int, fault: Fault
) -> None:
    one = Candidate(FaultyStore(store, FaultAt(index, fault)), clock, "one")
    two = Candidate(FaultyStore(store, FaultAt(index, fault)), clock, "two")
    for _ in range(400):
        await settle(5)
        leading = [c for c in (one, two) if c.leadership.done() and c.leadership.result().holds]
        assert len(leading) <= 1
        if leading and clock.monotonic() > TTL_S * 2:
            break
        clock.advance(0.2)
    else:
        pytest.fail("nobody leads")
    for candidate in (one, two):
        candidate.task.cancel()
    await asyncio.gather(one.task, two.task, return_exceptions=True)


async def test_with_random_faults_epochs_grow_and_old_writes_fail(
    store: LocalStore, clock: ManualClock
) -> None:
    rng = random.Random(7)
    names = iter(range(1000))
    running: list[Candidate] = []
    writes: list[int] = []

    async def write(leadership: Leadership) -> None:
        try:
            await leadership.txn([], [Put("written-by", b"%d" % leadership.epoch)])
        except Fenced:
            return
        writes.append(leadership.epoch)

    for _ in range(600):
        running = [candidate for candidate in running if not candidate.task.done()]
        while len(running) < 3:
            faults = RandomFaults(random.Random(rng.random()), before=0.1, after=0.1)
            running.append(Candidate(FaultyStore(store, faults), clock, str(next(names))))
        clock.advance(rng.choice([0.1, 0.5, 1, 4]))
        await settle(8)
        for candidate in running:
            if candidate.leadership.done():
                task = asyncio.ensure_future(write(candidate.leadership.result()))
                await asyncio.gather(task, return_exceptions=True)
        if rng.random() < 0.1:
            rng.choice(running).task.cancel()
        await settle(2)
    for candidate in running:
        candidate.task.cancel()
    await asyncio.gather(*(candidate.task for candidate in running), return_exceptions=True)
    assert writes == sorted(writes)
    assert len(set(writes)) > 10


async def test_a_restarted_process_takes_over_at_once(tmp_path: Path, clock: ManualClock) -> None:
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(open_files(tmp_path / "a", clock))
        old = await stack.enter_async_context(lead(store, clock, key=KEY, candidate=b"one", ttl_s=3600))
        shutil.copytree(tmp_path / "a", tmp_path / "b")  # what kill -9 leaves
        async with (
            asyncio.timeout(DEADLINE_S),
            open_files(tmp_path / "b", clock) as reopened,
            lead(reopened, clock, key=KEY, candidate=b"two", ttl_s=3600) as new,
        ):
            assert new.epoch > old.epoch
            assert not (await reopened.txn([old.fence()], [Put("k", b"")])).succeeded
            await new.txn([], [Put("k", b"")])
            rival = Candidate(reopened, clock, "rival")
            for _ in range(10):  # so much time on the disk that the rival had its chance
                await settle()
                assert (await new.txn([], [Put("k", b"")])).succeeded
            assert not rival.leadership.done(), "only what a former process left is taken over"
            rival.task.cancel()
            await asyncio.gather(rival.task, return_exceptions=True)
    assert clock.monotonic() == 0
