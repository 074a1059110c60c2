"""Whole blue-green and canary rollouts as a node hears of them: never a replica before its shares."""

from __future__ import annotations

import datetime
from collections.abc import Iterator

import pytest
from tests.unit.coordinator.world import World

from cloudless import api

PAUSE = datetime.timedelta(seconds=1)
BLUE_GREEN = api.RolloutStrategy(
    strategy=api.RolloutStrategyStrategy.BLUE_GREEN, auto_promote=True, scale_down_delay=PAUSE
)
CANARY = api.RolloutStrategy(
    strategy=api.RolloutStrategyStrategy.CANARY,
    auto_promote=True,
    steps=[
        api.CanaryStep(weight=10, pause=api.CanaryPause(duration=PAUSE)),
        api.CanaryStep(weight=50, pause=api.CanaryPause(duration=PAUSE)),
    ],
)


def heard(world: World, since: int) -> Iterator[tuple[set[int], dict[int, int], bool]]:
    """Message by message: revisions that are to run, the shares held, and whether these were new."""
    held: dict[int, int] = {}
    agent, running = world.agents["n1"], dict[str, int]()
    for number, message in enumerate(agent.received):
        if message.whole:
            running, held = {}, {}
        for split in message.traffic:
            held = {share.revision: share.percent for share in split.shares}
        for one in message.assignments:
            running[one.replica_id] = one.revision
            if not one.run:
                del running[one.replica_id]
        for replica_id in message.removed:
            running.pop(replica_id, None)
        if number >= since:
            yield set(running.values()), held, bool(message.traffic)


async def rolled_out(world: World, rollout: api.RolloutStrategy, replicas: int) -> int:
    """A workload and its update, to the end; how many messages came before the update."""
    created = await world.create("web", replicas, rollout=rollout)
    await world.until_ready("web", replicas)
    before = len(world.agents["n1"].received)
    spec = api.WorkloadSpec(image="nginx:2", replicas=replicas, rollout=rollout)
    await world.call("update_workload", api.UpdateWorkloadRequest(name="web", spec=spec))
    await world.until(
        lambda: (
            (rollout := world.cluster.statuses[created.id].rollout) is not None
            and rollout.revision == 2
            and rollout.phase == "COMPLETED"
        )
    )
    await world.until(
        lambda: {one.revision for one in world.cluster.replicas_of(created.id)} == {2},
    )
    await world.settle()
    return before


@pytest.mark.parametrize("replicas", [2, 130])
async def test_blue_green(world: World, replicas: int) -> None:
    before = await rolled_out(world, BLUE_GREEN, replicas)
    switches = []
    for running, held, new in heard(world, before):
        if 2 in running and 1 in running:
            assert set(held.values()) - {0} == {100}, "one set or the other"
        if new:
            switches.append({revision for revision, percent in held.items() if percent})
    assert [who for who in switches if who] == [{1}, {2}]


@pytest.mark.parametrize("replicas", [2, 130])
async def test_canary(world: World, replicas: int) -> None:
    before = await rolled_out(world, CANARY, replicas)
    parts = []
    for running, held, new in heard(world, before):
        if running == {1, 2}:
            assert held, "every ready replica alike would be too much for the new ones"
        if new and held:
            parts.append(held.get(2, 0))
    assert parts == sorted(parts)
    assert parts[:1] == [0]
    assert {10, 50} <= set(parts)
