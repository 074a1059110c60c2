"""Every strategy under traffic: no request fails, no bound is broken, whoever is asked."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from tests.integration.published.load import Load, ask, load
from tests.integration.rollouts.conftest import Stage
from tests.integration.rollouts.lasting import KEEP_ALIVE, lasting
from tests.integration.rollouts.observer import both, observed

NEXT = {"TURN": "2"}


def revisions(answers: Counter[str]) -> set[str]:
    """Revisions that answered; each answer is "replica revision"."""
    return {answer.split()[1] for answer in answers}


async def shares(requests: Load, count: int) -> dict[int, float]:
    """Revision -> its part of the next ``count`` answers, without those that were on their way."""
    await requests.count_anew()
    await requests.until_more(count)
    found: Counter[int] = Counter()
    for answer, times in requests.answers.items():
        found[int(answer.split()[1])] += times
    return {revision: times / found.total() for revision, times in found.items()}


@pytest.mark.parametrize(
    ("rollout", "least", "most"),
    [
        ({"max_surge": 1, "max_unavailable": 0}, 4, 5),
        ({"max_surge": 0, "max_unavailable": 1}, 3, 4),
        ({"max_surge": "50%", "max_unavailable": "25%"}, 3, 6),
        ({"max_surge": "100%", "max_unavailable": "100%", "min_available": 3}, 3, 8),
    ],
    ids=["surge", "replace", "mixed", "floor"],
)
async def test_rolling_update(stage: Stage, rollout: dict[str, Any], least: int, most: int) -> None:
    await stage.deployed(rollout=rollout)
    async with observed(stage.served, stage.port) as seen, load(stage.port) as requests:
        await stage.client.follow(await stage.updated(env=NEXT))
        await seen.until(lambda one: one.existing == one.serving)
        await requests.count_anew()
    assert requests.failures == []
    assert revisions(requests.answers) == {"2"}
    assert seen.least >= least
    assert seen.most <= most
    assert len(seen.samples) > 10
    assert seen.samples[-1].existing == seen.samples[-1].serving == seen.of_revision(2)


async def test_recreate_never_has_old_and_new_together(stage: Stage) -> None:
    await stage.deployed(rollout={"strategy": "RECREATE"})
    async with observed(stage.served, stage.port) as seen:
        await stage.client.follow(await stage.updated(env=NEXT))
    old, new = seen.samples[0].existing, seen.samples[-1].existing
    assert len(old) == len(new) == 4
    assert seen.of_revision(2) == new
    assert both(seen.samples, set(old), set(new)) == []
    assert seen.most == 4
    assert (await ask(stage.port)).split()[1] == "2"


async def test_blue_green_switches_at_once_and_back(stage: Stage) -> None:
    rollout = {"strategy": "BLUE_GREEN", "auto_promote": True, "scale_down_delay": "5m"}
    await stage.deployed(rollout=rollout)
    async with observed(stage.served, stage.port) as seen, load(stage.port) as requests:
        blue = seen.samples[0].existing
        await stage.client.follow(await stage.updated(env=NEXT))
        # What is decided is told to clients and to the node at the same time.
        await seen.until(lambda one: not one.serving & blue)
        switched = await shares(requests, 200)
        kept = seen.samples[-1].existing
        await stage.cli("rollout", "abort", "web", "--no-wait")
        await stage.until("ABORTED")
        await seen.until(lambda one: one.serving == blue)
        back = await shares(requests, 200)
    assert requests.failures == []
    assert (switched, back) == ({2: 1.0}, {1: 1.0})
    assert blue < kept
    assert len(kept) == seen.most == 8
    assert seen.least == 4
    assert blue <= seen.samples[-1].existing
    # One instant: no moment at which some of each set got new connections.
    for sample in seen.samples:
        assert sample.serving == blue or not sample.serving & blue


async def test_blue_green_before_the_switch_blue_is_never_touched(stage: Stage) -> None:
    rollout = {"strategy": "BLUE_GREEN", "scale_down_delay": "0s"}
    await stage.deployed(rollout=rollout)
    async with observed(stage.served, stage.port) as seen, load(stage.port) as requests:
        blue = seen.samples[0].existing
        await stage.updated(env=NEXT)
        await stage.until("WAITING_PROMOTION")
        assert await shares(requests, 100) == {1: 1.0}
        await stage.cli("rollout", "abort", "web", "--no-wait")
        await stage.until("ABORTED")
        untouched = seen.samples[-1]
        await stage.updated(env={"TURN": "3"})
        await stage.until("WAITING_PROMOTION", revision=3)
        await stage.cli("rollout", "promote", "web", "--no-wait")
        await stage.until("COMPLETED", stage="", old_replicas=0)
        assert await shares(requests, 100) == {3: 1.0}
    assert requests.failures == []
    assert untouched.serving == blue
    assert all(blue <= one.existing for one in seen.samples if one.at_s <= untouched.at_s)
    assert seen.samples[-1].existing == seen.of_revision(3)
    assert seen.most <= 8


async def test_canary_gets_the_share_that_its_steps_say(stage: Stage) -> None:
    steps = [
        {"weight": 10, "replicas": 1, "pause": {}},
        {"weight": 40, "pause": {"duration": "1s"}},
        {"weight": 70, "replicas": 2, "pause": {}},
    ]
    rollout = {"strategy": "CANARY", "max_surge": "50%", "max_unavailable": 0, "steps": steps}
    await stage.deployed(rollout=rollout)
    measured = []
    async with observed(stage.served, stage.port) as seen, load(stage.port) as requests:
        await stage.updated(env=NEXT)
        for step in (1, 3):
            await stage.until("WAITING_PROMOTION", step=step)
            measured.append((await shares(requests, 1000))[2])
            old = seen.samples[0].existing
            assert old <= seen.samples[-1].existing, "all old replicas stay beside the canaries"
            await stage.cli("rollout", "promote", "web", "--no-wait")
        await stage.until("COMPLETED")
        assert await shares(requests, 100) == {2: 1.0}
    assert requests.failures == []
    assert measured == [pytest.approx(0.1, abs=0.02), pytest.approx(0.7, abs=0.02)]
    assert (seen.least, seen.most <= 6) == (4, True)


@pytest.mark.parametrize("verb", ["abort", "promote"])
async def test_canary_left_early(stage: Stage, verb: str) -> None:
    """Back at once, or past all further steps."""
    steps = [{"weight": 25, "pause": {}}, {"weight": 50, "pause": {}}]
    await stage.deployed(rollout={"strategy": "CANARY", "max_unavailable": 0, "steps": steps})
    async with observed(stage.served, stage.port) as seen, load(stage.port) as requests:
        old = seen.samples[0].existing
        await stage.updated(env=NEXT)
        await stage.until("WAITING_PROMOTION")
        words = ["promote", "web", "--full"] if verb == "promote" else ["abort", "web"]
        await stage.cli("rollout", *words, "--no-wait")
        await stage.until("COMPLETED" if verb == "promote" else "ABORTED")
        assert await shares(requests, 100) == {2 if verb == "promote" else 1: 1.0}
    assert requests.failures == []
    assert seen.least >= 4
    now = seen.samples[-1].existing
    assert now == (seen.of_revision(2) if verb == "promote" else old)


@pytest.mark.parametrize(
    "rollout",
    [
        {"max_surge": 1, "max_unavailable": 0},
        {"strategy": "BLUE_GREEN", "auto_promote": True, "scale_down_delay": "0s"},
    ],
    ids=["rolling", "blue-green"],
)
async def test_connections_that_stay_get_their_drain_time(stage: Stage, rollout: dict[str, Any]) -> None:
    drain_s = 3.0
    await stage.deployed(KEEP_ALIVE, replicas=2, rollout={**rollout, "drain_time": f"{drain_s}s"})
    async with observed(stage.served, stage.port) as seen, lasting(stage.port, 6) as connections:
        await stage.client.follow(await stage.updated(env=NEXT))
        await stage.until("COMPLETED", stage="", old_replicas=0)
        async with asyncio.timeout(30):
            while any(one.ended_s is None for one in connections):
                await asyncio.sleep(0.05)
    assert {one.replica_id for one in connections} == seen.samples[0].existing
    for one in connections:
        assert one.ended_s is not None
        assert one.ended_s >= seen.last_served_s(one.replica_id) + drain_s
        assert one.answers > 10
