"""A ledger against a store that fails: what was acknowledged is there, once, and nothing else."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest
from tests.unit.coordinator.world import World, open_world

from cloudless import api
from cloudless.domain.errors import AlreadyExists, NotFound, PreconditionFailed, Unavailable
from cloudless.store.faulty import BuggyWatch, RandomFaults, no_fault

NAMES = ("one", "two", "three")


class Ledger:
    """A client that repeats until it knows, and writes down what it knows."""

    def __init__(self, world: World, chance: random.Random) -> None:
        self.world = world
        self.chance = chance
        self.ids: dict[str, str] = {}
        self.replicas: dict[str, int] = {}

    async def step(self, number: int) -> None:
        name, key = self.chance.choice(NAMES), f"key-{number}"
        kind = self.chance.choice(("create", "scale", "scale", "delete", "kill"))
        wanted = self.chance.randint(0, 4)
        if kind == "create":
            await self.create(name, wanted, key)
        elif kind == "scale" and name in self.ids:
            await self.sure(lambda: self.world.scale(name, wanted, request_id=key))
            self.replicas[name] = wanted
        elif kind == "delete" and name in self.ids:
            await self.sure(lambda: self.world.delete(name, request_id=key))
            del self.ids[name], self.replicas[name]
        elif kind == "kill" and self.chance.random() < 0.3:
            await self.restart()

    async def create(self, name: str, wanted: int, key: str) -> None:
        try:
            created = await self.sure(lambda: self.world.create(name, wanted, request_id=key))
        except (AlreadyExists, PreconditionFailed):
            return
        assert name not in self.ids, "two of one name"
        self.ids[name], self.replicas[name] = created.id, wanted

    async def sure(self, call: Callable[[], Awaitable[api.Workload]]) -> api.Workload:
        """Repeat the same request until its outcome is known."""
        while True:
            try:
                return await call()
            except Unavailable:
                await asyncio.sleep(0.1)

    async def restart(self) -> None:
        faults, mangle = self.world.faulty.decide, self.world.faulty.mangle
        await self.world.kill()
        await self.world.start()
        await self.world.relink("n1")
        self.world.faulty.decide, self.world.faulty.mangle = faults, mangle

    async def verify(self) -> None:
        """Faults are over: everything converges to what the ledger says."""
        for name in NAMES:
            if name in self.ids:
                workload = await self.world.until_ready(name, self.replicas[name])
                assert workload.id == self.ids[name]
            else:
                await self.world.until_gone(name)
                with pytest.raises(NotFound):
                    await self.world.get(name)
        await self.world.settle()
        held = len(self.world.agents["n1"].observed)
        assert held == sum(self.replicas.values()), "nothing runs that nobody asked for"
        assert await self.world.coordinator.cache.compare() == 0


@pytest.mark.parametrize("seed", range(25))
async def test_acknowledged_means_done_exactly_once(seed: int) -> None:
    chance = random.Random(seed)
    async with open_world() as world:
        await world.start()
        await world.join("n1")
        ledger = Ledger(world, chance)
        world.faulty.decide = RandomFaults(random.Random(seed), before=0.1, after=0.1)
        for number in range(40):
            await ledger.step(number)
            await asyncio.sleep(chance.choice((0, 0.01, 0.2)))
        world.faulty.decide = no_fault
        await ledger.verify()


@pytest.mark.parametrize("seed", range(4))
async def test_a_watch_that_loses_changes_costs_time_and_no_truth(seed: int) -> None:
    chance = random.Random(seed)
    async with open_world() as world:
        await world.start()
        await world.join("n1")
        ledger = Ledger(world, chance)
        world.faulty.mangle = BuggyWatch(random.Random(seed), drop=0.05, duplicate=0.1)
        for number in range(20):
            async with asyncio.timeout(3600):
                await ledger.step(number)
            await asyncio.sleep(1)
        world.faulty.mangle = lambda batch: (batch,)
        await world.pass_time(1000)
        await ledger.verify()
