"""The last lines of what failed: of a container that ended, and of one that runs and is not ready."""

from __future__ import annotations

import pytest
from tests.integration.agent.conftest import AgentProcess
from tests.integration.agent.stage import Stage, assignment

from cloudless import api
from cloudless.domain.replica import ReplicaPhase

P = ReplicaPhase
SCRIPT = "i=0; while [ $i -lt 500 ]; do i=$((i+1)); echo line $i; done; "
LAST = [f"line {number}" for number in range(481, 501)]


@pytest.mark.parametrize("policy", [{"policy": "NEVER"}, {"backoff": {"base": "1h"}}])
async def test_an_end_comes_with_the_last_lines(
    stage: Stage, agent_process: AgentProcess, policy: dict[str, object]
) -> None:
    names = [f"r{number}" for number in range(6)]
    command = ("sh", "-c", SCRIPT + "exit 3")
    stage.tell(*(assignment(name, *command, restart_policy=policy) for name in names))
    for name in names:
        phase = P.FAILED if "policy" in policy else P.BACKING_OFF
        ended = (await stage.until_phase(name, phase)).last_exit
        assert ended is not None
        assert ended.log_tail.splitlines() == LAST


@pytest.mark.parametrize("policy", [{"policy": "NEVER"}, {"backoff": {"base": "1h"}}])
async def test_last_words_without_a_line_feed_are_there(
    stage: Stage, agent_process: AgentProcess, policy: dict[str, object]
) -> None:
    command = ("sh", "-c", "echo one; printf 'connecting'; sleep 0.3; printf ' ... refused'; exit 3")
    stage.tell(assignment("r1", *command, restart_policy=policy))
    phase = P.FAILED if "policy" in policy else P.BACKING_OFF
    ended = (await stage.until_phase("r1", phase)).last_exit
    assert ended is not None
    assert ended.log_tail.splitlines() == ["one", "connecting ... refused"]


async def test_long_lines_are_cut_to_what_a_status_may_hold(
    stage: Stage, agent_process: AgentProcess
) -> None:
    long = "head -c 100000 /dev/zero | tr '\\0' x; echo; echo the end; exit 3"
    stage.tell(assignment("r1", "sh", "-c", long, restart_policy={"policy": "NEVER"}))
    ended = (await stage.until_phase("r1", P.FAILED)).last_exit
    assert ended is not None
    assert len(ended.log_tail) == 4096
    assert ended.log_tail.endswith("x\nthe end")


async def test_one_that_does_not_get_ready_tells_its_last_lines(
    stage: Stage, agent_process: AgentProcess
) -> None:
    probe = {"exec": {"command": ["test", "-e", "/tmp/ready"]}, "period": "0.1s", "failure_threshold": 3}
    stage.tell(assignment("r1", "sh", "-c", SCRIPT + "exec sleep 1000", readiness_probe=probe))
    seen = await stage.until(
        lambda: one if (one := stage.seen.get("r1")) and one.log_tail.splitlines() == LAST else None
    )
    assert (seen.ready, seen.phase) == (False, P.RUNNING)
    stub = await stage.stub()
    await stub.exec_command(api.ExecCommandRequest(container_id="cl-r1", command=["touch", "/tmp/ready"]))
    assert (await stage.until_running("r1", ready=True)).log_tail == ""
