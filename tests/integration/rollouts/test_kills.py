"""The program is killed in the middle of rollouts; whoever comes after it goes on with them."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from tests.integration.published.load import load
from tests.integration.rollouts.conftest import Stage
from tests.integration.rollouts.observer import both, observed

#: Strategy, the fewest that may serve, the most that may exist, in how many parts of how long it is hit.
CASES: list[tuple[dict[str, Any], int, int, int, float]] = [
    ({"max_surge": 1, "max_unavailable": 0}, 4, 5, 3, 1.2),
    ({"strategy": "BLUE_GREEN", "auto_promote": True, "scale_down_delay": "200ms"}, 4, 8, 3, 0.8),
    ({"strategy": "CANARY", "max_unavailable": 0, "steps": [{"weight": 25}, {"weight": 50}]}, 4, 6, 2, 1.2),
    ({"strategy": "RECREATE"}, 0, 4, 2, 0.6),
]
#: Between requests: the program has to start meanwhile, on the same processors.
PAUSE_S = 0.01


@pytest.mark.parametrize(
    ("rollout", "least", "most", "kills", "span_s"), CASES, ids=["rolling", "blue", "canary", "recreate"]
)
async def test_killed_in_the_middle_it_goes_on(
    mortal_stage: Stage, rollout: dict[str, Any], least: int, most: int, kills: int, span_s: float
) -> None:
    stage, chance = mortal_stage, random.Random(str(rollout))
    await stage.deployed(rollout=rollout)
    for turn in range(kills):
        async with observed(stage.served, stage.port) as seen, load(stage.port, PAUSE_S) as requests:
            asked = await stage.updated(env={"TURN": str(turn)})
            # One instant in each part of it.
            await asyncio.sleep(span_s * (turn + chance.random()) / kills)
            await asyncio.to_thread(stage.served.kill)
            await asyncio.to_thread(stage.served.start)
            await stage.until("COMPLETED", stage="", revision=turn + 2, old_replicas=0)
            await requests.count_anew()
        old, new = set(seen.samples[0].existing), set(seen.samples[-1].existing)
        assert len(new) == 4
        assert not old & new
        assert seen.below(least) == []
        assert seen.most <= most
        if least:
            assert requests.failures == []
        else:
            assert both(seen.samples, old, new) == []
        assert {answer.split()[1] for answer in requests.answers} == {str(turn + 2)}
        now = await stage.client.get("web")
        assert now.generation == asked.generation
        assert sum(replica.restarts for replica in now.status.replicas) == 0
        journal = (await stage.client.rollout_of("web")).journal
        assert [entry.verb for entry in journal].count("begin") == 1
        assert [entry.verb for entry in journal].count("end") == 1
