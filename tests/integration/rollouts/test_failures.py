"""Bad images: each failure is told whole, and taken back while nobody who asks notices."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.integration.containerd.registry import running_registry
from tests.integration.published.conftest import WEB
from tests.integration.published.load import load
from tests.integration.rollouts.conftest import Stage
from tests.integration.rollouts.observer import observed

import cloudless

SURGE = {"max_surge": 1, "max_unavailable": 0}
CRASHES = "echo reading /etc/web.conf; echo 'error: no such file' >&2; exit 3"
NEVER_READY = "trap 'exit 0' TERM; echo warming up; while :; do sleep 0.1; done"
#: Serves long enough to be ready, then ends badly.
DIES_LATER = WEB.replace("wait $server", "sleep 0.6; echo 'out of luck' >&2; exit 7")
STRATEGIES: dict[str, dict[str, Any]] = {
    "rolling": SURGE,
    "blue-green": {"strategy": "BLUE_GREEN", "auto_promote": True, "scale_down_delay": "0s"},
    "canary": {"strategy": "CANARY", **SURGE, "steps": [{"weight": 25, "pause": {}}]},
}


@pytest.mark.parametrize("strategy", STRATEGIES)
async def test_an_image_that_crashes_at_once(stage: Stage, strategy: str) -> None:
    rollout = STRATEGIES[strategy]
    await stage.deployed(rollout=rollout)
    async with observed(stage.served, stage.port) as seen, load(stage.port) as requests:
        told = await stage.apply(CRASHES, code=3, rollout=rollout)
    assert requests.failures == []
    old = seen.samples[0].existing
    assert all(one.serving == old for one in seen.samples), "the old ones serve throughout"
    assert seen.samples[-1].existing == old

    # Those that were begun together may have ended together: then the count goes past three at once.
    told_count = re.search(r"new replicas failed (\d+) times, 2 are tolerated", told.err)
    assert told_count is not None, told.err
    assert int(told_count[1]) >= 3
    for part in (
        "(rolled back to revision 1)",
        "on node-1: exit code 3",
        "changed  command",
        "| reading /etc/web.conf",
        "| error: no such file",
        "code: CL-6001",
        "cloudless rollout retry web",
    ):
        assert part in told.err, told.err
    rollout_now = await stage.status()
    assert rollout_now.phase.name == "ROLLED_BACK"
    assert rollout_now.target_revision == 1
    failure = rollout_now.failure
    assert failure is not None
    assert (failure.reason, failure.revision) == ("TooManyFailures", 2)
    assert failure.last_exit is not None
    assert failure.last_exit.code == 3
    journal = (await stage.client.rollout_of("web", 2)).journal
    assert [journal[0].verb, journal[-1].verb] == ["begin", "end"]
    assert "judge" in {entry.verb for entry in journal}
    assert (await stage.cli("rollout", "status", "web", code=3)).out.count("error: no such file") == 1


async def test_recreate_goes_back_as_it_came(stage: Stage) -> None:
    rollout = {"strategy": "RECREATE"}
    await stage.deployed(rollout=rollout, replicas=2)
    async with observed(stage.served, stage.port) as seen:
        told = await stage.apply(CRASHES, code=3, rollout=rollout, replicas=2)
        await seen.until(lambda one: len(one.serving) == 2)
    assert "(rolled back to revision 1)" in told.err
    assert seen.most == 2
    assert len(seen.samples[-1].serving) == 2
    assert seen.samples[-1].serving <= seen.of_revision(1)
    assert not seen.samples[-1].serving & seen.samples[0].serving, "made anew"


async def test_an_image_that_never_gets_ready(stage: Stage) -> None:
    probe = {"http": {"path": "/health", "port": 8080}, "period": "100ms"}
    rollout = SURGE | {"progress_deadline": "5s"}
    await stage.deployed(rollout=SURGE)
    async with observed(stage.served, stage.port) as seen, load(stage.port) as requests:
        told = await stage.apply(NEVER_READY, code=3, rollout=rollout, readiness_probe=probe)
    assert requests.failures == []
    assert seen.least == 4
    assert seen.samples[-1].existing == seen.samples[0].existing
    assert "no progress for 5 s" in told.err
    assert "refused" in told.err, "the answer of the probe"
    assert "| warming up" in told.err
    assert "(rolled back to revision 1)" in told.err
    failure = (await stage.status()).failure
    assert failure is not None
    assert (failure.reason, failure.last_exit) == ("ProgressDeadlineExceeded", None)


@pytest.mark.parametrize(
    "rollout",
    [
        SURGE | {"min_ready_time": "1500ms", "max_failures": 0},
        SURGE | {"bake_time": "2s", "max_failures": 0},
        STRATEGIES["blue-green"] | {"bake_time": "2s", "max_failures": 0},
    ],
    ids=["min-ready-time", "bake-time", "blue-green-bake-time"],
)
async def test_an_image_that_dies_after_it_was_ready(stage: Stage, rollout: dict[str, Any]) -> None:
    """No waiting for the end of the bake time: the first death that is not tolerated decides."""
    await stage.deployed(replicas=2, rollout=rollout)
    async with observed(stage.served, stage.port) as seen:
        told = await stage.apply(DIES_LATER, code=3, replicas=2, rollout=rollout)
        await stage.until("ROLLED_BACK", old_replicas=0)
        await seen.until(lambda one: one.existing == one.serving)
    assert "new replicas failed" in told.err
    assert "exit code 7" in told.err
    assert "| out of luck" in told.err
    assert seen.samples[-1].existing == seen.samples[-1].serving
    assert len(seen.samples[-1].serving) == 2
    assert not seen.samples[-1].serving & seen.of_revision(2)
    if "min_ready_time" in rollout or "strategy" in rollout:  # the old ones were still there
        assert seen.samples[-1].existing == seen.samples[0].existing


async def test_an_image_that_cannot_be_pulled(stage: Stage, tmp_path: Path) -> None:
    if shutil.which("docker-registry") is None:
        pytest.skip("needs docker-registry")
    await stage.deployed(rollout=SURGE)
    with running_registry(tmp_path, protected=False) as registry:
        async with observed(stage.served, stage.port) as seen, load(stage.port) as requests:
            told = await stage.apply(code=3, rollout=SURGE, image=f"{registry.host}/team/none:1")
    assert requests.failures == []
    assert seen.least == 4
    assert "ImageNotFound" in told.err
    assert "changed  image: docker.io/library/busybox:1 -> " in told.err
    failure = (await stage.status()).failure
    assert failure is not None
    assert (failure.reason, failure.node) == ("CannotStart", "node-1")


async def test_auto_rollback_off_stops_where_it_is_until_somebody_undoes_it(stage: Stage) -> None:
    rollout = SURGE | {"auto_rollback": False}
    await stage.deployed(rollout=rollout)
    async with observed(stage.served, stage.port) as seen, load(stage.port) as requests:
        told = await stage.apply(CRASHES, code=3, rollout=rollout)
        assert "not rolled back: auto_rollback is off" in told.err
        assert (await stage.status()).phase.name == "FAILED"
        assert len(seen.samples[-1].existing | seen.samples[-2].existing) <= 5
        await stage.cli("rollout", "undo", "web")
    assert requests.failures == []
    assert seen.samples[-1].existing == seen.samples[0].existing
    now = await stage.status()
    assert (now.phase.name, now.revision) == ("COMPLETED", 3)


async def test_a_first_deployment_has_nothing_to_go_back_to(stage: Stage) -> None:
    told = await stage.apply(CRASHES, code=3, rollout=SURGE)
    assert "no earlier revision was proved healthy" in told.err
    assert "| error: no such file" in told.err
    assert (await stage.status()).phase.name == "FAILED"
    refused = await stage.cli("rollout", "abort", "web", code=1)
    assert "nothing to go back to: no earlier revision was proved healthy" in refused.err
    mended = await stage.apply(rollout=SURGE)
    assert "4/4 available, revision 2" in mended.out


async def test_no_room_for_surge(stage: Stage) -> None:
    """Three of the node's quarters are taken: a fourth fits, a fifth does not."""
    (node,) = await stage.client.nodes()
    assert node.message.capacity is not None
    part = f"{node.message.capacity.memory_bytes // 4 // 2**20}Mi"
    resources = {"requests": {"memory": part}}
    tight = SURGE | {"progress_deadline": "4s"}
    await stage.deployed(replicas=3, resources=resources, rollout=SURGE)
    async with observed(stage.served, stage.port) as seen:
        # One has room: it goes on, one at a time.
        await stage.apply(replicas=3, resources=resources, rollout=SURGE, env={"TURN": "2"})
        assert (seen.least, seen.most) == (3, 4)
        # Now the fourth place is taken by another workload: no step is possible, and it says so.
        other = stage.fields(resources=resources, replicas=1, ports=[])
        await stage.client.follow(await stage.client.create(cloudless.Workload("other", **other)))
        told = await stage.apply(replicas=3, resources=resources, rollout=tight, env={"TURN": "3"}, code=None)
    assert told.code in (3, 4)
    assert "needs memory" in told.err
    assert seen.least == 3
    await stage.until("ROLLED_BACK")
    # Without surge it goes on within the same room.
    spare = {"max_surge": 0, "max_unavailable": 1}
    await stage.apply(replicas=3, resources=resources, rollout=spare, env={"TURN": "4"})
    await stage.client.follow(await stage.client.delete("other", grace_s=0), "deleted")
