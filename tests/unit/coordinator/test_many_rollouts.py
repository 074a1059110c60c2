"""Many rollouts at the same time: all of them end, and none waits for the others' ends.

Whole roles in memory and virtual time: what is compared is when rollouts end by the
world's own clock, on nodes whose starts and stops take a while.
"""

from __future__ import annotations

import asyncio
import statistics

from tests.unit.coordinator.steering import P, rollout_in
from tests.unit.coordinator.test_rollout_kills import SlowAgent
from tests.unit.coordinator.world import World, open_world

from cloudless import api

ROLLOUTS = 100
REPLICAS = 2


async def completed(world: World, revision: int) -> list[api.RolloutStatus]:
    """Every workload's rollout once all of them are completed."""
    async with asyncio.timeout(100):
        while True:
            answer = await world.call("list_workloads", api.ListWorkloadsRequest(page_size=ROLLOUTS))
            found = [rollout_in(one) for one in answer.workloads]
            done = [one for one in found if one.revision == revision and one.phase is P.COMPLETED]
            if len(done) == ROLLOUTS and not any(one.pending for one in done):
                return done
            await asyncio.sleep(0.5)


async def test_many_rollouts_at_once_all_end_and_the_last_not_long_after_the_others() -> None:
    async with open_world() as world:
        await world.start()
        for node in ("n1", "n2", "n3"):
            agent = world.agents[node] = SlowAgent(node, 1)
            agent.now = world.clock.now
            await world.relink(node)
        names = [f"w{number}" for number in range(ROLLOUTS)]
        for name in names:
            await world.create(name, REPLICAS)
        await completed(world, 1)
        begun = world.clock.now()
        for name in names:
            spec = api.WorkloadSpec(image="nginx:2", replicas=REPLICAS)
            await world.call("update_workload", api.UpdateWorkloadRequest(name=name, spec=spec))
        rollouts = await completed(world, 2)
    took = sorted((one.ended_at - begun).total_seconds() for one in rollouts if one.ended_at is not None)
    median = statistics.median(took)
    assert len(took) == ROLLOUTS
    # A rollout of two replicas takes two starts and two stops in turn, up to half a second each.
    assert 0 < median < 2
    assert took[-1] <= 2.5 * median, "the last one has not waited for the others"
