"""The control loop: conflicts, errors, fences, chunks, and forgetting what is old."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

import pytest
from tests.unit.coordinator.world import World

from cloudless import api
from cloudless.coordinator import limits
from cloudless.coordinator.control import retention
from cloudless.coordinator.control.apply import Applier
from cloudless.coordinator.control.retention import Retention
from cloudless.coordinator.state import keys
from cloudless.domain.cluster import Cluster
from cloudless.domain.event import Event
from cloudless.domain.plan import Plan, PutReplica, PutStatus
from cloudless.domain.replica import ReplicaRecord
from cloudless.domain.status import StatusRecord
from cloudless.planning.workload import plan_workload
from cloudless.store.port import Compare


def replica(workload_id: str, number: int, at: datetime.datetime, **fields: Any) -> ReplicaRecord:
    return ReplicaRecord(
        id=f"r{number:04}",
        workload_id=workload_id,
        namespace="default",
        name="web",
        ordinal=number,
        revision=1,
        created_at=at,
        **fields,
    )


def applier(world: World) -> Applier:
    context = world.coordinator.service._context
    return Applier(context.typed, context.cache.facts, world.new_id)


async def quiet(world: World) -> str:
    """A workload that the control loop has nothing to do for; its id."""
    created = await world.create("web", 0)
    await world.settle()
    return created.id


async def test_a_large_plan_goes_in_chunks_that_hold_together(bare: World) -> None:
    workload_id = await quiet(bare)
    status = bare.cluster.statuses[workload_id]
    now = bare.clock.now()
    actions = tuple(PutReplica(replica(workload_id, number, now)) for number in range(300))
    newer = status.replaced(message="all of it")
    bare.coordinator.control._leadership = Follower()  # type: ignore[assignment]
    plan = Plan((PutStatus(newer), *actions))
    outcome = await applier(bare).apply(plan, bare.coordinator.seat.fence, workload_id)
    assert outcome.done
    await bare.coordinator.cache.wait_for(outcome.revision)
    assert len(bare.cluster.replicas) == 300
    assert bare.cluster.statuses[workload_id].message == "all of it"


class Follower:
    """A leadership that this process does not have."""

    leading = False
    fence: tuple[Compare, ...] = ()


async def test_a_chunk_after_a_foreign_write_is_not_done(
    bare: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    workload_id = await quiet(bare)
    bare.coordinator.control._leadership = Follower()  # type: ignore[assignment]
    now = bare.clock.now()
    actions = tuple(PutReplica(replica(workload_id, number, now)) for number in range(300))
    one = applier(bare)
    commit, calls = one._typed.commit, 0

    async def interrupted(batch: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            await bare.scale("web", 5)
        return await commit(batch)

    monkeypatch.setattr(type(one._typed), "commit", lambda self, batch: interrupted(batch))
    outcome = await one.apply(Plan(actions), bare.coordinator.seat.fence, workload_id)
    monkeypatch.undo()
    assert not outcome.done
    await bare.settle()
    assert 0 < len(bare.cluster.replicas) < 300
    status = bare.cluster.statuses[workload_id]
    assert status.observed_generation == 1, "what was not done is not claimed"


async def test_a_plan_of_a_former_leader_is_refused(bare: World) -> None:
    workload_id = await quiet(bare)
    old = bare.coordinator.seat.fence
    bare.coordinator.seat._held.stand_down("test")  # type: ignore[union-attr]
    await bare.pass_time(0.1)
    await bare.until(lambda: bare.coordinator.seat.leading)
    revision = bare.coordinator.cache.revision
    plan = Plan((PutStatus(StatusRecord(workload_id=workload_id, observed_generation=99)),))
    outcome = await applier(bare).apply(plan, old, workload_id)
    assert not outcome.done
    assert bare.cluster.statuses[workload_id].observed_generation != 99
    assert bare.coordinator.cache.revision == revision


async def test_a_stop_holds_only_while_what_it_relies_on_is_true(world: World) -> None:
    """A replica is stopped because others are ready: when one of those is not, nothing happens."""
    await world.create("web", 2)
    status = (await world.until_ready("web", 2)).status
    assert status is not None
    one, two = (item.id for item in status.replicas)
    await world.settle()
    record = world.cluster.replicas[one]
    plan = Plan((PutReplica(record.replaced(run=False)),))
    world.agents["n1"].crash(two)
    before = world.coordinator.cache.facts.mods.copy()
    await world.until(lambda: world.cluster.observations[two].restarts == 1)
    facts = world.coordinator.cache.facts
    now_known = facts.mods
    facts.mods = before
    facts.mods[keys.node("id-n1")] = now_known[keys.node("id-n1")]
    outcome = await applier(world).apply(plan, world.coordinator.seat.fence, record.workload_id)
    facts.mods = now_known
    assert not outcome.done


async def test_a_planner_that_fails_fails_its_key_only(bare: World, caplog: pytest.LogCaptureFixture) -> None:
    control = bare.coordinator.control
    broken = True

    def plan(cluster: Cluster, workload_id: str, now: datetime.datetime, new_id: Callable[[], str]) -> Plan:
        record = cluster.workloads.get(workload_id)
        if broken and record is not None and record.name == "bad":
            raise ZeroDivisionError("a bug")
        return plan_workload(cluster, workload_id, now, new_id)

    control._plan_workload = plan
    await bare.create("bad", 0)
    await bare.create("good", 0)
    await bare.pass_time(60)
    good, bad = (await bare.get("good")).status, (await bare.get("bad")).status
    assert good is not None
    assert bad is not None
    assert (good.observed_generation, bad.observed_generation) == (1, 0)
    failures = sum(record.message == "planning failed" for record in caplog.records)
    assert 3 < failures < 20, "it was tried again, with growing pauses"
    broken = False
    await bare.pass_time(limits.RETRY_CAP_S)
    bad = (await bare.get("bad")).status
    assert bad is not None
    assert bad.observed_generation == 1


async def test_a_conflict_is_planned_again_on_what_is_there(bare: World) -> None:
    control = bare.coordinator.control
    conflicts = []

    def plan(cluster: Cluster, workload_id: str, now: datetime.datetime, new_id: Callable[[], str]) -> Plan:
        made = plan_workload(cluster, workload_id, now, new_id)
        if made.actions and not conflicts:
            conflicts.append(bare.coordinator.cache.facts.mods.pop(keys.workload("default", "web")))
        return made

    control._plan_workload = plan
    await bare.create("web", 0)
    await bare.until(lambda: bool(conflicts))
    bare.coordinator.cache.facts.mods[keys.workload("default", "web")] = conflicts[0]
    await bare.settle()
    await bare.pass_time(1)
    status = (await bare.get()).status
    assert status is not None
    assert status.observed_generation == 1
    assert b"cloudless_plan_conflicts_total 0.0" not in bare.coordinator.health.metrics_text()


async def test_a_settled_loop_does_nothing(world: World) -> None:
    await world.create("web", 3)
    await world.until_ready("web", 3)
    await world.pass_time(5)
    revision = world.coordinator.cache.revision
    await world.pass_time(600)
    written = world.coordinator.cache.revision - revision
    assert written == 0, "an idle cluster writes nothing but its leader's lease"


async def test_old_events_and_answers_go(bare: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "MAX_EVENTS", 10)
    context = bare.coordinator.service._context
    for number in range(30):
        at = bare.clock.now() + datetime.timedelta(milliseconds=number)
        event_id = keys.event_id(keys.micros_since_epoch(at), f"{number:02}")
        batch = context.typed.batch()
        event = Event(id=event_id, at=at, reason="Test", message="", kind="node", name=str(number))
        batch.put(keys.event(event_id), event)
        await context.typed.commit(batch)
    await bare.settle()
    await bare.pass_time(1)
    left = (await bare.call("list_events", api.ListEventsRequest(kind="node"))).events
    assert [event.name for event in left] == [str(number) for number in range(20, 30)]
    await bare.create("web", 0, request_id="key")
    await bare.pass_time(datetime.timedelta(days=7, hours=1).total_seconds())
    assert not (await bare.call("list_events", api.ListEventsRequest())).events
    assert not (await bare.store.range(keys.REQUESTS)).items


async def test_too_many_answers_lose_the_oldest(bare: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "MAX_REQUEST_RECORDS", 3)
    for number in range(6):
        await bare.create(f"w{number}", 0, request_id=f"key-{number}")
    context = bare.coordinator.service._context
    sweeper = Retention(context.typed, context.cache, bare.coordinator.seat, bare.clock, compacts=True)
    await sweeper.sweep()
    left = [kv.key.rpartition("/")[2] for kv in (await bare.store.range(keys.REQUESTS)).items]
    assert left == ["key-3", "key-4", "key-5"]
    monkeypatch.setattr(retention, "MAX_REQUEST_BYTES", 700)
    await sweeper.sweep()
    assert len((await bare.store.range(keys.REQUESTS)).items) == 2


async def test_many_writes_are_swept_up_at_once(bare: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "MAX_REQUEST_RECORDS", 3)
    monkeypatch.setattr(retention, "RETENTION_REVISIONS", 20)
    for number in range(40):
        await bare.create(f"w{number}", 0, request_id=f"key-{number:02}")
    await bare.settle()
    await bare.pass_time(1)
    left = [kv.key.rpartition("/")[2] for kv in (await bare.store.range(keys.REQUESTS)).items]
    assert len(left) < 20, "not only every ten minutes"
    assert left[-3:] == ["key-37", "key-38", "key-39"]


async def test_metrics_say_what_there_is(world: World) -> None:
    await world.create("web", 2)
    await world.until_ready("web", 2)
    text = world.coordinator.health.metrics_text().decode()
    assert 'cloudless_replicas{phase="RUNNING"} 2.0' in text
    assert 'cloudless_replicas{phase="FAILED"} 0.0' in text
    assert 'cloudless_nodes{phase="READY"} 1.0' in text
    assert "cloudless_workloads 1.0" in text
    assert "cloudless_leading 1.0" in text
    assert 'cloudless_store_seconds_count{operation="txn"}' in text
    revision = world.coordinator.cache.revision
    assert f"cloudless_watch_cache_revision {float(revision)}" in text


async def test_health_pages(bare: World) -> None:
    health = bare.coordinator.health
    assert not health.readyz().ok, "no node is ready"
    assert health.livez().ok
    await bare.join("n1")
    assert health.readyz().ok
    body = (await health.health()).body
    assert body["process"]["tasks"]["coordinator"] > 1
    assert body["process"]["threads"] >= 1
    assert (body["status"], body["nodes"], body["leadership"]["leading"]) == ("ok", {"ready": 1}, True)
    health.draining = True
    assert not health.readyz().ok
    assert (await health.health()).body["status"] == "draining"


async def test_a_loop_that_is_stuck_is_not_alive(bare: World) -> None:
    control, health = bare.coordinator.control, bare.coordinator.health
    control.busy_since_s = bare.clock.monotonic()
    await bare.pass_time(limits.STUCK_LOOP_S + 1)
    assert not health.livez().ok
    control.busy_since_s = None
    assert health.livez().ok


async def test_info(world: World) -> None:
    info = await world.call("get_info", api.GetInfoRequest())
    assert (info.store, info.leader, info.nodes, info.nodes_ready) == ("memory", True, 1, 1)
    assert info.cluster_id == world.coordinator.cluster_id
    await world.kill()
    await world.start()
    again = await world.call("get_info", api.GetInfoRequest())
    assert again.cluster_id == info.cluster_id
