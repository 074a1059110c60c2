"""Logs and commands: through the coordinator to the right replica on the right node."""

from __future__ import annotations

import datetime

import pytest
from tests.unit.coordinator.world import World

from cloudless import api
from cloudless.coordinator import limits
from cloudless.domain.errors import NotFound, PreconditionFailed, Unavailable
from cloudless.domain.replica import ReplicaPhase

T0 = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


async def running(world: World, replicas: int = 2, **fields: object) -> list[str]:
    """Ids of the replicas of a workload "web" that runs, by ordinal."""
    await world.create("web", replicas, **fields)
    status = (await world.until_ready("web", replicas)).status
    assert status is not None
    return [replica.id for replica in status.replicas]


# -- commands --------------------------------------------------------------------------


async def execute(world: World, **fields: object) -> api.ExecCommandResponse:
    fields.setdefault("command", ["true"])
    request = api.ExecCommandRequest(name="web", **fields)  # type: ignore[arg-type]
    return await world.call("exec_command", request)  # type: ignore[no-any-return]


async def test_a_command_runs_in_a_ready_replica(world: World) -> None:
    one, two = await running(world)
    agent = world.agents["n1"]
    answer = await execute(world)
    assert (answer.replica, answer.container_id) == ("web/0", f"cl-{one}-0")
    assert (answer.exit_code, answer.stdout) == (3, b"out")
    agent.run(one, ready=False)
    await world.until(lambda: not world.cluster.observations[one].ready)
    assert (await execute(world)).container_id == f"cl-{two}-0"


async def test_a_command_runs_in_the_replica_that_is_named(world: World) -> None:
    _, two = await running(world)
    for replica in ("1", two[:6]):
        assert (await execute(world, replica=replica)).replica == "web/1"
    with pytest.raises(NotFound, match="no replica 9"):
        await execute(world, replica="9")


async def test_everything_about_a_command_reaches_the_node(world: World) -> None:
    await running(world, 1)
    fields = {
        "command": ["sh", "-c", "id"],
        "env": {"A": "1"},
        "working_dir": "/srv",
        "user": "1000:1000",
        "timeout": datetime.timedelta(seconds=7),
        "output_limit_bytes": 1000,
        "stdin": b"input",
    }
    await execute(world, **fields)
    asked = world.agents["n1"].execs[0]
    assert {name: getattr(asked, name) for name in fields} == fields
    await execute(world)
    by_default = world.agents["n1"].execs[1]
    assert by_default.timeout == limits.EXEC_TIMEOUT
    assert by_default.output_limit_bytes == limits.EXEC_OUTPUT_BYTES


async def test_a_command_needs_a_replica_that_runs(world: World) -> None:
    with pytest.raises(NotFound):
        await execute(world)
    (one,) = await running(world, 1)
    agent = world.agents["n1"]
    agent.crash(one)
    await world.until(lambda: world.cluster.observations[one].phase is ReplicaPhase.BACKING_OFF)
    with pytest.raises(PreconditionFailed, match="web/0 is backing off"):
        await execute(world)


async def test_a_command_on_a_node_that_is_away(world: World) -> None:
    await running(world, 1)
    world.channels["n1"][1].close()
    await world.until(lambda: "bulk" not in world.coordinator.nodes._links["id-n1"].channels)
    with pytest.raises(Unavailable, match="n1 is not connected"):
        await execute(world)


async def test_commands_in_another_namespace(world: World) -> None:
    await world.create("web", 1, namespace="prod")
    await world.settle()
    await world.until(lambda: any(one.ready for one in world.cluster.observations.values()))
    assert (await execute(world, namespace="prod")).replica == "web/0"
    with pytest.raises(NotFound, match="default/web"):
        await execute(world)
