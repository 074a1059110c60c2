"""Programs that run by exec: found on all nodes, and ended on the right one."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
from tests.unit.coordinator.fakeagent import FakeAgent
from tests.unit.coordinator.test_bulk import running
from tests.unit.coordinator.world import World

from cloudless import api
from cloudless.agent.execs import limits as agent_limits
from cloudless.coordinator import limits
from cloudless.domain.errors import Invalid, NotFound, Unavailable
from cloudless.transport.codec import encode
from cloudless.transport.limits import MAX_MESSAGE_BYTES

T0 = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


def program(agent: FakeAgent, replica_id: str, exec_id: str, **fields: Any) -> api.Exec:
    """It runs there."""
    made = api.Exec(
        exec_id=exec_id,
        replica="as the node calls it",
        replica_id=replica_id,
        container_id=f"cl-{replica_id}-0",
        **{"started_at": T0, "command": ["true"]} | fields,
    )
    agent.listed_execs.append(made)
    return made


async def listed(world: World, **fields: Any) -> api.ListExecsResponse:
    return await world.call("list_execs", api.ListExecsRequest(**fields))  # type: ignore[no-any-return]


async def kill(world: World, exec_id: str, **fields: Any) -> api.KillExecResponse:
    request = api.KillExecRequest(**{"name": "web", "exec_id": exec_id} | fields)
    return await world.call("kill_exec", request)  # type: ignore[no-any-return]


async def spread(world: World) -> tuple[FakeAgent, FakeAgent, list[str]]:
    """Two nodes, and two replicas of web, the first of them on the first."""
    await world.join("n2")
    ids = await running(world, 2)
    by_node = {world.cluster.replicas[one].node_id: one for one in ids}
    return world.agents["n1"], world.agents["n2"], [by_node["id-n1"], by_node["id-n2"]]


async def test_all_nodes_are_asked_and_the_answer_has_an_order(world: World) -> None:
    first, second, (one, two) = await spread(world)
    program(first, one, "x-late", started_at=T0 + datetime.timedelta(seconds=1))
    program(first, one, "x-early", detached=True)
    program(second, two, "x-other")
    program(second, "of-somebody-else", "x-foreign")
    answer = await listed(world, name="web")
    found = {(item.exec_id, item.node, item.replica.partition("/")[0]) for item in answer.execs}
    assert found == {("x-early", "n1", "web"), ("x-late", "n1", "web"), ("x-other", "n2", "web")}
    of_one = [item.exec_id for item in answer.execs if item.node == "n1"]
    assert of_one == ["x-early", "x-late"]
    assert (answer.failures, answer.truncated) == ([], False)
    assert {item.namespace for item in answer.execs} == {"default"}
    assert await listed(world) == answer
    assert (await listed(world, namespace="elsewhere")).execs == []
    only = await listed(world, name="web", replica=two)
    assert [item.exec_id for item in only.execs] == ["x-other"]


async def test_a_node_that_is_away_is_named(world: World) -> None:
    first, second, (one, two) = await spread(world)
    program(first, one, "x-1")
    program(second, two, "x-2")
    world.cut("n2")
    await world.until(lambda: not world.coordinator.nodes.is_linked("id-n2"))
    answer = await listed(world, name="web")
    assert [item.exec_id for item in answer.execs] == ["x-1"]
    assert answer.failures == [api.NodeFailure(node="n2", message="node n2 is not connected")]
    with pytest.raises(Unavailable, match=r"no program 'x-2' .* \(n2: node n2 is not connected\)"):
        await kill(world, "x-2")
    assert (await kill(world, "x-1")).exec is not None
    first.exec_failure = NotFound("the agent is older than this")
    assert len((await listed(world, name="web")).failures) == 2


async def test_the_right_node_is_told(world: World) -> None:
    first, second, (one, two) = await spread(world)
    program(first, one, "x-1")
    program(second, two, "x-22", command=["sleep", "5"])
    grace = datetime.timedelta(seconds=3)
    answer = await kill(world, "x-2", grace_period=grace)
    assert answer.exec is not None
    assert (answer.exec.exec_id, answer.exec.node, answer.exec.command) == ("x-22", "n2", ["sleep", "5"])
    asked = api.KillExecRequest(container_id=f"cl-{two}-0", exec_id="x-22", grace_period=grace)
    assert (first.killed, second.killed) == ([], [asked])
    with pytest.raises(NotFound, match="elsewhere/web"):
        await kill(world, "x-1", namespace="elsewhere")
    await kill(world, "x-1", signal=10, namespace="default")
    assert first.killed == [api.KillExecRequest(container_id=f"cl-{one}-0", exec_id="x-1", signal=10)]


async def test_what_cannot_be_meant(world: World) -> None:
    first, second, (one, two) = await spread(world)
    program(first, one, "x-1")
    program(second, two, "x-12")
    assert (await kill(world, "x-1")).exec is not None, "a whole id is meant"
    with pytest.raises(NotFound, match=r"no program 'nosuch' runs in workload default/web"):
        await kill(world, "nosuch")
    with pytest.raises(NotFound, match="does not exist"):
        await kill(world, "x-1", name="other")
    with pytest.raises(NotFound):
        await kill(world, "x-12", replica=one)
    for fields, path in (
        ({"exec_id": "x-"}, "exec_id"),
        ({"exec_id": ""}, "exec_id"),
        ({"exec_id": "x-1", "container_id": "c"}, "container_id"),
        ({"exec_id": "x-1", "grace_period": datetime.timedelta(seconds=601)}, "grace_period"),
        ({"exec_id": "x-1", "name": ""}, "name"),
    ):
        with pytest.raises(Invalid) as caught:
            await kill(world, **fields)
        assert [violation.path for violation in caught.value.violations] == [path]
    for fields, path in (({"container_id": "c"}, "container_id"), ({"replica": "0"}, "name")):
        with pytest.raises(Invalid) as caught:
            await listed(world, **fields)
        assert [violation.path for violation in caught.value.violations] == [path]


async def test_more_than_a_message_holds_is_said(world: World) -> None:
    (one,) = await running(world, 1)
    agent = world.agents["n1"]
    for number in range(agent_limits.MAX_LISTED):
        program(agent, one, f"x-{number:016}", command=["y" * agent_limits.SHOWN_COMMAND_BYTES])
    assert len((await listed(world, name="web")).execs) == agent_limits.MAX_LISTED
    for number in range(agent_limits.MAX_LISTED):
        program(agent, one, f"y-{number:016}", command=["y" * agent_limits.SHOWN_COMMAND_BYTES])
    answer = await listed(world, name="web")
    assert answer.truncated
    assert agent_limits.MAX_LISTED < len(answer.execs) < 2 * agent_limits.MAX_LISTED
    assert len(encode(answer)) <= MAX_MESSAGE_BYTES


def test_both_sides_have_the_same_limits() -> None:
    assert limits.MAX_KILL_GRACE_S == agent_limits.MAX_KILL_GRACE_S
    assert limits.KILL_GRACE_S == agent_limits.KILL_GRACE_S
