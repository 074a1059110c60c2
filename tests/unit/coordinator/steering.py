"""Steering rollouts in tests: orders, updates, and waiting for a phase."""

from __future__ import annotations

import asyncio
import datetime
from typing import Any

from tests.unit.coordinator.world import PATIENCE_S, World

from cloudless import api
from cloudless.api.google import protobuf

V = api.RolloutRequestVerb
P = api.RolloutStatusPhase
Strategy = api.RolloutStrategyStrategy
SECONDS = [datetime.timedelta(seconds=number) for number in range(100)]
BLUE_GREEN = api.RolloutStrategy(strategy=Strategy.BLUE_GREEN, scale_down_delay=SECONDS[30])
CANARY = api.RolloutStrategy(
    strategy=Strategy.CANARY,
    steps=[
        api.CanaryStep(weight=25, pause=api.CanaryPause()),
        api.CanaryStep(weight=50, pause=api.CanaryPause(duration=SECONDS[60])),
    ],
)


async def order(world: World, verb: api.RolloutRequestVerb, name: str = "web", **fields: Any) -> api.Workload:
    answer = await world.call("rollout", api.RolloutRequest(name=name, verb=verb, **fields))
    return answer.workload  # type: ignore[no-any-return]


async def shown(world: World, revision: int = 0, name: str = "web", **fields: Any) -> api.GetRolloutResponse:
    request = api.GetRolloutRequest(name=name, revision=revision, **fields)
    return await world.call("get_rollout", request)  # type: ignore[no-any-return]


async def update(world: World, image: str) -> api.Workload:
    request = api.UpdateWorkloadRequest(
        name="web",
        spec=api.WorkloadSpec(image=image),
        update_mask=protobuf.FieldMask(paths=["spec.image"]),
    )
    return (await world.call("update_workload", request)).workload  # type: ignore[no-any-return]


async def until(world: World, *phases: P, revision: int = 0) -> api.RolloutStatus:
    """The rollout once it is in one of these phases and nothing is pending."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            rollout = rollout_in(await world.get())
            wanted = revision in (0, rollout.revision) and rollout.phase in phases
            if wanted and not rollout.pending:
                return rollout
            await asyncio.sleep(0.005)


def rollout_in(workload: api.Workload) -> api.RolloutStatus:
    assert workload.status is not None
    return workload.status.rollout or api.RolloutStatus(pending=True)


def images_on(world: World) -> set[str]:
    return {one.spec.image for one in world.agents["n1"].assignments.values() if one.run and one.spec}


async def running(world: World, replicas: int = 4, **fields: Any) -> None:
    """A workload "web" whose first revision is rolled out."""
    await world.create("web", replicas, **fields)
    await until(world, P.COMPLETED)
