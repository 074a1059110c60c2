"""The judgement of a status, phase by phase: who decides, and what a person is told."""

from __future__ import annotations

import datetime

import pytest
from fake_coordinator import NOW, ready_status, replica_of

from cloudless import api
from cloudless.sdk.verdict import Outcome, judge

Phase = api.RolloutStatusPhase
ReplicaPhase = api.ReplicaPhase


def web(phase: Phase = Phase.PROGRESSING, *, counts: dict | None = None, **rollout) -> api.Workload:
    """Three replicas wanted, on the way from revision 3 to 4."""
    workload = api.Workload(
        id="id1", name="web", namespace="default", generation=4, spec=api.WorkloadSpec(replicas=3)
    )
    workload.status = ready_status(workload)
    given = {"revision": 4, "from_revision": 3, "target_revision": 4} | rollout
    workload.status.rollout = api.RolloutStatus(phase=phase, **given)
    for name, value in (counts or {}).items():
        setattr(workload.status, name, value)
    return workload


def crashing(workload: api.Workload, restarts: int) -> api.Workload:
    ended = api.ExitStatus(code=1, reason="exit code 1", log_tail="no database")
    replica = replica_of(
        workload, 0, phase=ReplicaPhase.BACKING_OFF, ready=False, restarts=restarts, last_exit=ended
    )
    workload.status.replicas = [replica]
    workload.status.available_replicas = 2
    return workload


def test_what_is_pending_is_waited_for_whatever_else_the_status_says():
    for phase in (Phase.COMPLETED, Phase.FAILED, Phase.ROLLED_BACK):
        verdict = judge(web(phase, pending=True), "available")
        assert (verdict.outcome, verdict.missing) == (
            Outcome.WAIT,
            "the coordinator to take up what was asked",
        )


def test_while_a_rollout_is_on_the_coordinator_alone_judges_crashes():
    assert judge(crashing(web(Phase.PROGRESSING), 5), "available").outcome is Outcome.WAIT
    assert judge(crashing(web(Phase.COMPLETED), 5), "available").outcome is Outcome.FAILED


FAILURE = api.RolloutFailure(
    reason="TooManyFailures",
    message="new replicas failed 3 times, 2 are tolerated: web/0: exit code 1",
    replica="web/0",
    node="n1",
    last_exit=api.ExitStatus(code=1, reason="exit code 1", log_tail="never shown"),
    detail="HTTP 503",
    log_tail="\n".join(f"line {number}" for number in range(30)),
    changes=["image: web:1.4 -> web:1.5"],
    at=NOW,
    revision=4,
)


def test_going_back_is_waited_for_and_says_why():
    verdict = judge(web(Phase.ROLLING_BACK, target_revision=3, failure=FAILURE, new_available=1), "available")
    assert verdict.outcome is Outcome.WAIT
    assert verdict.missing == "the way back to revision 3 (1/3 available)"
    assert verdict.explanation.sentence == (
        "revision 4 failed: new replicas failed 3 times, 2 are tolerated: web/0: exit code 1"
    )


@pytest.mark.parametrize(
    ("phase", "target", "outcome"),
    [
        (Phase.ROLLED_BACK, 3, "rolled back to revision 3"),
        (Phase.ABORTED, 3, "back at revision 3"),
        (Phase.FAILED, 4, "not rolled back"),
    ],
)
def test_a_bad_end_carries_all_that_is_known(phase, target, outcome):
    tree = [api.Reason(0, "waits"), api.Reason(1, "2 of 3"), api.Reason(2, "web/0: exit code 1", "web/0")]
    verdict = judge(web(phase, target_revision=target, failure=FAILURE, reasons=tree), "available")
    assert verdict.outcome is Outcome.FAILED
    told = verdict.explanation
    assert (told.phase, told.revision, told.reason) == (phase.name, 4, "TooManyFailures")
    assert told.rolled_back_to == (3 if target == 3 else 0)
    assert told.outcome == outcome
    assert (told.replica, told.node, told.exit_code, told.detail) == ("web/0", "n1", 1, "HTTP 503")
    assert told.log_lines == tuple(f"line {number}" for number in range(10, 30))
    assert told.changes == ("image: web:1.4 -> web:1.5",)
    assert [tuple(one) for one in told.reasons] == [
        (0, "waits", ""),
        (1, "2 of 3", ""),
        (2, "web/0: exit code 1", "web/0"),
    ]
    assert told.at == NOW


@pytest.mark.parametrize(
    ("phase", "rollout", "says"),
    [
        (Phase.PAUSED, {}, "somebody to resume it: cloudless rollout resume web"),
        (Phase.WAITING_PROMOTION, {}, "somebody to promote it: cloudless rollout promote web"),
        (
            Phase.WAITING_PROMOTION,
            {"step": 1, "steps": 3},
            "somebody to promote it (step 1 of 3): cloudless rollout promote web",
        ),
        (
            Phase.PROGRESSING,
            {"waits_until": NOW + datetime.timedelta(seconds=9), "stage": "bake"},
            "the new replicas to stay healthy until 03:04:14 UTC",
        ),
        (
            Phase.PROGRESSING,
            {"waits_until": NOW + datetime.timedelta(seconds=9), "stage": "promote"},
            "the pause until 03:04:14 UTC",
        ),
        (
            Phase.PROGRESSING,
            {"new_available": 1, "old_replicas": 2},
            "replicas: 1/3 of revision 4 available, 2 old to go",
        ),
        (
            Phase.PROGRESSING,
            {"new_available": 3},
            "the coordinator to confirm it: 3/3 of revision 4 available",
        ),
    ],
)
def test_waits_are_said(phase, rollout, says):
    verdict = judge(web(phase, **rollout), "available")
    assert (verdict.outcome, verdict.missing) == (Outcome.WAIT, says)


def test_other_namespaces_are_named_in_commands():
    workload = web(Phase.PAUSED)
    workload.namespace = "shop"
    assert judge(workload, "available").missing.endswith("cloudless rollout resume shop/web")


def test_a_completed_rollout_that_keeps_the_old_set_is_done():
    kept = {"stage": "retire", "new_replicas": 3, "new_available": 3, "old_replicas": 3}
    counts = {"current_replicas": 6, "available_replicas": 6}
    assert judge(web(Phase.COMPLETED, counts=counts, **kept), "available").outcome is Outcome.DONE
    # Without that stage the others are still to go, and old ones do not count as new.
    assert judge(web(Phase.COMPLETED, counts=counts), "available").outcome is Outcome.WAIT
    kept["new_available"] = 2
    assert judge(web(Phase.COMPLETED, counts=counts, **kept), "available").outcome is Outcome.WAIT


def test_scaling_what_was_rolled_back_succeeds_with_the_revision_that_runs():
    counts = {"updated_replicas": 0}
    rolled_back = web(Phase.ROLLED_BACK, counts=counts, target_revision=3)
    rolled_back.status.replicas = [replica_of(rolled_back, 0, revision=3)]
    assert judge(rolled_back, "scaled").outcome is Outcome.DONE
    assert judge(rolled_back, "available").outcome is Outcome.FAILED
    rolled_back.status.available_replicas = 2
    assert judge(rolled_back, "scaled").outcome is Outcome.WAIT
    assert judge(web(Phase.FAILED), "scaled").outcome is Outcome.FAILED


@pytest.mark.parametrize("phase", [Phase.PAUSED, Phase.WAITING_PROMOTION])
def test_scaling_does_not_wait_for_the_person_that_the_rollout_waits_for(phase):
    waits = web(phase, new_available=1, old_replicas=3)
    waits.status.replicas = [replica_of(waits, number, revision=3) for number in range(3)]
    assert judge(waits, "scaled").outcome is Outcome.DONE
    assert judge(waits, "available").outcome is Outcome.WAIT
    coming = replica_of(waits, 3, phase=ReplicaPhase.STARTING, ready=False, available=False)
    waits.status.replicas.append(coming)
    verdict = judge(waits, "scaled")
    assert (verdict.outcome, verdict.missing) == (Outcome.WAIT, "replicas: 3/3 available")
    waits.status.replicas = waits.status.replicas[:2]
    assert judge(waits, "scaled").outcome is Outcome.WAIT


def test_scaling_says_that_there_is_no_room_while_the_rollout_waits():
    waits = web(Phase.WAITING_PROMOTION)
    refusals = [api.NodeRefusal("n1", "needs memory 8Gi, 4Gi free")]
    waits.status.replicas = [
        replica_of(
            waits, 0, phase=ReplicaPhase.PENDING, ready=False, available=False, node="", refusals=refusals
        )
    ]
    assert judge(waits, "scaled").outcome is Outcome.UNPLACED


def test_what_verbs_wait_for():
    assert judge(web(Phase.PAUSED), "paused").outcome is Outcome.DONE
    assert judge(web(Phase.PROGRESSING), "paused").outcome is Outcome.WAIT
    assert judge(web(Phase.WAITING_PROMOTION), "promoted").outcome is Outcome.DONE
    assert judge(web(Phase.PROGRESSING), "promoted").outcome is Outcome.WAIT
    assert judge(web(Phase.COMPLETED), "promoted").outcome is Outcome.DONE
    for phase in (Phase.ABORTED, Phase.ROLLED_BACK):
        assert judge(web(phase, target_revision=3), "rolled_back").outcome is Outcome.DONE
    for phase in (Phase.PROGRESSING, Phase.ROLLING_BACK, Phase.COMPLETED):
        assert judge(web(phase), "rolled_back").outcome is Outcome.WAIT
    assert judge(web(Phase.FAILED), "rolled_back").outcome is Outcome.FAILED


def test_room_that_may_still_come_is_waited_for_in_an_update():
    refusals = [api.NodeRefusal("n1", "needs memory 8Gi, 4Gi free")]
    workload = web(Phase.PROGRESSING)
    pending = replica_of(
        workload, 1, phase=ReplicaPhase.PENDING, ready=False, available=False, node="", refusals=refusals
    )
    stopping = replica_of(workload, 0, phase=ReplicaPhase.STOPPING, ready=False, revision=3)
    workload.status.replicas = [pending, stopping]
    assert judge(workload, "available").outcome is Outcome.WAIT
    workload.status.replicas = [pending]
    verdict = judge(workload, "available")
    assert (verdict.outcome, verdict.refusals) == (
        Outcome.UNPLACED,
        (("n1", "needs memory 8Gi, 4Gi free"),),
    )
