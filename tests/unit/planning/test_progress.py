"""A rollout from its beginning to its end, whatever its strategy."""

from __future__ import annotations

import pytest
from tests.unit.planning.stories import ask, deployed, journal, rollout_of, running, until, verbs
from tests.unit.planning.world import SECOND, WEB, World

from cloudless.domain.plan import PutRevision
from cloudless.domain.rollout import RolloutPhase as P
from cloudless.planning.limits import MAX_JOURNAL_ENTRIES
from cloudless.planning.progress import shares_text
from cloudless.planning.workload import plan_workload


def crash(world: World, times: int) -> None:
    """All containers of a bad image have ended so often."""
    for machine in world.machines.values():
        for container in machine.containers.values():
            if container.bad:
                container.restarts = times
    world.run(1)


def test_a_completed_revision_was_proved_healthy() -> None:
    world = deployed(2)
    revision = world.cluster.revisions[WEB][1]
    assert revision.phase is P.COMPLETED
    assert revision.healthy_at is not None
    assert verbs(world, 1) == ["begin", "surge", "ready", "end"]


def test_a_crash_loop_is_tolerated_so_often_and_then_explained_and_taken_back() -> None:
    world = deployed(4)
    world.change(image="bad:1", env={"MODE": "b"})
    world.run(3)
    crash(world, 2)
    assert rollout_of(world).phase is P.PROGRESSING
    assert rollout_of(world).failures == 2
    crash(world, 3)
    assert rollout_of(world).phase is P.ROLLING_BACK
    rollout = until(world, P.ROLLED_BACK)
    assert running(world) == {1: 4}
    assert rollout.failure is not None
    assert rollout.failure.reason == "TooManyFailures"
    assert "failed 3 times, 2 are tolerated" in rollout.failure.message
    assert rollout.failure.changes == ("image: web:1 -> bad:1", "env.MODE: none -> b")
    assert rollout.failure.replica
    view = world.view()
    assert view.rollout is not None
    texts = [reason.text for reason in view.rollout.reasons]
    assert texts[0].startswith("revision 1 is in its place; new replicas failed 3 times")
    assert "changed: image: web:1 -> bad:1" in texts
    assert [entry.verb for entry in journal(world, 2)][-1] == "end"


def test_a_rollback_that_fails_starts_no_other_and_goes_on_trying() -> None:
    world = deployed(2, progress_deadline="20s", max_unavailable="1", max_surge="0")
    world.change(image="web:2")
    world.run(15)
    assert world.converged()
    world.change(image="web:3")
    world.settle()
    ask(world, aborts=1)
    for machine in world.machines.values():
        machine.not_ready = "containerd is away"
        world._report_facts(machine)
    world.run(30)
    rollout = rollout_of(world)
    assert rollout.phase is P.FAILED
    assert rollout.because.startswith("could not go back to revision 2")
    assert rollout.back_to == 2
    for machine in world.machines.values():
        machine.not_ready = ""
        world._report_facts(machine)
    until(world, P.ABORTED)
    assert running(world) == {2: 2}


def test_the_way_back_leads_to_what_was_proved_healthy_not_to_what_was_before() -> None:
    world = deployed(2)
    world.change(image="bad:1")
    world.settle()
    world.change(image="bad:2")
    world.run(8)
    assert world.cluster.revisions[WEB][2].phase is P.SUPERSEDED
    crash(world, 5)
    rollout = until(world, P.ROLLED_BACK)
    assert (rollout.revision, rollout.target) == (3, 1)
    assert running(world) == {1: 2}


def test_the_first_deployment_has_nothing_to_go_back_to_and_mends_itself() -> None:
    world = World(1, 1, replicas=2)
    world.change(image="bad:1")
    world.run(3)
    crash(world, 5)
    rollout = rollout_of(world)
    assert rollout.phase is P.FAILED
    assert rollout.because.endswith("not rolled back: no earlier revision was proved healthy")
    for machine in world.machines.values():
        for container in machine.containers.values():
            container.bad = False
    until(world, P.COMPLETED)


def test_an_image_that_is_not_there_fails_at_once() -> None:
    world = deployed(2)
    world.change(image="web:2")
    world.settle()
    new = next(one for one in world.cluster.replicas_of(WEB) if one.revision == 2)
    world.run(3)
    seen = world.cluster.observations[new.id]
    world.cluster.put_observation(
        seen.replaced(ready=False, phase="BACKING_OFF", message="ImageNotFound: no such image", version=99)
    )
    world.settle()
    rollout = rollout_of(world)
    assert rollout.phase is P.ROLLING_BACK
    assert rollout.failure is not None
    assert rollout.failure.reason == "CannotStart"


def test_a_start_that_fails_again_and_again_is_a_bad_end_a_first_time_is_not() -> None:
    world = deployed(2, max_failures=1)
    world.change(image="web:2")
    world.run(3)
    new = next(one for one in world.cluster.replicas_of(WEB) if one.revision == 2)
    for failed, phase in ((1, P.PROGRESSING), (2, P.PROGRESSING), (3, P.ROLLING_BACK)):
        seen = world.cluster.observations[new.id].replaced(
            ready=False, phase="BACKING_OFF", message="RegistryUnavailable: away", failed_starts=failed
        )
        world.cluster.put_observation(seen)
        world.settle()
        assert rollout_of(world).phase is phase
    failure = rollout_of(world).failure
    assert failure is not None
    assert (failure.reason, failure.detail) == ("TooManyFailures", "RegistryUnavailable: away")


def test_paused_nothing_new_is_begun_and_no_time_counts() -> None:
    world = deployed(4, progress_deadline="20s")
    world.change(image="web:2")
    world.settle()
    ask(world, paused=True)
    world.run(200)
    assert rollout_of(world).phase is P.PAUSED
    assert sum(running(world).values()) == 4
    ask(world, paused=False)
    assert rollout_of(world).phase is P.PROGRESSING
    until(world, P.COMPLETED)
    told = verbs(world, 2)
    assert told.index("pause") < told.index("resume") < told.index("end")


def test_a_retry_forgives_and_makes_new_replicas() -> None:
    world = deployed(2)
    world.change(image="bad:1")
    world.run(3)
    crash(world, 5)
    until(world, P.ROLLED_BACK)
    ask(world, retries=1)
    assert rollout_of(world).phase is P.PROGRESSING
    assert rollout_of(world).failure is None
    assert 2 in running(world)
    ask(world, retries=1)
    assert rollout_of(world).phase is P.PROGRESSING, "one request, one retry"
    for _ in range(20):
        for machine in world.machines.values():
            for container in machine.containers.values():
                container.bad = False
        world.run(1)
    assert rollout_of(world).phase is P.COMPLETED
    assert running(world) == {2: 2}


def test_a_retry_tolerates_no_more_than_the_first_try() -> None:
    world = World(1, 1, replicas=2)
    world.change(image="bad:1")
    world.run(3)
    crash(world, 7)
    assert rollout_of(world).phase is P.FAILED
    ask(world, retries=1)
    world.run(6)
    assert rollout_of(world).phase is P.PROGRESSING
    assert rollout_of(world).failures == rollout_of(world).forgiven == 0
    crash(world, 1)
    assert rollout_of(world).phase is P.PROGRESSING
    crash(world, 2)
    assert rollout_of(world).phase is P.FAILED
    told = [entry.decided for entry in journal(world, 1) if entry.verb == "fail"]
    assert not any("0 of 2 tolerated" in text for text in told)
    assert told[-1].endswith(": 4, 2 are tolerated")


def test_rolled_back_lost_and_scaled_replicas_are_of_the_healthy_revision() -> None:
    world = deployed(2)
    world.change(image="bad:1")
    world.run(3)
    crash(world, 5)
    until(world, P.ROLLED_BACK)
    world.change(replicas=4)
    world.run(10)
    assert running(world) == {1: 4}
    assert rollout_of(world).phase is P.ROLLED_BACK


def test_an_undo_after_a_rollback_replaces_nothing() -> None:
    world = deployed(2)
    world.change(image="bad:1")
    world.run(3)
    crash(world, 5)
    until(world, P.ROLLED_BACK)
    before = {one.id for one in world.cluster.replicas_of(WEB)}
    world.change(image="web:1")
    world.run(3)
    assert rollout_of(world).phase is P.COMPLETED
    assert {one.id for one in world.cluster.replicas_of(WEB)} == before


def again(world: World, **asked: object) -> None:
    """A restart, or an undo of one: the specification stays."""
    world.cluster.put_workload(world.cluster.workloads[WEB].replaced(**asked))
    world.settle()


def test_an_undo_after_a_restart_that_was_taken_back_replaces_nothing() -> None:
    world = deployed(2)
    again(world, restart_count=1)
    world.run(1)
    ask(world, aborts=1)
    until(world, P.ABORTED)
    before = {one.id for one in world.cluster.replicas_of(WEB)}
    again(world, restart_count=2, restores=1)
    world.run(3)
    assert (rollout_of(world).phase, rollout_of(world).revision) == (P.COMPLETED, 3)
    assert {one.id for one in world.cluster.replicas_of(WEB)} == before
    again(world, restart_count=3, restores=0)
    until(world, P.COMPLETED)
    assert running(world) == {4: 2}, "a restart means all of them"


def test_bake_time_is_watched_before_anything_counts_as_healthy() -> None:
    world = deployed(2)
    world.change(image="web:2", rollout={"bake_time": "30s"})
    for _ in range(40):
        world.run(1)
        if rollout_of(world).stage == "bake":
            break
    assert world.cluster.revisions[WEB][2].healthy_at is None
    assert rollout_of(world).paused_until == world.now + 30 * SECOND
    world.run(29)
    assert rollout_of(world).phase is P.PROGRESSING
    world.run(1)
    assert rollout_of(world).phase is P.COMPLETED
    assert "bake" in verbs(world, 2)


def test_scaling_out_in_the_middle_is_spread_in_proportion() -> None:
    world = deployed(4, max_surge="1", max_unavailable="0")
    world.change(image="web:2")
    for _ in range(40):
        world.run(1)
        if running(world).get(2, 0) == 2 and running(world).get(1) == 2:
            break
    world.change(replicas=6)
    world.settle()
    assert running(world)[1] >= 3
    until(world, P.COMPLETED)
    assert running(world) == {2: 6}


def test_a_restart_runs_the_same_digest_and_a_pull_asks_anew() -> None:
    world = deployed(2)
    world.do(("restart", 0))
    digest = world.cluster.revisions[WEB][1].image_digest
    assert digest
    assert world.cluster.revisions[WEB][2].image_digest == digest
    until(world, P.COMPLETED)
    record = world.cluster.workloads[WEB]
    world.cluster.put_workload(record.replaced(restart_count=record.restart_count + 1, pull=True))
    plan = plan_workload(world.cluster, WEB, world.now, world.new_id)
    new = next(a.revision for a in plan.actions if isinstance(a, PutRevision) and a.revision.number == 3)
    assert (new.pull, new.image_digest) == (True, "")


def test_a_rollout_that_is_retried_for_ever_does_not_fill_the_store() -> None:
    world = deployed(1)
    world.change(image="web:2")
    world.settle()
    status = world.cluster.statuses[WEB]
    full = rollout_of(world).replaced(journal=MAX_JOURNAL_ENTRIES)
    world.cluster.statuses[WEB] = status.replaced(rollout=full)
    plan = plan_workload(world.cluster, WEB, world.now, world.new_id)
    assert not [a for a in plan.actions if type(a).__name__ == "PutJournal"]
    until(world, P.COMPLETED)


@pytest.mark.parametrize("strategy", ["ROLLING_UPDATE", "RECREATE", "BLUE_GREEN", "CANARY"])
def test_no_room_is_said(strategy: str) -> None:
    world = World(1, 1, replicas=7, rollout={"strategy": strategy, "progress_deadline": "30s"})
    world.run(10)
    world.change(image="web:2")
    world.run(5)
    if strategy in ("BLUE_GREEN", "CANARY"):
        assert "no node fits" in world.view().message
        assert "needs memory" in world.view().message
        world.run(40)
        rollout = until(world, P.ROLLED_BACK)
        assert rollout.failure is not None
        assert "(pending) of revision 2: no node fits: n0: needs memory" in rollout.failure.message
    else:
        until(world, P.COMPLETED)


def test_shares_in_words() -> None:
    assert shares_text(()) == "every ready replica"


def test_the_journal_tells_each_failure_and_the_first_readiness_with_revisions_by_number() -> None:
    world = deployed(4)
    world.change(image="web:2")
    world.run(3)
    found = {entry.verb: entry for entry in journal(world, 2)}
    assert found["ready"].decided.startswith("web/")
    assert found["ready"].decided.endswith(" is the first of revision 2 to be available")
    assert found["ready"].seen.startswith("1 of revision 2 (1 available), 3 of revision 1 (3 available)")
    world.change(image="bad:3")
    world.run(3)
    for times in (1, 2, 3):
        crash(world, times)
    told = journal(world, 3)
    fails = [entry.decided for entry in told if entry.verb == "fail"]
    assert len(fails) == 3
    assert fails[0].startswith("web/")
    assert fails[0].endswith("ended with exit code 1: 1 of 2 tolerated")
    assert fails[1].endswith(": 2 of 2 tolerated")
    assert fails[2].endswith(": 3, 2 are tolerated")
    back = next(entry for entry in told if entry.verb == "judge")
    assert told.index(back) > max(i for i, entry in enumerate(told) if entry.verb == "fail")
    assert all("new" not in entry.seen and "old" not in entry.seen for entry in told)


def test_a_crash_is_told_with_its_replica_and_its_exit_code() -> None:
    world = deployed(2, strategy="BLUE_GREEN", auto_rollback=False)
    world.change(image="bad:1")
    world.run(4)
    crash(world, 2)
    view = world.view()
    assert view.rollout is not None
    found = {one.replica: one.text for one in view.rollout.reasons if one.depth == 1 and one.replica}
    failed = rollout_of(world)
    assert failed.phase is P.FAILED
    assert failed.failure is not None
    assert len(found) == 2 == len(failed.failure.ends)
    assert all(text == f"{replica}: exit code 1" for replica, text in found.items())


def test_too_many_failures_name_the_exit_though_the_replica_is_being_started_again() -> None:
    world = deployed(4)
    world.change(image="bad:1")
    world.run(3)
    for machine in world.machines.values():
        for container in machine.containers.values():
            if container.bad:
                container.starts_at = world.now + 60 * SECOND
    crash(world, 3)
    failure = rollout_of(world).failure
    assert failure is not None
    assert failure.message.endswith("2 are tolerated: ended with exit code 1")


def test_what_changed_is_told_though_no_revision_before_was_rolled_out() -> None:
    world = World(1, 1, replicas=2)
    world.change(image="bad:1")
    world.run(3)
    crash(world, 5)
    world.change(image="bad:2")
    world.run(3)
    crash(world, 9)
    failed = rollout_of(world)
    assert (failed.phase, failed.from_revision) == (P.FAILED, 0)
    assert failed.failure is not None
    assert failed.failure.changes == ("image: bad:1 -> bad:2",)


def test_the_journal_promises_no_floor_that_a_fault_has_broken_already() -> None:
    world = deployed(3, max_surge="1", max_unavailable="0")
    world.change(image="web:2")
    world.run(1)
    for machine in world.machines.values():
        for container in machine.containers.values():
            container.broken_until = world.now + 60 * SECOND
    until(world, P.COMPLETED, ticks=120)
    told = {entry.because for entry in journal(world, 2) if entry.verb == "retire"}
    seen = [entry for entry in journal(world, 2) if entry.verb == "retire"]
    assert told <= {"at least 3 stay available", "not available", "none of them is available"}
    assert any(entry.because != "at least 3 stay available" for entry in seen)


def test_the_journal_counts_in_plain_words() -> None:
    world = deployed(1, max_surge="0", max_unavailable="1")
    world.change(image="web:2")
    world.settle()
    until(world, P.COMPLETED)
    told = {entry.verb: entry.because for entry in journal(world, 2)}
    assert told["surge"] == "at most 1 may exist, 1 is wanted"
    assert told["retire"] == "none has to stay available"
    world = deployed(1, max_surge="1", max_unavailable="0")
    world.change(image="web:2")
    world.settle()
    until(world, P.COMPLETED)
    told = {entry.verb: entry.because for entry in journal(world, 2)}
    assert told["retire"] == "at least 1 stays available"
