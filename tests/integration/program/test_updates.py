"""Updates seen by an observer who asks containerd, not us: no bound is ever broken."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.integration.program.served import Served
from tests.integration.program.test_lifecycle import manifest

REPLICAS = 4


@contextlib.asynccontextmanager
async def observed(served: Served) -> AsyncIterator[list[set[str]]]:
    """Which replicas ran, sampled all the time while the block runs."""
    samples: list[set[str]] = []

    async def sample() -> None:
        while True:
            samples.append({one.replica_id for one in await served.list_running()})
            await asyncio.sleep(0.01)

    task = asyncio.ensure_future(sample())
    try:
        yield samples
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@pytest.mark.parametrize(
    ("rollout", "least", "most"),
    [
        ({"strategy": "ROLLING_UPDATE", "max_surge": "1", "max_unavailable": "0"}, 4, 5),
        ({"strategy": "ROLLING_UPDATE", "max_surge": "0", "max_unavailable": "1"}, 3, 4),
        ({"strategy": "ROLLING_UPDATE", "max_surge": "100%", "max_unavailable": "50%"}, 2, 8),
        ({"strategy": "RECREATE"}, 0, 4),
    ],
    ids=["surge", "replace", "fast", "recreate"],
)
async def test_bounds(tidy: Served, rollout: dict[str, Any], least: int, most: int) -> None:
    def text(turn: int) -> str:
        return manifest(name="web", replicas=REPLICAS, rollout=rollout, env={"TURN": str(turn)})

    await asyncio.to_thread(tidy.cli, "apply", "-f", "-", stdin=text(1))
    old = {one.replica_id for one in await tidy.list_running()}
    async with observed(tidy) as samples:
        await asyncio.to_thread(tidy.cli, "apply", "-f", "-", stdin=text(2))
    new = {one.replica_id for one in await tidy.list_running()}
    assert len(old) == len(new) == REPLICAS
    assert not old & new
    assert len(samples) > 20
    # A look takes a while, in which one may begin and another end: it may have missed both, or seen
    # both. What neither of two looks saw did not run; what both saw ran all the time between them.
    pairs = list(itertools.pairwise(samples))
    assert least <= min(len(one | two) for one, two in pairs)
    assert max(len(one & two) for one, two in pairs) <= most
    if rollout["strategy"] == "RECREATE":
        both = [one & two for one, two in pairs]
        assert not [one for one in both if one & old and one & new], "old and new never run together"


async def test_a_new_specification_in_the_middle_supersedes(tidy: Served) -> None:
    texts = [manifest(name="web", replicas=3, env={"TURN": str(turn)}) for turn in range(4)]
    await asyncio.to_thread(tidy.cli, "apply", "-f", "-", stdin=texts[0])
    for text in texts[1:]:
        await asyncio.to_thread(tidy.cli, "apply", "-f", "-", "--no-wait", stdin=text)
    async with tidy.client() as client:
        await client.wait("web", timeout_s=30)
    assert len(await tidy.list_running()) == 3
    assert (await asyncio.to_thread(tidy.cli, "exec", "web", "--", "sh", "-c", "echo $TURN")).out == "3\n"
