"""Rollouts from outside: the command line and the SDK against the whole program and real containers."""

from __future__ import annotations

import asyncio
import json
import pathlib
import re
import threading
from collections.abc import Callable
from typing import Any

import pytest
from tests.integration.program.served import Result, Served, run_cli, until
from tests.integration.program.test_lifecycle import manifest

import cloudless

#: Serves for ever; ends at once when it is told to stop.
SERVES = ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done"]
BREAKS = ["sh", "-c", "echo starting; echo no database; sleep 0.3; exit 3"]


def web(turn: int, *, command: list[str] = SERVES, **rollout: Any) -> str:
    return manifest(name="web", replicas=3, command=command, env={"TURN": str(turn)}, rollout=rollout)


def phase(served: Served) -> str:
    return str(served.cli("get", "web", "-o", "jsonpath={.status.rollout.phase}").out.strip())


def in_background(call: Callable[[], Result]) -> Callable[[], Result]:
    """Begin a call that waits; answers what gives its result."""
    found: list[Result] = []
    thread = threading.Thread(target=lambda: found.append(call()))
    thread.start()

    def result() -> Result:
        thread.join(60)
        return found[0]

    return result


def test_a_failed_update_explains_itself_and_is_rolled_back(tidy: Served) -> None:
    tidy.cli("apply", "-f", "-", "-q", stdin=web(1))
    # Without a time to prove itself, all three may have taken over before the first one ends.
    proved = {"max_surge": "1", "max_unavailable": "0", "min_ready_time": "5s"}
    broken = web(2, command=BREAKS, max_failures=0, **proved)
    result = tidy.cli("apply", "-f", "-", "-m", "a try", stdin=broken, code=3)
    text = result.err
    # A program on two busy processors may see two ends at one look.
    assert re.search(r"error: web: revision 2 failed: new replicas failed \d+ times?, 0 are tolerated", text)
    assert "(rolled back to revision 1)" in text
    assert ": exit code 3\n" in text
    assert "  changed  command: " in text
    assert "           env.TURN: 1 -> 2\n" in text
    assert "    | starting\n    | no database\n" in text
    assert "  try: cloudless rollout history web --revision 2\n" in text
    lines = text.partition("error:")[0].splitlines()
    assert "web: revision 1 -> 2, rolling update" in lines
    assert "web: revision 2 -> 1 (back), rolling update" in lines

    shown = tidy.cli("rollout", "status", "web", code=3).out
    assert "RolledBack" in shown
    assert "    | no database\n" in shown
    rows = tidy.cli("rollout", "history", "web", "--no-headers").out.splitlines()
    assert [row.split()[:3] for row in rows] == [
        ["2", "RolledBack", rows[0].split()[2]],
        ["1", "*", "Completed"],
    ]
    journal = tidy.cli("rollout", "history", "web", "--revision", "2").out
    verbs = [line.split()[2] for line in journal.partition("WHAT\n")[2].splitlines()]
    assert (verbs[0], verbs[-1]) == ("begin", "end")
    assert {"surge", "judge"} <= set(verbs)

    # The same again is no change, and still not what runs; what runs can be scaled.
    assert tidy.cli("apply", "-f", "-", stdin=broken, code=3).out == "workload/web unchanged\n"
    assert (
        tidy.cli("scale", "web", "2").out.splitlines()[-1] == "workload/web 2/2 available, back at revision 1"
    )
    assert tidy.cli("rollout", "retry", "web", code=3).out == "workload/web retried\n"
    assert tidy.cli("rollout", "undo", "web").out.splitlines()[-1] == "workload/web 2/2 available, revision 3"
    assert tidy.cli("rollout", "status", "web").code == 0


def test_verbs_that_do_not_fit(tidy: Served) -> None:
    tidy.cli("apply", "-f", "-", "-q", stdin=web(1))
    for verb, why in (
        ("pause", "nothing to pause: revision 1 is rolled out"),
        ("resume", "not paused: revision 1 is rolled out"),
        ("promote", "nothing to promote: revision 1 is rolled out"),
        ("abort", "nothing to abort: revision 1 is rolled out"),
        ("retry", "nothing to retry: revision 1 is rolled out"),
    ):
        assert f"error: {why}\n" in tidy.cli("rollout", verb, "web", code=1).err
    assert "revision 7 is not kept" in tidy.cli("rollout", "undo", "web", "--to-revision", "7", code=1).err
    version = tidy.cli("get", "web", "-o", "jsonpath={.resource_version}").out.strip()
    tidy.cli("apply", "-f", "-", "--if-version", "1", stdin=web(2), code=6)
    tidy.cli("apply", "-f", "-", "--if-version", version, "-q", stdin=web(2))
    assert tidy.cli("rollout", "restart", "web", "-q").out.splitlines() == [
        "workload/web restarted",
        "workload/web 3/3 available, revision 3",
    ]


def test_a_canary_step_by_step(tidy: Served, tmp_path: pathlib.Path) -> None:
    steps = [{"weight": 30, "replicas": "1", "pause": {}}, {"weight": 60, "replicas": "2", "pause": {}}]
    canary = {"strategy": "CANARY", "steps": steps}
    tidy.cli("apply", "-f", "-", "-q", stdin=web(1, **canary))
    plan = tidy.cli("diff", "-f", "-", stdin=web(2, **canary), code=1).out
    assert "~ env.TURN: 1 -> 2\n" in plan
    assert "until somebody promotes it" in plan
    assert tidy.cli("apply", "-f", "-", "--no-wait", stdin=web(2, **canary)).code == 0
    watched = tmp_path / "watched"
    watched.touch()
    words, prefix = ("rollout", "watch", "web", "-o", "json"), ("sh", "-c", 'exec "$@" > "$0"', str(watched))
    watching = in_background(lambda: run_cli(*words, address=tidy.address, prefix=prefix))
    # Only what the watch has seen itself may be over before it tells of the next step.
    until(lambda: "WAITING_PROMOTION" in watched.read_text(), "the first step waits")
    assert tidy.cli("rollout", "promote", "web", "-q").out.splitlines() == [
        "workload/web promoted",
        "workload/web waits to be promoted at step 2 of 2, 2/3 of revision 2 available",
    ]
    assert tidy.cli("rollout", "pause", "web", "-q").out.splitlines()[0] == "workload/web paused"
    refused = tidy.cli("rollout", "promote", "web", code=1).err
    assert "nothing to promote: the rollout of revision 2 is paused" in refused
    assert tidy.cli("rollout", "resume", "web", "-q").out.splitlines() == [
        "workload/web resumed",
        "workload/web waits to be promoted at step 2 of 2, 2/3 of revision 2 available",
    ]
    assert tidy.cli("rollout", "promote", "web", "--full", "-q").out.splitlines()[-1] == (
        "workload/web 3/3 available, revision 2"
    )
    assert watching().code == 0
    events = [json.loads(line)["object"]["rollout"] for line in watched.read_text().splitlines()]
    assert events[-1]["phase"] == "COMPLETED"
    assert {event["step"] for event in events} >= {1, 2}


def test_a_blue_green_switch_and_the_instant_way_back(tidy: Served) -> None:
    strategy = {"strategy": "BLUE_GREEN", "scale_down_delay": "60s"}
    tidy.cli("apply", "-f", "-", "-q", stdin=web(1, **strategy))
    applied = in_background(lambda: tidy.cli("apply", "-f", "-", stdin=web(2, **strategy)))
    until(lambda: phase(tidy) == "WAITING_PROMOTION", "the new set is there")
    tidy.cli("rollout", "promote", "web", "-q")
    done = applied()
    assert done.out.splitlines()[-1] == "workload/web 3/3 available, revision 2; 3 old kept for a while"
    assert "web: waiting for somebody to promote it: cloudless rollout promote web" in done.err
    assert "the replicas of revision 1 go in " in tidy.cli("rollout", "status", "web").out
    result = tidy.cli("rollout", "abort", "web", "-q")
    assert result.out.splitlines()[-1] == "workload/web 3/3 available, back at revision 1"
    assert "revision 2 was aborted (back at revision 1)" in tidy.cli("rollout", "watch", "web", code=3).err


async def test_a_program_that_leaves_its_rollout_takes_it_back(tidy: Served) -> None:
    await asyncio.to_thread(tidy.cli, "apply", "-f", "-", "-q", stdin=web(1))
    async with tidy.client() as client:
        changed = await client.update("web", env={"TURN": "2"}, command=["sleep", "1000"])
        seen: list[str] = []
        with pytest.raises(ZeroDivisionError) as caught:
            async with asyncio.timeout(60), changed.rollout() as rollout:
                async for step in rollout:
                    seen.append(step.because)
                    if step.phase == "PROGRESSING":
                        raise ZeroDivisionError
        assert caught.value.__notes__ == ["the rollout of web was aborted"]
        assert len(seen) == len(set(seen))
        back = await client.wait("web", "rolled_back", timeout_s=60)
        assert back.phase == "Aborted"
        with pytest.raises(cloudless.RolloutFailed) as failed:
            await client.wait("web", timeout_s=10)
        assert (failed.value.explanation.phase, failed.value.rolled_back_to) == ("ABORTED", 1)
        assert "env.TURN: 1 -> 2" in failed.value.explanation.changes
        past = await back.rollout_of()
        assert [entry.verb for entry in past.journal][-1] == "end"
        async with asyncio.timeout(60), (await back.undo()).rollout() as rollout:
            told = [step.because async for step in rollout]
        assert told[-1] == "revision 3 is rolled out"
