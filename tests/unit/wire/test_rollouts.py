"""What the coordinator knows of a rollout reaches the wire whole: no field stays empty."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from cloudless import api
from cloudless.domain.replica import ExitStatus
from cloudless.domain.revision import Revision
from cloudless.domain.rollout import JournalEntry, Rollout, RolloutFailure, RolloutPhase, Stage, TrafficShare
from cloudless.domain.status import Refusal
from cloudless.domain.strategy import CanaryStep, RolloutStrategy, Strategy
from cloudless.domain.workload import WorkloadSpec
from cloudless.planning.describe import PlannedStep
from cloudless.planning.explain import Reason, RolloutFacts
from cloudless.wire.rollouts import journal_to_wire, revision_to_wire, rollout_to_wire, steps_to_wire

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
LATER = [NOW + datetime.timedelta(seconds=number) for number in range(10)]
CANARY = RolloutStrategy(strategy=Strategy.CANARY, steps=(CanaryStep(weight=10), CanaryStep(weight=50)))
FAILURE = RolloutFailure(
    reason="ReplicaFailed",
    message="web/1 failed",
    replica="web/1",
    replica_id="r1",
    node="n1",
    last_exit=ExitStatus(code=3, signal=9, oom_killed=True, finished_at=NOW, reason="killed", log_tail="x"),
    ends=("web/1: exit code 3 (killed)",),
    detail="no memory",
    log_tail="the end",
    changes=("image: a -> b",),
    at=LATER[3],
    revision=4,
)


def rollout(phase: RolloutPhase = RolloutPhase.PROGRESSING, **fields: Any) -> Rollout:
    given: dict[str, Any] = {
        "revision": 4,
        "from_revision": 3,
        "strategy": Strategy.CANARY,
        "because": "waiting for web/1",
        "started_at": LATER[1],
        "progressed_at": LATER[2],
        "ended_at": LATER[3],
        "paused_until": LATER[4],
        "stage": Stage.PROMOTE,
        "shares": (TrafficShare(revision=4, percent=10), TrafficShare(revision=3, percent=90)),
        "failures": 2,
        "failure": FAILURE,
    }
    return Rollout(phase=phase, **{**given, **fields})


FACTS = RolloutFacts(
    new_replicas=2,
    new_available=1,
    old_replicas=9,
    deadline=LATER[5],
    reasons=(Reason(0, "why"), Reason(1, "because", "web/1")),
    pending=True,
)


def empty_fields(message: Any) -> list[str]:
    return [name for name in message._betterproto.meta_by_field_name if not getattr(message, name)]


def test_every_field_of_a_status_is_filled() -> None:
    status = rollout_to_wire(rollout(), CANARY, FACTS)
    assert empty_fields(status) == []
    assert empty_fields(status.failure) == []
    assert status.failure is not None
    assert empty_fields(status.failure.last_exit) == []
    assert [(one.depth, one.text, one.replica) for one in status.reasons] == [
        (0, "why", ""),
        (1, "because", "web/1"),
    ]
    assert (status.step, status.steps, status.target_revision) == (1, 2, 4)
    assert [(one.revision, one.percent) for one in status.traffic] == [(4, 10), (3, 90)]


@pytest.mark.parametrize("phase", RolloutPhase)
def test_every_phase_has_its_name_on_the_wire(phase: RolloutPhase) -> None:
    status = rollout_to_wire(rollout(phase, stage=Stage.SURGE), CANARY)
    assert status.phase.name == phase.value
    waits = phase in ("PROGRESSING", "PAUSED", "WAITING_PROMOTION", "ROLLING_BACK")
    assert (status.waits_until is not None) == waits
    assert (status.stage != "") == (waits or phase == "FAILED")
    at_a_step = phase in ("PROGRESSING", "PAUSED", "WAITING_PROMOTION", "FAILED")
    assert status.step == (1 if at_a_step else 0)


@pytest.mark.parametrize("phase", ["COMPLETED", "ABORTED", "ROLLED_BACK"])
def test_what_is_kept_for_a_while_is_shown(phase: str) -> None:
    status = rollout_to_wire(rollout(RolloutPhase(phase), stage=Stage.RETIRE), CANARY)
    assert (status.stage, status.waits_until) == ("retire", LATER[4])


def test_steps_are_those_of_a_canary_only() -> None:
    status = rollout_to_wire(rollout(strategy=Strategy.BLUE_GREEN), RolloutStrategy())
    assert (status.step, status.steps) == (0, 0)
    done = rollout_to_wire(rollout(step=2, stage=Stage.REPLACE), CANARY)
    assert (done.step, done.steps) == (0, 2)


def test_every_field_of_a_revision_is_filled() -> None:
    fields: dict[str, Any] = {"workload_id": "w", "template_hash": "h", "generation": 1, "created_at": NOW}
    before = Revision(number=3, spec=WorkloadSpec(image="web:1"), **fields)
    after = Revision(
        number=4,
        spec=WorkloadSpec(image="web:2"),
        image_digest="sha256:1",
        author="me",
        message="faster",
        healthy_at=LATER[1],
        phase=RolloutPhase.COMPLETED,
        ended_at=LATER[2],
        **fields,
    )
    shown = revision_to_wire(after, before)
    assert empty_fields(shown) == []
    assert shown.changes == ["image: web:1 -> web:2"]
    assert revision_to_wire(after, before, rollout()).phase.name == "PROGRESSING", "it is on"
    assert revision_to_wire(before, None, rollout()).phase == api.RolloutStatusPhase.PHASE_UNSPECIFIED


def test_every_field_of_a_journal_entry_is_filled() -> None:
    entry = JournalEntry(
        workload_id="w",
        revision=4,
        sequence=7,
        at=NOW,
        verb="surge",
        seen="2 old",
        decided="create web/3",
        because="room for one",
        phase=RolloutPhase.PROGRESSING,
    )
    (shown,) = journal_to_wire([entry])
    assert empty_fields(shown) == []


def test_every_field_of_a_planned_step_is_filled() -> None:
    step = PlannedStep(
        "create",
        "web/1",
        "n1",
        "revision 2",
        {"locality": 1.0},
        (Refusal(node="n2", reason="full"),),
        datetime.timedelta(seconds=3),
        stage=1,
        available=2,
        existing=3,
    )
    (shown,) = steps_to_wire([step])
    assert empty_fields(shown) == []
    (plain,) = steps_to_wire([PlannedStep("stop", "web/0", "n1", "replaced")])
    assert plain.wait is None
    assert plain.sentence == "stop web/0 on n1: replaced"
