"""The coordinator dies: between any two calls of its store, and in the middle of work."""

from __future__ import annotations

import pytest
from tests.unit.coordinator.world import World, open_world

from cloudless import api
from cloudless.domain.errors import CloudlessError, NotFound
from cloudless.store.faulty import Fault, FaultAt


async def test_a_successor_goes_on_where_the_first_stopped(world: World) -> None:
    await world.create("web", 3)
    before = await world.until_ready("web", 3)
    await world.kill()
    world.agents["n1"].received.clear()
    await world.start()
    await world.relink("n1")
    after = await world.until_ready("web", 3)
    assert before.status is not None
    assert after.status is not None
    assert [one.id for one in before.status.replicas] == [one.id for one in after.status.replicas]
    assert {one.restarts for one in after.status.replicas} == {0}
    await world.until(lambda: bool(world.agents["n1"].received))
    first = world.agents["n1"].received[0]
    assert first.whole
    assert len(first.assignments) == 3


async def test_nodes_keep_their_phase_while_they_dial_a_new_coordinator(world: World) -> None:
    await world.create("web", 1)
    await world.until_ready()
    await world.stop()
    await world.start()
    await world.settle()
    assert world.cluster.nodes["id-n1"].phase.value == "READY"
    await world.relink("n1")
    events = (await world.call("list_events", api.ListEventsRequest(kind="node"))).events
    assert [event.reason for event in events] == ["NodeJoined"]


async def test_a_rollout_goes_on_after_a_kill_at_every_step() -> None:
    """The coordinator is killed again and again during one update; the bounds hold throughout."""
    async with open_world() as world:
        await world.start()
        await world.join("n1")
        await world.create("web", 4)
        await world.until_ready("web", 4)
        spec = api.WorkloadSpec(image="nginx:1.27", replicas=4)
        await world.call("update_workload", api.UpdateWorkloadRequest(name="web", spec=spec))
        agent = world.agents["n1"]
        for _ in range(8):
            running = [one for one in agent.observed.values() if one.ready]
            assert len(running) >= 3, "one of four may be unavailable"
            assert len(agent.observed) <= 5, "one above four may exist"
            await world.kill()
            await world.start()
            await world.relink("n1")
        workload = await world.until_ready("web", 4)
        assert workload.status is not None
        assert {one.revision for one in workload.status.replicas} == {2}


@pytest.mark.parametrize("fault", [Fault.BEFORE, Fault.AFTER])
@pytest.mark.parametrize("index", range(6))
async def test_create_survives_a_fault_at_any_call(index: int, fault: Fault) -> None:
    """Acknowledged means that it is there; a repetition never makes a second one."""
    async with open_world() as world:
        await world.start()
        await world.join("n1")
        world.faulty.calls.clear()
        world.faulty.decide = FaultAt(index, fault)
        try:
            first = (await world.create("web", 2, request_id="key-1")).id
        except CloudlessError:
            first = ""
        await world.kill()
        await world.start()
        await world.relink("n1")
        if first:
            assert (await world.get()).id == first
        again = await world.create("web", 2, request_id="key-1")
        assert first in ("", again.id)
        workload = await world.until_ready("web", 2)
        assert workload.id == again.id
        assert len(world.agents["n1"].observed) == 2


@pytest.mark.parametrize("fault", [Fault.BEFORE, Fault.AFTER])
@pytest.mark.parametrize("index", range(12))
async def test_the_loop_survives_a_fault_at_any_call(index: int, fault: Fault) -> None:
    """A plan whose outcome is unknown is never done twice in effect."""
    async with open_world() as world:
        await world.start()
        await world.join("n1")
        world.faulty.calls.clear()
        await world.create("web", 3)
        world.faulty.decide = FaultAt(len(world.faulty.calls) + index, fault)
        workload = await world.until_ready("web", 3)
        assert workload.status is not None
        assert [one.ordinal for one in workload.status.replicas] == [0, 1, 2]
        try:
            await world.delete("web")
        except CloudlessError:
            await world.delete("web")
        await world.until_gone()
        assert not world.agents["n1"].observed


async def test_a_store_that_is_away_for_a_while(world: World) -> None:
    await world.create("web", 1)
    await world.until_ready()
    world.faulty.down = True
    with pytest.raises(CloudlessError, match="store"):
        await world.create("other", 1)
    agent = world.agents["n1"]
    replica_id = next(iter(agent.observed))
    agent.crash(replica_id)
    agent.run(replica_id)
    assert (await world.get()).status is not None, "reads go on"
    health = await world.coordinator.health.health()
    assert not health.ok
    world.faulty.down = False
    await world.until(lambda: world.cluster.observations[replica_id].restarts == 1)
    await world.until_ready()
    with pytest.raises(NotFound):
        await world.get("other")
