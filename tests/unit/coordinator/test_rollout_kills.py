"""The coordinator dies at random instants of a rollout; its successors go on, or take it back.

Nodes take their time to start and stop. A second reader of the store looks at every single
revision of it: bounds hold in each, nothing runs backwards, and at the end every step was
done exactly once in effect.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tests.unit.coordinator.fakeagent import FakeAgent
from tests.unit.coordinator.steering import P, Strategy, V, order, rollout_in, running, update
from tests.unit.coordinator.world import PATIENCE_S, World, open_world
from tests.unit.planning.checks import STEPPED_OVER, follows, limits

from cloudless import api
from cloudless.coordinator.state.cache import WatchCache
from cloudless.coordinator.state.changes import Changes
from cloudless.coordinator.state.codec import Codec
from cloudless.coordinator.state.journal import read_journal
from cloudless.coordinator.state.typed import TypedStore
from cloudless.domain.errors import CloudlessError, Conflict, PreconditionFailed, Unavailable
from cloudless.domain.replica import ExitStatus, ReplicaPhase
from cloudless.domain.rollout import JournalEntry
from cloudless.domain.rollout import RolloutPhase as Phase
from cloudless.domain.strategy import Strategy as Kind
from cloudless.store.faulty import Call, Fault

REPLICAS = 6
SEEDS = range(26)
STRATEGIES = {
    "recreate": api.RolloutStrategy(strategy=Strategy.RECREATE),
    "rolling": api.RolloutStrategy(max_surge="2", max_unavailable="1"),
    "blue-green": api.RolloutStrategy(strategy=Strategy.BLUE_GREEN),
    "canary": api.RolloutStrategy(
        strategy=Strategy.CANARY,
        max_unavailable="0",
        steps=[
            api.CanaryStep(weight=20, pause=api.CanaryPause()),
            api.CanaryStep(weight=50, pause=api.CanaryPause()),
        ],
    ),
}


#: Phases between which one plan steps over a third: what the store shows of an order and its effect.
IN_ONE_PLAN = {
    *STEPPED_OVER,
    (Phase.PAUSED, Phase.COMPLETED),  # resumed when everything was there
    (Phase.PROGRESSING, Phase.ABORTED),  # aborted before anything had begun
    (Phase.PAUSED, Phase.ABORTED),
    (Phase.WAITING_PROMOTION, Phase.ABORTED),
    (Phase.COMPLETED, Phase.ABORTED),  # the instant way back to an old set that was kept
    (Phase.FAILED, Phase.WAITING_PROMOTION),  # tried again, and all that is to be judged is there
    (Phase.ROLLED_BACK, Phase.WAITING_PROMOTION),
    (Phase.ABORTED, Phase.WAITING_PROMOTION),
    (Phase.ABORTED, Phase.COMPLETED),
    (Phase.ROLLED_BACK, Phase.COMPLETED),
}


class SlowAgent(FakeAgent):
    """Starts and stops take a while; ``bad`` images end with an exit code, for good."""

    def __init__(self, name: str, seed: int) -> None:
        super().__init__(name)
        self.chance = random.Random(f"{name}-{seed}")
        self.begun: list[str] = []

    def _act(self, assignment: api.Assignment, *, new: bool) -> None:
        replica_id = assignment.replica_id
        seen = self.observed.get(replica_id)
        later = asyncio.get_running_loop().call_later
        if not assignment.run:
            if seen is None:
                self.remove(replica_id)
            elif seen.phase is not ReplicaPhase.STOPPING:
                self.observe(replica_id, ReplicaPhase.STOPPING)
                later(self.chance.uniform(0.01, 0.5), self._gone, replica_id)
        elif seen is None:
            self.begun.append(replica_id)
            self.observe(replica_id, ReplicaPhase.STARTING)
            later(self.chance.uniform(0.01, 0.5), self._up, replica_id)

    def _up(self, replica_id: str) -> None:
        told, seen = self.assignments.get(replica_id), self.observed.get(replica_id)
        if told is None or seen is None or seen.phase is not ReplicaPhase.STARTING:
            return
        if told.spec is not None and told.spec.image.endswith(":bad"):
            end = ExitStatus(code=1, finished_at=self.now(), reason="exit code 1", log_tail="cannot")
            self.observe(replica_id, ReplicaPhase.FAILED, last_exit=end, message="exit code 1")
        else:
            self.run(replica_id)

    def _gone(self, replica_id: str) -> None:
        if replica_id in self.observed:
            self.remove(replica_id)


class Witness:
    """Reads the store beside all coordinators, and believes none of them."""

    def __init__(self, world: World) -> None:
        self.cache = WatchCache(world.store, Codec(), world.clock)
        self.stopped: dict[str, int] = {}
        self.made: dict[str, int] = {}
        self.strict = False
        self._last: Any = None

    def look(self, _: Changes) -> None:
        cluster = self.cache.cluster
        record = cluster.workload_named("default", "web")
        if record is None:
            return
        records = list(cluster.replicas_of(record.id))
        for one in records:
            self.made.setdefault(one.id, one.revision)
            if not one.run:
                self.stopped.setdefault(one.id, one.revision)
            else:
                assert one.id not in self.stopped, "nothing that was stopped is revived"
        most, least = limits(record.spec)
        assert len(records) <= most, f"{len(records)} replicas exist"
        if record.spec.rollout.strategy is Kind.RECREATE:
            made_from = {cluster.revisions[record.id][one.revision].spec.template_hash for one in records}
            assert len(made_from) <= 1, "new ones are made when the last old one is gone"
        seen = cluster.observations
        ready = sum(one.run and one.id in seen and seen[one.id].ready for one in records)
        assert not self.strict or ready >= least, f"{ready} available, the floor is {least}"
        status = cluster.statuses.get(record.id)
        if status is not None and status.rollout is not None:
            self._compare((status.observed_generation, status.rollout))

    def _compare(self, now: Any) -> None:
        if self._last is not None and self._last[1].revision == now[1].revision:
            (generation, rollout), (generation_now, rollout_now) = self._last, now
            assert generation_now >= generation
            assert rollout_now.journal >= rollout.journal
            forward = not rollout_now.back_to and rollout_now.retries == rollout.retries
            assert not forward or rollout_now.step >= rollout.step
            steps = rollout.phase, rollout_now.phase
            assert follows(*steps, IN_ONE_PLAN), steps
        self._last = now


@asynccontextmanager
async def witnessed(world: World) -> AsyncIterator[Witness]:
    """A witness for as long as the block lasts; what it objects to ends the block."""
    witness = Witness(world)
    following = asyncio.ensure_future(witness.cache.run())
    objections: list[BaseException] = []

    def look(changes: Changes) -> None:
        try:
            witness.look(changes)
        except AssertionError as error:
            objections.append(error)

    with witness.cache.subscribed(look):
        try:
            yield witness
        finally:
            following.cancel()
            await asyncio.wait({following})
    assert not objections, objections[0]


class Killer:
    """Kills the coordinator around one of its writes, or at any time, and starts the next one."""

    def __init__(self, world: World, chance: random.Random) -> None:
        self.world = world
        self.chance = chance
        self.kills = 0
        self.dead = asyncio.Event()

    def arm(self) -> None:
        """The next death: in some writes' time, before or after the write has happened."""
        left = self.chance.randrange(1, 25)
        fault = self.chance.choice((Fault.BEFORE, Fault.AFTER))

        def decide(call: Call) -> Fault:
            nonlocal left
            if call.name != "txn":
                return Fault.NONE
            left -= 1
            if left == 0:
                self.dead.set()
            return fault if left <= 0 else Fault.NONE

        self.world.faulty.decide = decide

    async def run(self, deaths: int) -> None:
        """So many deaths, then nothing more."""
        for _ in range(deaths):
            self.dead.clear()
            self.arm()
            await asyncio.wait({asyncio.ensure_future(self.dead.wait())}, timeout=self.chance.uniform(0.1, 5))
            await self.world.kill()
            self.kills += 1
            await self.world.start()
            for name in self.world.agents:
                await self.world.relink(name)


async def eventually(world: World, phases: set[P]) -> api.RolloutStatus:
    """Promote whenever somebody has to, until the rollout of revision 2 is in one of the phases."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                rollout = rollout_in(await world.get())
                if rollout.revision == 2 and rollout.phase in phases and rollout.stage != "retire":
                    return rollout
                if rollout.phase is P.WAITING_PROMOTION and not rollout.pending:
                    await order(world, V.PROMOTE, request_id=f"promote-{rollout.step}")
            except CloudlessError:
                pass  # the coordinator is dying, or has just begun: asked again
            await asyncio.sleep(0.05)


@asynccontextmanager
async def rolled_out(name: str, seed: int) -> AsyncIterator[tuple[World, Witness]]:
    """Revision 1 of a workload runs on two slow nodes."""
    async with open_world() as world, witnessed(world) as witness:
        await world.start()
        for node in ("n1", "n2"):
            agent = world.agents[node] = SlowAgent(node, seed)
            agent.now = world.clock.now
            await world.relink(node)
        await running(world, REPLICAS, rollout=STRATEGIES[name])
        await world.settle()
        witness.strict = True
        yield world, witness


async def journal_of(world: World) -> list[JournalEntry]:
    typed = TypedStore(world.store, Codec(), world.clock, lambda *_: None)
    return await read_journal(typed, (await world.get()).id, 2)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", STRATEGIES)
async def test_every_step_is_done_once_however_often_the_coordinator_dies(name: str, seed: int) -> None:
    async with rolled_out(name, seed) as (world, witness):
        generation = (await update(world, "nginx:2")).generation
        killer = Killer(world, random.Random(seed))
        await asyncio.gather(killer.run(1 + seed % 4), eventually(world, {P.COMPLETED}))
        await eventually(world, {P.COMPLETED})
        await world.until(lambda: len(world.cluster.replicas) == REPLICAS)
        await world.settle()
        workload = await world.get()
        status = workload.status
        assert status is not None
        assert (workload.generation, status.observed_generation) == (generation, generation)
        assert (status.current_replicas, status.updated_replicas) == (REPLICAS, REPLICAS)
        made = list(witness.made.values())
        assert (made.count(1), made.count(2)) == (REPLICAS, REPLICAS), "none was made twice"
        assert list(witness.stopped.values()) == [1] * REPLICAS, "only old ones were stopped"
        begun = [replica_id for agent in world.agents.values() for replica_id in agent.begun]  # type: ignore[attr-defined]
        assert sorted(begun) == sorted(witness.made), "each was started once"
        journal = await journal_of(world)
        verbs = [entry.verb for entry in journal]
        assert [entry.sequence for entry in journal] == list(range(1, len(journal) + 1))
        assert (verbs.count("begin"), verbs.count("end")) == (1, 1)
        assert verbs.count("switch") == (name == "blue-green")
        assert verbs.count("promote") == {"blue-green": 1, "canary": 2}.get(name, 0)
        assert killer.kills == 1 + seed % 4


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("name", STRATEGIES)
async def test_a_bad_revision_is_taken_back_however_often_the_coordinator_dies(name: str, seed: int) -> None:
    async with rolled_out(name, seed) as (world, _):
        await update(world, "nginx:bad")
        killer = Killer(world, random.Random(seed))
        await asyncio.gather(killer.run(1 + seed % 3), eventually(world, {P.ROLLED_BACK}))
        back = await eventually(world, {P.ROLLED_BACK})
        await world.until(lambda: len(world.cluster.replicas) == REPLICAS)
        status = (await world.get()).status
        assert status is not None
        assert (status.current_replicas, status.ready_replicas) == (REPLICAS, REPLICAS)
        assert {one.revision for one in status.replicas} == {1}
        assert back.failure is not None
        assert (back.target_revision, back.failure.reason) == (1, "ReplicaFailed")
        journal = await journal_of(world)
        verbs = [entry.verb for entry in journal]
        assert (verbs.count("judge"), verbs.count("end")) == (1, 1)
        assert [entry.sequence for entry in journal] == list(range(1, len(journal) + 1))


async def meddle(world: World, chance: random.Random) -> None:
    """One order or update of somebody who does not look before; refusals are part of it."""
    verb = chance.choice([verb for verb in V if verb] + [None] * 3)
    with contextlib.suppress(PreconditionFailed, Conflict, Unavailable):
        if verb is None:
            await update(world, chance.choice(("nginx:2", "nginx:3", "nginx:4", "nginx:bad")))
        else:
            full = verb is V.PROMOTE and chance.random() < 0.3
            to_revision = chance.randrange(4) if verb is V.UNDO else 0
            await order(world, verb, full=full, to_revision=to_revision)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("name", STRATEGIES)
async def test_people_who_meddle_break_no_bound(name: str, seed: int) -> None:
    """Orders and updates at random, several at once; in the end a good revision is rolled out."""
    async with rolled_out(name, seed) as (world, _):
        chance = random.Random(seed)
        for _ in range(30):
            await asyncio.gather(*(meddle(world, chance) for _ in range(chance.choice((1, 1, 3)))))
            await world.pass_time(chance.uniform(0, 1.5))
        generation = (await update(world, f"nginx:good-{seed}")).generation
        async with asyncio.timeout(PATIENCE_S):
            while True:
                rollout = rollout_in(await world.get())
                if rollout.phase is P.COMPLETED and not rollout.pending:
                    break
                if rollout.phase is P.WAITING_PROMOTION and not rollout.pending:
                    await order(world, V.PROMOTE)
                await asyncio.sleep(0.05)
        await world.until(lambda: len(world.cluster.replicas) == REPLICAS)
        workload = await world.get()
        assert workload.generation == generation
        images = {
            one.spec.image
            for agent in world.agents.values()
            for one in agent.assignments.values()
            if one.spec
        }
        assert images == {f"nginx:good-{seed}"}


def test_the_seeds_are_many() -> None:
    assert len(SEEDS) * len(STRATEGIES) > 100
