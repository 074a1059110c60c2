"""Nodes that come, go, return, and are claimed twice."""

from __future__ import annotations

import pytest
from tests.unit.coordinator.fakeagent import FakeAgent, FakeChannel, link
from tests.unit.coordinator.world import World

from cloudless import api
from cloudless.domain.errors import Invalid
from cloudless.transport.link import LinkRefused


def nodes_of(workload: api.Workload) -> list[str]:
    assert workload.status is not None
    return sorted(replica.node for replica in workload.status.replicas)


async def test_a_lost_node_is_replaced(world: World) -> None:
    await world.join("n2")
    await world.create("web", 4, placement=api.Placement(spread_topology=[api.SpreadRule(topology="node")]))
    assert nodes_of(await world.until_ready("web", 4)) == ["n1", "n1", "n2", "n2"]
    await world.pass_time(10)
    began = world.clock.now()
    world.cut("n2")
    await world.until(lambda: world.phase("n2") == "DISCONNECTED")
    assert (world.clock.now() - began).total_seconds() < 0.1, "a broken connection is seen at once"
    status = (await world.get()).status
    assert status is not None
    assert status.ready_replicas == 2
    phases = sorted(replica.phase.name for replica in status.replicas)
    assert phases == ["RUNNING", "RUNNING", "UNKNOWN", "UNKNOWN"]
    await world.until(lambda: world.phase("n2") == "LOST")
    assert nodes_of(await world.until_ready("web", 4)) == ["n1"] * 4


async def test_a_node_that_returns_stops_what_was_replaced(world: World) -> None:
    n2 = await world.join("n2")
    await world.create("web", 4, placement=api.Placement(spread_topology=[api.SpreadRule(topology="node")]))
    await world.until_ready("web", 4)
    held = set(n2.observed)
    assert len(held) == 2
    world.cut("n2")
    await world.until(lambda: world.phase("n2") == "LOST")
    await world.until_ready("web", 4)
    await world.relink("n2")
    await world.until(lambda: world.phase("n2") == "READY")
    await world.settle()
    assert n2.received[-1].epoch > 0
    assert not n2.observed, "it was told to stop what is not its own any more"
    workload = await world.until_ready("web", 4)
    assert nodes_of(workload) == ["n1"] * 4


async def test_a_short_break_changes_nothing(world: World) -> None:
    await world.create("web", 2)
    before = await world.until_ready("web", 2)
    world.cut("n1")
    await world.until(lambda: world.phase("n1") == "DISCONNECTED")
    await world.relink("n1")
    await world.until(lambda: world.phase("n1") == "READY")
    after = await world.until_ready("web", 2)
    assert before.status is not None
    assert after.status is not None
    assert [one.id for one in before.status.replicas] == [one.id for one in after.status.replicas]
    assert {one.restarts for one in after.status.replicas} == {0}


async def test_a_second_agent_of_one_node_is_refused_while_the_first_lives(world: World) -> None:
    copy = FakeAgent("n1", session="another")
    with pytest.raises(LinkRefused, match="another agent"):
        await world.coordinator.nodes.admit(copy.hello("control"), "test")
    world.cut("n1")
    await world.until(lambda: len(world.coordinator.nodes) == 0)
    await world.coordinator.nodes.admit(copy.hello("control"), "test")


async def test_the_same_agent_may_dial_again_and_replaces_its_old_connection(world: World) -> None:
    old = world.channels["n1"]
    new = await link(world.coordinator, world.agents["n1"])
    assert all(channel.closed.is_set() for channel in old)
    assert not any(channel.closed.is_set() for channel in new)
    await world.settle()
    assert world.phase("n1") == "READY"
    assert world.coordinator.nodes.session_of("id-n1") == world.agents["n1"].full_session


async def test_two_nodes_of_one_name_are_refused(world: World) -> None:
    twin = FakeAgent("n1", node_id="id-twin", session="s2")
    with pytest.raises(LinkRefused, match="another node is called n1"):
        await world.coordinator.nodes.admit(twin.hello("control"), "test")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("node_id", "../x"),
        ("node_id", ""),
        ("node_id", 7),
        ("node_name", "a b"),
        ("kind", "other"),
        ("session", None),
        ("session", "x" * 65),
    ],
)
async def test_a_malformed_hello_is_refused(world: World, field: str, value: object) -> None:
    hello = {**world.agents["n1"].hello("control"), field: value}
    with pytest.raises(Invalid, match=field):
        await world.coordinator.nodes.admit(hello, "test")


async def test_a_node_that_says_it_is_another_one_is_cut_off(world: World) -> None:
    liar = FakeAgent("n2")
    liar.facts = liar.facts.replaced(id="id-n1")
    channels = await link(world.coordinator, liar)
    await world.until(lambda: channels[0].closed.is_set())
    assert set(world.cluster.nodes) == {"id-n1"}


async def test_a_node_that_never_reports_is_cut_off(world: World) -> None:
    class Silent(FakeAgent):
        async def synchronize(self, requests):  # type: ignore[no-untyped-def]
            async for _ in requests:
                pass
            yield api.SynchronizeResponse()

    channels = await link(world.coordinator, Silent("n2"))
    await world.until(lambda: channels[0].closed.is_set())


async def test_a_node_that_is_not_ready_gets_nothing_new(world: World) -> None:
    agent = world.agents["n1"]
    agent.say(node=api.NodeFacts(id=agent.node_id, name="n1", not_ready="the disk is full"))
    await world.until(lambda: world.phase("n1") == "NOT_READY")
    await world.create("web", 1)
    await world.settle()
    assert not agent.assignments
    node = (await world.call("get_node", api.GetNodeRequest(name="n1"))).node
    assert (node.phase, node.message) == (api.NodePhase.NOT_READY, "the disk is full")
    assert not world.coordinator.health.readyz().ok


async def test_nodes_show_what_is_reserved(world: World) -> None:
    resources = api.Resources(requests=api.ResourceList(cpu_millicores=250, memory_bytes=2**26))
    await world.create("web", 3, resources=resources)
    await world.until_ready("web", 3)
    node = (await world.call("list_nodes", api.ListNodesRequest())).nodes[0]
    assert node.reserved is not None
    assert (node.reserved.cpu_millicores, node.reserved.memory_bytes) == (750, 3 * 2**26)
    assert node.replicas == 3
    assert node.seen_at == world.clock.now()
    found = (await world.call("get_node", api.GetNodeRequest(name=node.id[:4]))).node
    assert found.name == "n1"


async def test_links_are_refused_when_this_process_does_not_lead(bare: World) -> None:
    agent = FakeAgent("n1")
    bare.coordinator.seat._held.stand_down("test")  # type: ignore[union-attr]
    with pytest.raises(LinkRefused, match="does not lead"):
        await bare.coordinator.nodes.admit(agent.hello("control"), "test")


async def test_links_end_with_the_leadership(world: World) -> None:
    channel: FakeChannel = world.channels["n1"][0]
    epoch = world.coordinator.seat.epoch
    world.coordinator.seat._held.stand_down("test")  # type: ignore[union-attr]
    await world.until(channel.closed.is_set)
    await world.until(lambda: world.coordinator.seat.leading)
    assert world.coordinator.seat.epoch > epoch, "a later leadership has a higher epoch"
