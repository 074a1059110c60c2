"""The life line: what a node is told, and what is believed of what it says."""

from __future__ import annotations

import datetime

import pytest
from tests.unit.coordinator.fakeagent import DIGEST, link
from tests.unit.coordinator.world import World

from cloudless import api
from cloudless.coordinator import desired
from cloudless.coordinator.reports import REACHABLE
from cloudless.domain.replica import ReplicaPhase as P
from cloudless.wire.link import observation_to_wire


async def one_running(world: World) -> str:
    await world.create("web", 1)
    status = (await world.until_ready()).status
    assert status is not None
    return status.replicas[0].id


async def test_first_everything_then_what_changes(world: World) -> None:
    agent = world.agents["n1"]
    first = agent.received[0]
    assert first.whole
    assert not first.assignments
    await world.create("web", 2)
    await world.until_ready("web", 2)
    later = agent.received[1:]
    assert not any(message.whole for message in later)
    assert len({one.replica_id for message in later for one in message.assignments}) == 2
    await world.delete("web")
    await world.until_gone()
    await world.settle()
    assert len({replica_id for message in agent.received for replica_id in message.removed}) == 2


async def test_an_assignment_says_everything(world: World) -> None:
    agent = world.agents["n1"]
    await world.create("web", 1, labels={"app": "web"})
    workload = await world.until_ready()
    assert workload.status is not None
    assignment = next(iter(agent.assignments.values()))
    assert assignment.replica_id == workload.status.replicas[0].id
    assert assignment.workload_id == workload.id
    assert (assignment.namespace, assignment.name, assignment.ordinal) == ("default", "web", 0)
    assert (assignment.revision, assignment.run, assignment.labels) == (1, True, {"app": "web"})
    await world.until(lambda: next(iter(agent.assignments.values())).image_digest == DIGEST)
    agent.stop_replicas = False
    await world.delete("web", grace_period=datetime.timedelta(seconds=2))
    await world.until(lambda: not next(iter(agent.assignments.values())).run)
    assert next(iter(agent.assignments.values())).grace_period == datetime.timedelta(seconds=2)


async def test_messages_say_their_revision_and_what_was_stored(world: World) -> None:
    agent = world.agents["n1"]
    await one_running(world)
    await world.settle()
    revisions = [message.revision for message in agent.received]
    assert revisions == sorted(revisions)
    assert revisions[-1] > 0
    sequence = agent.say(events=[event(world, "one")])
    await world.until(lambda: agent.received[-1].acknowledged == sequence)
    answer = await world.call("list_events", api.ListEventsRequest(name="web"))
    assert any(found.reason == "Test" for found in answer.events), "acknowledged means stored"


def event(world: World, event_id: str, **fields: object) -> api.Event:
    return api.Event(
        id=event_id,
        at=world.clock.now(),
        severity="Normal",
        reason="Test",
        message="a test",
        kind="replica",
        namespace="default",
        name="web",
        **fields,  # type: ignore[arg-type]
    )


async def test_an_event_that_is_told_twice_is_stored_once(world: World) -> None:
    agent = world.agents["n1"]
    told = event(world, "same", node="elsewhere")
    agent.say(events=[told])
    agent.say(events=[told])
    await world.settle()
    answer = await world.call("list_events", api.ListEventsRequest(kind="replica"))
    assert [(found.reason, found.node) for found in answer.events] == [("Test", "n1")]


async def test_an_older_observation_never_replaces_a_newer_one(world: World) -> None:
    replica_id = await one_running(world)
    agent = world.agents["n1"]
    newest = agent.observed[replica_id]
    agent.observe(replica_id, P.FAILED, version=newest.version - 1)
    agent.observe(replica_id, P.FAILED, version=newest.version)
    await world.settle()
    assert world.cluster.observations[replica_id].phase is P.RUNNING


async def test_an_end_is_final_and_restarts_never_fall(world: World) -> None:
    replica_id = await one_running(world)
    agent = world.agents["n1"]
    agent.crash(replica_id)
    agent.run(replica_id)
    agent.observe(replica_id, P.RUNNING, restarts=0, ready=True)
    await world.settle()
    assert world.cluster.observations[replica_id].restarts == 1
    agent.observe(replica_id, P.FAILED)
    await world.until(lambda: world.cluster.observations[replica_id].phase is P.FAILED)
    agent.observe(replica_id, P.RUNNING, ready=True)
    await world.settle()
    assert world.cluster.observations[replica_id].phase is P.FAILED


def test_phases_may_be_skipped_but_not_turned_back() -> None:
    assert P.SUCCEEDED in REACHABLE[P.PENDING]
    assert P.RUNNING in REACHABLE[P.BACKING_OFF]
    for end in (P.SUCCEEDED, P.FAILED):
        assert REACHABLE[end] <= {end, P.STOPPING, P.SUCCEEDED, P.FAILED}
    assert P.RUNNING not in REACHABLE[P.STOPPING]
    assert all(P.UNKNOWN not in following for following in REACHABLE.values())


async def test_a_node_cannot_speak_for_another_nodes_replicas(world: World) -> None:
    replica_id = await one_running(world)
    other = await world.join("n2")
    seen = world.agents["n1"].observed[replica_id]
    lie = seen.replaced(node_id=other.node_id, version=seen.version + 100, phase=P.FAILED)
    other.say(replicas=[observation_to_wire(lie)])
    other.say(removed=[replica_id])
    await world.settle()
    assert world.cluster.observations[replica_id].phase is P.RUNNING
    assert replica_id in world.cluster.replicas


async def test_observations_of_unknown_replicas_leave_no_trace(world: World) -> None:
    agent = world.agents["n1"]
    agent.say(
        replicas=[
            api.ReplicaObservation(
                replica_id="nobody", workload_id="none", phase=api.ReplicaPhase.RUNNING, version=1
            )
        ],
        removed=["nobody"],
    )
    await world.settle()
    assert not world.cluster.observations
    assert not world.cluster.replicas


async def test_a_replica_that_vanished_is_told_again(world: World) -> None:
    replica_id = await one_running(world)
    agent = world.agents["n1"]
    told = len(agent.received)
    agent.remove(replica_id)
    await world.until(
        lambda: (
            replica_id in {one.replica_id for message in agent.received[told:] for one in message.assignments}
        )
    )
    await world.until_ready()


async def test_a_whole_report_tells_what_is_gone(world: World) -> None:
    replica_id = await one_running(world)
    agent = world.agents["n1"]
    world.cut("n1")
    await world.until(lambda: len(world.coordinator.nodes) == 0)
    agent.stop_replicas = False
    await world.delete("web")
    await world.settle()
    assert replica_id in world.cluster.replicas, "nobody has said yet that it is gone"
    agent.observed.clear()
    await world.relink("n1")
    await world.until_gone()


async def test_a_phase_of_the_future_ends_the_link(world: World) -> None:
    replica_id = await one_running(world)
    agent, channel = world.agents["n1"], world.channels["n1"][0]
    agent.say(replicas=[api.ReplicaObservation(replica_id=replica_id, phase=99, version=10**9)])  # type: ignore[arg-type]
    await world.until(channel.closed.is_set)


async def test_the_store_is_away_while_a_node_reports(world: World) -> None:
    replica_id = await one_running(world)
    agent = world.agents["n1"]
    world.faulty.down = True
    agent.crash(replica_id)
    await world.pass_time(5)
    before = agent.received[-1].acknowledged
    world.faulty.down = False
    await world.until(lambda: world.cluster.observations[replica_id].restarts == 1)
    await world.until(lambda: agent.received[-1].acknowledged > before)


async def test_a_report_of_many_replicas_is_stored_in_parts(world: World) -> None:
    await world.create("web", 130)
    await world.until_ready("web", 130)
    world.cut("n1")
    await world.until(lambda: len(world.coordinator.nodes) == 0)
    agent = world.agents["n1"]
    for replica_id, seen in agent.observed.items():
        agent.observed[replica_id] = seen.replaced(version=seen.version + 1000, message="seen again")
    await world.relink("n1")
    await world.until(
        lambda: all(seen.message == "seen again" for seen in world.cluster.observations.values())
    )
    first = next(message for message in reversed(agent.received) if message.whole)
    assert len(first.assignments) == 130


@pytest.mark.parametrize("removed", [["x"] * 20_001])
async def test_a_report_without_bounds_ends_the_link(world: World, removed: list[str]) -> None:
    channel = world.channels["n1"][0]
    world.agents["n1"].say(removed=removed)
    await world.until(channel.closed.is_set)


async def test_a_replica_that_is_not_the_nodes_is_told_to_go(world: World) -> None:
    agent = world.agents["n1"]
    stranger = api.ReplicaObservation(replica_id="stranger", phase=api.ReplicaPhase.RUNNING, version=1)
    agent.say(replicas=[stranger])
    await world.until(lambda: "stranger" in agent.received[-1].removed)


async def test_more_than_one_message_holds_ends_the_link(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.create("web", 3)
    await world.until_ready("web", 3)
    world.cut("n1")
    await world.until(lambda: len(world.coordinator.nodes) == 0)
    monkeypatch.setattr(desired, "MAX_WHOLE_BYTES", 10)
    channels = await link(world.coordinator, world.agents["n1"])
    await world.until(channels[0].closed.is_set)
    assert len(world.agents["n1"].observed) == 3, "what runs goes on"
