"""The verbs by the command line, in the middle of real rollouts."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.containerd.registry import Registry, running_registry
from tests.integration.program.served import run_cli, until
from tests.integration.program.test_images import built
from tests.integration.published.load import load
from tests.integration.rollouts.conftest import Stage
from tests.integration.rollouts.observer import observed

SURGE = {"max_surge": 1, "max_unavailable": 0}
#: Slow enough to do something in its middle.
SLOW = SURGE | {"min_ready_time": "1500ms"}
#: For more than one command, each of which takes a while to start.
SLOWER = SURGE | {"min_ready_time": "3s"}


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    if shutil.which("docker-registry") is None:
        pytest.skip("needs docker-registry")
    with running_registry(tmp_path_factory.mktemp("registry"), protected=False) as found:
        yield found


async def test_paused_nothing_moves_until_resumed(stage: Stage) -> None:
    await stage.deployed(rollout=SLOW)
    async with observed(stage.served, stage.port) as seen, load(stage.port) as requests:
        await stage.updated(env={"TURN": "2"})
        await stage.until("PROGRESSING", new_available=1)
        assert "paused" in (await stage.cli("rollout", "pause", "web")).said
        await stage.cli("rollout", "pause", "web")
        settled = await stage.until("PAUSED")
        assert settled.target_revision == 2
        # What was begun is finished; then nothing holds up the next step but the pause.
        await stage.until_settled()
        before = len(seen.samples) + 1  # one is being taken
        await asyncio.sleep(1.0)
        assert len({one.existing for one in seen.samples[before:]}) == 1
        assert 0 < len(seen.samples[-1].existing & seen.of_revision(2)) < 4
        told = (await stage.cli("rollout", "status", "web")).out
        assert "Paused" in told
        assert "cloudless rollout resume web" in told
        await stage.cli("rollout", "resume", "web")
        assert (await stage.cli("rollout", "resume", "web", code=None)).code == 1
        await stage.until("COMPLETED")
    assert requests.failures == []
    assert seen.least == 4
    assert seen.most == 5


async def test_verbs_that_do_not_fit_are_refused_with_the_reason(stage: Stage) -> None:
    await stage.deployed(replicas=1)
    for words, why in (
        (("pause",), "nothing to pause: revision 1 is rolled out"),
        (("resume",), "not paused: revision 1 is rolled out"),
        (("promote",), "nothing to promote: revision 1 is rolled out"),
        (("abort",), "nothing to abort: revision 1 is rolled out"),
        (("retry",), "nothing to retry: revision 1 is rolled out"),
        (("undo",), "revision"),
        (("undo", "--to-revision", "7"), "revision 7"),
    ):
        refused = await stage.cli("rollout", words[0], "web", *words[1:], code=1)
        assert why in refused.err
    assert (await stage.cli("rollout", "pause", "wbe", code=5)).err.count("did you mean 'web'?") == 1


async def test_abort_in_the_middle_of_a_rolling_update(stage: Stage) -> None:
    await stage.deployed(rollout=SLOW)
    async with observed(stage.served, stage.port) as seen, load(stage.port) as requests:
        await stage.updated(env={"TURN": "2"})
        await stage.until("PROGRESSING", new_available=2)
        aborted = await stage.cli("rollout", "abort", "web")
        assert "revision 1" in aborted.said
        await requests.count_anew()
    assert requests.failures == []
    assert {answer.split()[1] for answer in requests.answers} == {"1"}
    assert seen.least == 4
    assert seen.most == 5
    status = await stage.status()
    assert (status.phase.name, status.target_revision) == ("ABORTED", 1)


async def test_undo_and_history(stage: Stage) -> None:
    await stage.deployed(rollout=SURGE, replicas=2)
    for turn in "23":
        await stage.cli("update", "web", "-e", f"TURN={turn}")
    await stage.cli("rollout", "undo", "web", "--message", "three was no good")
    assert (await stage.cli("exec", "web", "--", "sh", "-c", "echo $TURN")).out == "2\n"
    await stage.cli("rollout", "undo", "web", "--to-revision", "1")
    assert (await stage.cli("exec", "web", "--", "sh", "-c", "echo $TURN")).out == "\n"
    before = (await stage.client.get("web")).message
    await stage.cli("rollout", "undo", "web", "--to-revision", "1")
    after = (await stage.client.get("web")).message
    assert (after.generation, after.status.revision) == (before.generation, before.status.revision) == (5, 5)

    history = (await stage.cli("rollout", "history", "web")).out.splitlines()
    assert [line.split()[0] for line in history[1:]] == ["5", "4", "3", "2", "1"]
    assert "three was no good" in history[2]
    assert all("Completed" in line for line in history[1:])
    timeline = (await stage.cli("rollout", "history", "web", "--revision", "4")).out
    for verb in ("begin", "surge", "retire", "end"):
        assert verb in timeline


async def test_restart_makes_new_replicas_of_the_same(stage: Stage) -> None:
    await stage.deployed(rollout=SURGE)
    async with observed(stage.served, stage.port) as seen, load(stage.port) as requests:
        await stage.cli("rollout", "restart", "web", "--message", "to be sure")
    assert requests.failures == []
    assert seen.least == 4
    assert not seen.samples[0].existing & seen.samples[-1].existing
    workload = await stage.client.get("web")
    assert (workload.generation, workload.status.revision) == (1, 2)


async def test_a_tag_that_moved_is_pulled_when_asked_for(stage: Stage, registry: Registry) -> None:
    async def word() -> str:
        return (await stage.cli("exec", "web", "--", "sh", "-c", "echo $WORD")).out.strip()

    image = registry.push("team/app", "stable", built("one"))
    await stage.deployed(replicas=2, image=image, rollout=SURGE)
    assert await word() == "one"
    registry.push("team/app", "stable", built("two"))
    await stage.cli("rollout", "restart", "web")
    assert await word() == "one", "a restart is of the same image"
    async with load(stage.port) as requests:
        await stage.cli("rollout", "restart", "web", "--pull")
    assert requests.failures == []
    assert await word() == "two"
    digests = {one.number: one.message.image_digest for one in await stage.client.history("web")}
    assert digests[1] == digests[2] != digests[3]


async def test_retry_once_the_image_is_there(stage: Stage, registry: Registry) -> None:
    await stage.deployed(replicas=2, rollout=SURGE)
    image = f"{registry.host}/team/late:1"
    await stage.cli("update", "web", "--image", image, code=3)
    registry.push("team/late", "1", built("late"))
    async with load(stage.port) as requests:
        await stage.cli("rollout", "retry", "web")
    assert requests.failures == []
    status = await stage.status()
    assert (status.phase.name, status.revision, status.failure) == ("COMPLETED", 2, None)


async def test_deleted_in_the_middle(stage: Stage) -> None:
    await stage.deployed(rollout=SLOW)
    async with observed(stage.served, stage.port) as seen:
        await stage.updated(env={"TURN": "2"})
        await stage.until("PROGRESSING", new_available=1)
        waiting = asyncio.ensure_future(stage.cli("rollout", "watch", "web", code=None))
        await stage.cli("delete", "web", "--grace", "0s", "--wait")
        assert (await waiting).code != 0
    assert seen.samples[-1].existing == frozenset()


async def test_of_two_updates_at_once_one_wins_and_the_other_is_told(stage: Stage, tmp_path: Path) -> None:
    before = await stage.deployed(rollout=SURGE)
    watched = tmp_path / "watched"
    watched.touch()
    watch = ("rollout", "watch", "web")
    into = ("sh", "-c", 'exec "$@" > "$0"', str(watched))
    version = ("--if-version", before.resource_version, "--no-wait")
    async with load(stage.port) as requests:
        told = await asyncio.gather(
            *(
                stage.apply(rollout=SLOWER, env={"TURN": turn}, flags=version, code=None)
                for turn in ("one", "other")
            )
        )
        assert sorted(one.code for one in told) == [0, 6]
        # One that names no version comes while that is on its way: it takes its place.
        await stage.until("PROGRESSING", new_available=1)
        address = stage.served.address
        first = asyncio.ensure_future(asyncio.to_thread(run_cli, *watch, address=address, prefix=into))
        await asyncio.to_thread(until, watched.read_text, "it is watched")
        last = await stage.apply(rollout=SURGE, env={"TURN": "last"})
    assert requests.failures == []
    assert "revision 3" in last.out
    assert (await first).code == 6, "superseded is not failed, and not done either"
    phases = {one.number: one.message.phase.name for one in await stage.client.history("web")}
    assert phases == {1: "COMPLETED", 2: "SUPERSEDED", 3: "COMPLETED"}
