"""The program, its containerd, or both die at any time: what runs goes on running, once."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Callable, Iterator

import pytest
from tests.integration.program.conftest import IMAGE
from tests.integration.program.served import Running, Served, alive, until
from tests.integration.program.test_lifecycle import manifest

QUICK = {"backoff": {"base": "100ms"}}
KILLS = {
    "program": lambda served: served.kill(),
    "containerd": lambda served: served.kill_containerd(),
    "both": lambda served: (served.kill(), served.kill_containerd()),
}


@pytest.fixture(scope="module")
def mortal(serve: Callable[..., Served]) -> Served:
    """A program that tests may kill."""
    return serve(name="mortal")


@pytest.fixture
def web(mortal: Served) -> Iterator[list[Running]]:
    mortal.cli("apply", "-f", "-", stdin=manifest(name="web", replicas=3, restart_policy=QUICK))
    yield mortal.running("web")
    mortal.cli("delete", "web", "--grace", "0s", "--wait", "--ignore-missing")


def back(served: Served) -> None:
    if served.process is None:
        served.start()
    served.until_ready()


@pytest.mark.parametrize("victim", KILLS)
def test_what_runs_goes_on(mortal: Served, web: list[Running], victim: str) -> None:
    KILLS[victim](mortal)
    assert all(alive(one.pid) for one in web)
    back(mortal)
    mortal.cli("scale", "web", "4")
    now = mortal.until_running("web", 4)
    assert set(web) < set(now)
    assert [one["restarts"] for one in mortal.replicas("web", phase="RUNNING")] == [0] * 4
    mortal.cli("scale", "web", "3")
    assert len(mortal.until_running("web", 3)) == 3
    assert mortal.cli("exec", "web", "--", "echo", "here").out == "here\n"


def test_killed_at_random_instants_of_updates(mortal: Served, web: list[Running]) -> None:
    chance = random.Random(20240229)
    names = list(KILLS)
    for turn in range(6):
        text = manifest(name="web", replicas=3, env={"TURN": str(turn)}, restart_policy=QUICK)
        mortal.cli("apply", "-f", "-", "--no-wait", stdin=text)
        time.sleep(chance.uniform(0, 0.5))
        KILLS[names[turn % 3]](mortal)
        back(mortal)
    asyncio.run(settled(mortal))
    running = mortal.until_running("web", 3)
    names = [f"web/{one['ordinal']}" for one in mortal.replicas("web")]
    turns = {mortal.cli("exec", name, "--", "sh", "-c", "echo $TURN").out for name in names}
    assert turns == {"5\n"}
    # A container whose start containerd's death cut in two is ended by it, and started once more.
    assert all(one["restarts"] <= 1 for one in mortal.replicas("web"))
    assert sorted(one["container_id"] for one in mortal.replicas("web")) == [
        one.container_id for one in running
    ]


async def settled(served: Served) -> None:
    async with served.client() as client:
        await client.wait("web", timeout_s=60)


def test_what_ended_meanwhile_is_noticed(mortal: Served, web: list[Running]) -> None:
    mortal.kill()
    os.kill(web[0].pid, 9)
    until(lambda: not alive(web[0].pid), "it is dead")
    back(mortal)
    (seen,) = until(lambda: [one for one in mortal.replicas("web") if one["restarts"] == 1], "its restart")
    assert (seen["last_exit"]["code"], seen["id"]) == (137, web[0].replica_id)
    now = until(lambda: mortal.replicas("web", ready=True)[2:] and mortal.running("web"), "three are ready")
    assert {one.pid for one in web[1:]} < {one.pid for one in now}


def test_what_was_deleted_meanwhile_goes(mortal: Served, web: list[Running]) -> None:
    """Asked for, and killed at once: nothing of it may run on."""
    mortal.cli("delete", "web", "--grace", "0s")
    KILLS["both"](mortal)
    back(mortal)
    until(lambda: not mortal.running(), "nothing runs")
    assert not any(alive(one.pid) for one in web)


def test_an_image_is_there_after_all_of_it(mortal: Served) -> None:
    assert IMAGE in mortal.cli("image", "ls").out
