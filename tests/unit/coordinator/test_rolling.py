"""Rollouts through the API: verbs, what they show, journals, dry runs; planner and store are real."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.unit.coordinator.steering import (
    BLUE_GREEN,
    CANARY,
    P,
    V,
    images_on,
    order,
    rollout_in,
    running,
    shown,
    until,
    update,
)
from tests.unit.coordinator.world import World

from cloudless import api
from cloudless.coordinator import limits
from cloudless.coordinator.services.orders import NotNow
from cloudless.coordinator.state import keys
from cloudless.coordinator.state.journal import read_journal
from cloudless.domain.errors import Conflict, Invalid, NotFound, PreconditionFailed, Unavailable
from cloudless.domain.replica import ExitStatus, ReplicaPhase
from cloudless.domain.rollout import JournalEntry, RolloutPhase

# -- verbs ---------------------------------------------------------------------------------


async def test_pause_and_resume(world: World) -> None:
    await running(world, 8)
    world.agents["n1"].start_replicas = False
    await update(world, "nginx:2")
    answered = await order(world, V.PAUSE)
    assert rollout_in(answered).pending, "asked for, not taken up yet"
    paused = await until(world, P.PAUSED)
    assert paused.because.startswith("paused by a user until resumed, at most until 2026-01-02 ")
    assert (await order(world, V.PAUSE)).generation == answered.generation, "once more is no error"
    world.agents["n1"].start_replicas = True
    for replica_id in list(world.agents["n1"].observed):
        world.agents["n1"].run(replica_id)
    await world.pass_time(60)
    status = (await world.get()).status
    assert status is not None
    assert 0 < status.updated_replicas < 8, "what was begun is finished, and no more"
    await order(world, V.RESUME)
    await until(world, P.COMPLETED, revision=2)
    with pytest.raises(NotNow, match="not paused: revision 2 is rolled out"):
        await order(world, V.RESUME)


async def test_blue_green_waits_to_be_promoted_and_can_be_taken_back(world: World) -> None:
    await running(world, 2, rollout=BLUE_GREEN)
    await update(world, "nginx:2")
    waiting = await until(world, P.WAITING_PROMOTION)
    assert (waiting.new_replicas, waiting.new_available, waiting.old_replicas) == (2, 2, 2)
    assert (waiting.stage, [(one.revision, one.percent) for one in waiting.traffic]) == (
        "promote",
        [(1, 100)],
    )
    assert waiting.deadline is not None
    assert (waiting.deadline - world.clock.now()).total_seconds() > 86_000, "nobody is hurried"
    await order(world, V.PROMOTE)
    done = await until(world, P.COMPLETED, revision=2)
    assert done.stage == "retire"
    assert done.waits_until is not None
    assert [(one.revision, one.percent) for one in done.traffic] == [(2, 100)]
    await order(world, V.ABORT)
    back = await until(world, P.ABORTED)
    assert (back.target_revision, back.failure.reason if back.failure else "") == (1, "Aborted")
    assert images_on(world) == {"nginx:alpine", "nginx:2"}, "the way is open in both directions"
    await world.pass_time(31)
    assert images_on(world) == {"nginx:alpine"}
    with pytest.raises(NotNow, match="revision 2 was aborted; revision 1 is in its place"):
        await order(world, V.PROMOTE)


async def test_canary_steps_are_promoted_one_by_one(world: World) -> None:
    await running(world, 4, rollout=CANARY)
    await update(world, "nginx:2")
    first = await until(world, P.WAITING_PROMOTION)
    assert (first.step, first.steps, first.new_replicas, first.old_replicas) == (1, 2, 1, 4)
    assert [(one.revision, one.percent) for one in first.traffic] == [(1, 75), (2, 25)]
    await order(world, V.PROMOTE)
    await world.until(lambda: len(world.cluster.replicas) == 6)
    second = await until(world, P.PROGRESSING)
    await world.settle()
    second = rollout_in(await world.get())
    assert (second.step, second.stage, second.phase) == (2, "promote", P.PROGRESSING)
    assert second.waits_until is not None
    await order(world, V.PROMOTE)
    done = await until(world, P.COMPLETED, revision=2)
    assert (done.step, done.steps, done.old_replicas) == (0, 2, 0)


async def test_a_full_promotion_leaves_out_all_further_steps(world: World) -> None:
    await running(world, 4, rollout=CANARY)
    await update(world, "nginx:2")
    await until(world, P.WAITING_PROMOTION)
    await order(world, V.PROMOTE, full=True)
    before = world.clock.monotonic()
    await until(world, P.COMPLETED, revision=2)
    assert world.clock.monotonic() - before < 60, "the pause of the second step was left out"


async def test_a_failure_explains_itself_and_can_be_tried_again(world: World) -> None:
    await running(world, 4, env={"MODE": "a"})
    agent = world.agents["n1"]
    agent.start_replicas = False
    await update(world, "nginx:2")
    old = set(agent.observed)
    await world.until(lambda: bool(set(agent.observed) - old))
    await world.settle()
    bad = min(set(agent.observed) - old)
    ended = ExitStatus(code=3, finished_at=world.clock.now(), reason="exit code 3", log_tail="no database")
    agent.observe(bad, ReplicaPhase.FAILED, last_exit=ended, message="exit code 3, no retries left")
    agent.start_replicas = True
    back = await until(world, P.ROLLED_BACK)
    assert (back.revision, back.target_revision, back.from_revision) == (2, 1, 1)
    failure = back.failure
    assert failure is not None
    assert (failure.reason, failure.node, failure.log_tail) == ("ReplicaFailed", "n1", "no database")
    assert failure.last_exit is not None
    assert failure.last_exit.code == 3
    assert failure.changes == ["image: nginx:alpine -> nginx:2"]
    assert back.ended_at is not None
    assert back.reasons[0].depth == 0
    await order(world, V.RETRY)
    done = await until(world, P.COMPLETED)
    assert (done.revision, done.failure) == (2, None)


async def test_undo_to_a_named_revision(world: World) -> None:
    await running(world, 2)
    for number in (2, 3):
        await update(world, f"nginx:{number}")
        await until(world, P.COMPLETED, revision=number)
    await world.scale("web", 3)
    before = await world.get()
    after = await order(world, V.UNDO, to_revision=1, message="all was well then")
    assert after.generation == before.generation + 1
    assert after.spec is not None
    assert (after.spec.image, after.spec.replicas) == ("nginx:alpine", 3)
    await until(world, P.COMPLETED, revision=4)
    revisions = (await world.call("list_revisions", api.ListRevisionsRequest(name="web"))).revisions
    assert [(one.number, one.changes) for one in revisions] == [
        (4, ["image: nginx:3 -> nginx:alpine"]),
        (3, ["image: nginx:2 -> nginx:3"]),
        (2, ["image: nginx:alpine -> nginx:2"]),
        (1, []),
    ]
    assert revisions[0].message == "all was well then"
    assert all(one.healthy_at and one.ended_at and one.phase is P.COMPLETED for one in revisions)
    same = await order(world, V.UNDO, to_revision=1)
    assert same.generation == after.generation, "it is what runs already"
    with pytest.raises(NotNow, match="kept are 1, 2, 3, 4"):
        await order(world, V.UNDO, to_revision=7)


async def test_restart_makes_new_replicas_of_the_same_specification(world: World) -> None:
    await running(world, 2)
    before = await world.get()
    old = {one.id for one in before.status.replicas} if before.status else set()
    await order(world, V.RESTART, pull=True, message="new certificate")
    await until(world, P.COMPLETED, revision=2)
    after = await world.get()
    assert after.status is not None
    assert after.generation == before.generation
    assert not old & {one.id for one in after.status.replicas}
    made = (await shown(world)).revision
    assert made is not None
    assert (made.message, made.changes) == ("new certificate", [])
    told = [one for request in world.agents["n1"].received for one in request.assignments]
    assert next(one.pull for one in told if one.revision == 2)
    assert not any(one.pull for one in told if one.revision == 1)


async def test_two_updates_at_once_and_a_superseded_rollout(world: World) -> None:
    await running(world, 4)
    world.agents["n1"].start_replicas = False
    await update(world, "nginx:2")
    await until(world, P.PROGRESSING, revision=2)
    world.agents["n1"].start_replicas = True
    await update(world, "nginx:3")
    await until(world, P.COMPLETED, revision=3)
    middle = await shown(world, 2)
    assert middle.revision is not None
    assert middle.revision.phase is P.SUPERSEDED
    assert middle.rollout is None, "status speaks of the newest one"
    assert middle.journal[-1].decided == "superseded by revision 3"
    spec = api.WorkloadSpec(image="nginx:4")
    version = (await world.get()).resource_version
    request = api.UpdateWorkloadRequest(name="web", spec=spec, resource_version=version)
    answers = await asyncio.gather(
        world.call("update_workload", request),
        world.call("rollout", api.RolloutRequest(name="web", verb=V.RESTART, resource_version=version)),
        return_exceptions=True,
    )
    assert [type(answer) for answer in answers] == [api.UpdateWorkloadResponse, Conflict]


# -- what holds for all of them ------------------------------------------------------------


async def test_a_stale_version_is_refused(world: World) -> None:
    await running(world, 1)
    version = (await world.get()).resource_version
    await order(world, V.RESTART, resource_version=version)
    with pytest.raises(Conflict, match="it changed meanwhile"):
        await order(world, V.RESTART, resource_version=version)


async def test_a_repeated_verb_is_done_once(world: World) -> None:
    await running(world, 1)
    first = await order(world, V.RESTART, request_id="key")
    await until(world, P.COMPLETED, revision=2)
    assert await order(world, V.RESTART, request_id="key") == first
    await world.settle()
    assert rollout_in(await world.get()).revision == 2
    with pytest.raises(Invalid, match="another request"):
        await order(world, V.RETRY, request_id="key")


async def test_a_repeated_verb_that_no_longer_fits_is_answered_as_the_first_time(world: World) -> None:
    await running(world, 4)
    world.agents["n1"].start_replicas = False
    await update(world, "nginx:2")
    await order(world, V.PAUSE, request_id="pause")
    first = await order(world, V.RESUME, request_id="resume")
    assert await order(world, V.RESUME, request_id="resume") == first


async def test_a_dry_run_of_a_verb_shows_the_steps_and_changes_nothing(world: World) -> None:
    await running(world, 2, rollout=BLUE_GREEN)
    await update(world, "nginx:2")
    await until(world, P.WAITING_PROMOTION)
    await world.settle()
    revision = world.coordinator.cache.revision
    request = api.RolloutRequest(name="web", verb=V.PROMOTE, dry_run=True, request_id="key")
    answer = await world.call("rollout", request)
    assert [(step.stage, step.action) for step in answer.plan][:2] == [(1, "switch"), (1, "end")]
    assert sum(step.action == "stop" for step in answer.plan) == 2
    assert min(step.available for step in answer.plan) == 2
    await world.settle()
    assert world.coordinator.cache.revision == revision
    with pytest.raises(NotNow, match="nothing to retry"):
        await world.call("rollout", api.RolloutRequest(name="web", verb=V.RETRY, dry_run=True))


async def test_a_workload_that_is_being_deleted_takes_no_orders(world: World) -> None:
    await running(world, 1)
    world.agents["n1"].stop_replicas = False
    await world.delete("web")
    with pytest.raises(PreconditionFailed, match="is being deleted"):
        await order(world, V.RESTART)
    with pytest.raises(NotFound):
        await order(world, V.RESTART, name="other")


async def test_without_a_leader_nothing_is_taken_up(world: World) -> None:
    await running(world, 2)

    class Follower:
        leading = False
        fence = ()

    world.coordinator.control._leadership = Follower()  # type: ignore[assignment]
    await update(world, "nginx:2")
    before = world.clock.monotonic()
    with pytest.raises(Unavailable, match="not yet taken up"):
        await order(world, V.PAUSE)
    assert world.clock.monotonic() - before == pytest.approx(limits.TAKE_UP_S, abs=0.01)


async def test_a_verb_holds_only_on_the_status_it_was_decided_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between deciding and writing the rollout ends: the verb is decided again, and refused."""
    await running(world, 1)
    agent = world.agents["n1"]
    agent.start_replicas = False
    await update(world, "nginx:2")
    await until(world, P.PROGRESSING, revision=2)
    await world.settle()
    typed = world.coordinator.service._context.typed
    commit, late = typed.commit, True

    async def overtaken(batch: Any) -> Any:
        nonlocal late
        if late and any(op.key == keys.workload("default", "web") for op in batch.ops):
            late = False
            agent.start_replicas = True
            for replica_id in list(agent.assignments):
                if agent.assignments[replica_id].run:
                    agent.run(replica_id)
            await until(world, P.COMPLETED, revision=2)
        return await commit(batch)

    monkeypatch.setattr(typed, "commit", overtaken)
    with pytest.raises(NotNow, match="nothing to pause: revision 2 is rolled out"):
        await order(world, V.PAUSE)
    monkeypatch.undo()
    assert not world.cluster.workload_named("default", "web").intent.paused


async def test_a_rollout_in_another_namespace(world: World) -> None:
    await running(world, 1)
    await world.create("web", 1, namespace="prod")
    await world.settle()
    await order(world, V.RESTART, namespace="prod")
    await world.settle()
    there = await shown(world, namespace="prod")
    here = await shown(world)
    assert there.revision is not None
    assert here.revision is not None
    assert (there.revision.number, here.revision.number) == (2, 1)


async def test_watches_tell_that_only_the_rollout_changed(world: World) -> None:
    await running(world, 2, rollout=BLUE_GREEN)
    await update(world, "nginx:2")
    await until(world, P.WAITING_PROMOTION)
    await world.settle()
    async with world.stream("watch_workloads", api.WatchWorkloadsRequest(name="web")) as stream:
        first = await stream.next()
        assert (await stream.next()).type is api.WatchWorkloadsResponseType.BOOKMARK
        world.agents["n1"].stop_replicas = False
        await order(world, V.PROMOTE)
        seen = []
        while P.COMPLETED not in seen:
            change = await stream.next()
            assert change.workload is not None, f"nothing but {seen} for a while"
            seen.append(rollout_in(change.workload).phase)
        assert change.workload.generation == first.workload.generation
        assert change.workload.status.current_replicas == first.workload.status.current_replicas


# -- journals ------------------------------------------------------------------------------


async def test_a_rollout_is_kept_with_its_journal(world: World) -> None:
    await running(world, 4)
    await update(world, "nginx:2")
    await until(world, P.COMPLETED, revision=2)
    newest, first = await shown(world), await shown(world, 1)
    assert newest.rollout is not None
    assert (newest.rollout.revision, newest.rollout.phase) == (2, P.COMPLETED)
    assert first.rollout is None
    for answer, number in ((newest, 2), (first, 1)):
        assert answer.revision is not None
        assert answer.revision.number == number
        assert [one.sequence for one in answer.journal] == list(range(1, len(answer.journal) + 1))
        assert answer.journal[0].verb == "begin"
        assert answer.journal[-1].verb == "end"
        assert answer.journal[-1].phase is P.COMPLETED
        assert [one.at for one in answer.journal] == sorted(one.at for one in answer.journal)
    with pytest.raises(NotFound, match="has no revision 9; kept are 1, 2"):
        await shown(world, 9)
    with pytest.raises(NotFound, match="does not exist"):
        await shown(world, name="other")


async def test_journals_go_with_their_revision_and_with_their_workload(world: World) -> None:
    await running(world, 1)
    workload_id = (await world.get()).id
    for number in range(2, 13):
        await update(world, f"nginx:{number}")
        await until(world, P.COMPLETED, revision=number)
    stored = (await world.store.range(keys.journals(workload_id))).items
    kept = {int(kv.key.split("/")[-2]) for kv in stored}
    assert kept == set(world.cluster.revisions[workload_id]) == set(range(3, 13))
    await world.delete("web")
    await world.until_gone()
    assert not (await world.store.range(keys.journals(workload_id))).items


async def test_a_long_journal_shows_its_newest_entries(bare: World, monkeypatch: pytest.MonkeyPatch) -> None:
    typed, at = bare.coordinator.service._context.typed, bare.clock.now()
    for number in range(1, 1201):
        batch = typed.batch()
        entry = JournalEntry(
            workload_id="w",
            revision=1,
            sequence=number,
            at=at,
            verb="surge",
            decided="x" * 100,
            phase=RolloutPhase.PROGRESSING,
        )
        batch.put(keys.journal_entry("w", 1, number), entry)
        batch.put(keys.journal_entry("w", 10, number), entry)
        await typed.commit(batch)
    read = await read_journal(typed, "w", 1)
    assert [one.sequence for one in read] == list(range(201, 1201))
    assert [one.sequence for one in await read_journal(typed, "w", 1, limit=2)] == [1199, 1200]
    monkeypatch.setattr("cloudless.coordinator.state.journal.MAX_JOURNAL_BYTES", 10_000)
    assert 10 < len(await read_journal(typed, "w", 1)) < 60
    assert not await read_journal(typed, "w", 2)
