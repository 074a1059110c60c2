"""When each verb fits, as a table of all verbs and all phases, and what it asks for."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from cloudless import api
from cloudless.coordinator.services.orders import ORDERS, NotNow, Scene
from cloudless.domain.intent import RolloutIntent
from cloudless.domain.revision import Revision
from cloudless.domain.rollout import Rollout, RolloutPhase, Stage
from cloudless.domain.strategy import Strategy
from cloudless.domain.workload import WorkloadRecord, WorkloadSpec

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
V = api.RolloutRequestVerb
P = RolloutPhase


def revision(number: int, *, image: str = "", healthy: bool = False, **fields: Any) -> Revision:
    spec = WorkloadSpec(image=image or f"web:{number}")
    return Revision(
        workload_id="w",
        number=number,
        template_hash=fields.pop("template_hash", spec.template_hash),
        spec=spec,
        generation=number,
        created_at=NOW,
        healthy_at=NOW if healthy else None,
        **fields,
    )


def scene(phase: RolloutPhase, **fields: Any) -> Scene:
    """Revision 3 on its way (or at its end), 2 proved healthy and 1 not."""
    revisions = fields.pop("revisions", [revision(1), revision(2, healthy=True), revision(3)])
    back_to = 2 if phase in (P.ROLLING_BACK, P.ROLLED_BACK, P.ABORTED) else 0
    intent = fields.pop("intent", RolloutIntent(revision=3, paused=phase is P.PAUSED))
    spec = fields.pop("spec", WorkloadSpec(image="web:3", replicas=7, rollout={"max_surge": "1"}))
    record = WorkloadRecord(
        id="w",
        namespace="default",
        name="web",
        spec=spec,
        generation=3,
        created_at=NOW,
        updated_at=NOW,
        intent=intent,
    )
    rollout = Rollout(phase=phase, revision=3, started_at=NOW, progressed_at=NOW, back_to=back_to, **fields)
    return Scene(record, rollout, {one.number: one for one in revisions})


def order(verb: api.RolloutRequestVerb, on: Scene, **fields: Any) -> WorkloadRecord:
    return ORDERS[verb](on, api.RolloutRequest(name="web", verb=verb, **fields))


#: Verb -> the phases that it fits; in "same" it is answered, and nothing is asked for.
FITS: dict[api.RolloutRequestVerb, tuple[set[RolloutPhase], set[RolloutPhase]]] = {
    V.PAUSE: ({P.PROGRESSING, P.WAITING_PROMOTION}, {P.PAUSED}),
    V.RESUME: ({P.PAUSED}, set()),
    V.PROMOTE: ({P.WAITING_PROMOTION}, set()),
    V.ABORT: ({P.PROGRESSING, P.PAUSED, P.WAITING_PROMOTION, P.FAILED}, {P.ROLLING_BACK}),
    V.UNDO: (set(P), set()),
    V.RESTART: (set(P) - {P.ROLLING_BACK, P.ROLLED_BACK, P.ABORTED}, set()),
    V.RETRY: ({P.FAILED, P.ROLLED_BACK, P.ABORTED}, set()),
}


@pytest.mark.parametrize("phase", P)
@pytest.mark.parametrize("verb", ORDERS)
def test_verbs_and_phases(verb: api.RolloutRequestVerb, phase: RolloutPhase) -> None:
    fits, same = FITS[verb]
    on = scene(phase)
    if phase in fits:
        assert order(verb, on) != on.workload
    elif phase in same:
        assert order(verb, on) is on.workload
    else:
        with pytest.raises(NotNow) as refused:
            order(verb, on)
        assert "revision 3" in str(refused.value) or "not paused" in str(refused.value)


def test_every_verb_is_in_the_table() -> None:
    assert set(FITS) == set(ORDERS) == set(V) - {V.VERB_UNSPECIFIED}


def test_what_is_asked_is_counted_from_what_was_taken_up() -> None:
    asked = RolloutIntent(revision=2, promotions=9, aborts=9, retries=9, paused=True, full=True)
    on = scene(P.WAITING_PROMOTION, intent=asked, promotions=4)
    assert order(V.PROMOTE, on).intent == RolloutIntent(revision=3, promotions=5)
    on = scene(P.FAILED, intent=RolloutIntent(revision=3, paused=True, full=True), retries=2)
    assert order(V.RETRY, on).intent == RolloutIntent(revision=3, retries=3)
    assert order(V.ABORT, on).intent == RolloutIntent(revision=3, aborts=1, full=True)


def test_a_promotion_that_is_asked_for_twice_is_one() -> None:
    first = order(V.PROMOTE, scene(P.WAITING_PROMOTION))
    on = scene(P.WAITING_PROMOTION)._replace(workload=first)
    assert order(V.PROMOTE, on) is first


def test_a_pause_can_be_taken_back_before_it_is_taken_up() -> None:
    asked = order(V.PAUSE, scene(P.PROGRESSING))
    assert not order(V.RESUME, scene(P.PROGRESSING)._replace(workload=asked)).intent.paused
    resumed = scene(P.PAUSED, intent=RolloutIntent(revision=3))
    assert order(V.RESUME, resumed) is resumed.workload, "asked for already"


@pytest.mark.parametrize("phase", set(P) - {P.PROGRESSING, P.WAITING_PROMOTION, P.PAUSED})
def test_a_pause_does_not_outlive_its_rollout(phase: RolloutPhase) -> None:
    on = scene(phase, intent=RolloutIntent(revision=3, paused=True))
    with pytest.raises(NotNow, match="not paused: "):
        order(V.RESUME, on)
    assert not on.intent.paused


def test_a_timed_pause_can_be_promoted() -> None:
    timed = scene(P.PROGRESSING, stage=Stage.PROMOTE, strategy=Strategy.CANARY, paused_until=NOW)
    assert order(V.PROMOTE, timed).intent.promotions == 1
    with pytest.raises(NotNow) as refused:
        order(V.PROMOTE, scene(P.PAUSED, stage=Stage.PROMOTE))
    assert refused.value.hint == "resume it first"


@pytest.mark.parametrize("phase", [P.PROGRESSING, P.PAUSED, P.WAITING_PROMOTION])
def test_a_canary_can_be_promoted_fully_at_any_time(phase: RolloutPhase) -> None:
    on = scene(phase, strategy=Strategy.CANARY)
    asked = order(V.PROMOTE, on, full=True)
    assert (asked.intent.full, asked.intent.promotions) == (True, 1)
    again = on._replace(workload=asked)
    assert order(V.PROMOTE, again, full=True) is asked
    done = scene(phase, strategy=Strategy.CANARY, stage=Stage.REPLACE)
    assert order(V.PROMOTE, done, full=True) is done.workload


def test_a_full_promotion_of_something_else_is_refused() -> None:
    with pytest.raises(NotNow, match="only a CANARY has steps"):
        order(V.PROMOTE, scene(P.WAITING_PROMOTION, strategy=Strategy.BLUE_GREEN), full=True)
    with pytest.raises(NotNow, match="nothing to promote: revision 3 is rolled out"):
        order(V.PROMOTE, scene(P.COMPLETED, strategy=Strategy.CANARY), full=True)


def test_abort_as_long_as_the_old_set_is_kept() -> None:
    assert order(V.ABORT, scene(P.COMPLETED, stage=Stage.RETIRE)).intent.aborts == 1
    with pytest.raises(NotNow, match="nothing to abort: revision 3 is rolled out") as refused:
        order(V.ABORT, scene(P.COMPLETED))
    assert "undo" in refused.value.hint


def test_abort_needs_somewhere_to_go() -> None:
    on = scene(P.PROGRESSING, revisions=[revision(1), revision(3, healthy=True)])
    with pytest.raises(NotNow, match="no earlier revision was proved healthy"):
        order(V.ABORT, on)


def test_undo_restores_the_template_only() -> None:
    made = order(V.UNDO, scene(P.COMPLETED), message="it was better")
    assert (made.spec.image, made.spec.replicas, made.spec.rollout.max_surge) == ("web:2", 7, "1")
    assert (made.generation, made.restores, made.message) == (4, 2, "it was better")


def test_undo_prefers_what_was_proved_healthy() -> None:
    revisions = [revision(1, healthy=True), revision(2), revision(3)]
    assert order(V.UNDO, scene(P.COMPLETED, revisions=revisions)).restores == 1
    revisions = [revision(1), revision(2), revision(3)]
    assert order(V.UNDO, scene(P.COMPLETED, revisions=revisions)).restores == 2
    assert order(V.UNDO, scene(P.COMPLETED), to_revision=1).restores == 1


def test_undo_of_what_was_taken_back_makes_it_the_newest() -> None:
    revisions = [revision(1, healthy=True), revision(2, healthy=True), revision(3)]
    assert order(V.UNDO, scene(P.ROLLED_BACK, revisions=revisions)).restores == 2


def test_undo_skips_restarts_of_the_same_specification() -> None:
    revisions = [revision(1, healthy=True), revision(2, image="web:3", healthy=True), revision(3)]
    assert order(V.UNDO, scene(P.COMPLETED, revisions=revisions)).restores == 1
    with pytest.raises(NotNow, match="nothing to undo"):
        order(V.UNDO, scene(P.COMPLETED, revisions=revisions[1:]))


@pytest.mark.parametrize("phase", P)
def test_undo_to_the_same_specification_changes_nothing(phase: RolloutPhase) -> None:
    on = scene(phase)
    if phase in (P.COMPLETED, P.PROGRESSING, P.PAUSED, P.WAITING_PROMOTION):
        assert order(V.UNDO, on, to_revision=3) is on.workload
    else:
        with pytest.raises(NotNow, match="the same specification") as refused:
            order(V.UNDO, on, to_revision=3)
        assert "retry" in refused.value.hint


def same(number: int, digest: str = "", restarts: int = 0, **fields: Any) -> Revision:
    key = WorkloadSpec(image="web:3").template_hash + (f"-{restarts}" if restarts else "")
    return revision(number, image="web:3", template_hash=key, image_digest=digest, **fields)


def test_undo_of_a_tag_that_moved_restores_the_digest() -> None:
    revisions = [same(1, "sha256:a", healthy=True), same(3, "sha256:b", restarts=1)]
    on = scene(P.COMPLETED, revisions=revisions)
    pulled = on._replace(workload=on.workload.replaced(pull=True, restart_count=1))
    for number in (0, 1):
        made = order(V.UNDO, pulled, to_revision=number, message="it was better")
        assert (made.restores, made.restart_count, made.pull) == (1, 2, False)
        assert (made.generation, made.spec, made.message) == (3, on.workload.spec, "it was better")
    again = order(V.RESTART, on._replace(workload=made))
    assert again.restores == 0, "a restart is of what runs, not of what an undo once restored"


def test_undo_of_a_restart_that_failed() -> None:
    revisions = [same(2, "sha256:a", healthy=True), same(3, restarts=1)]
    for digests in (revisions, [revisions[0], same(3, "sha256:a", restarts=1)]):
        made = order(V.UNDO, scene(P.ROLLED_BACK, revisions=digests))
        assert (made.restores, made.restart_count) == (2, 1)


def test_undo_to_a_twin_with_the_same_digest_changes_nothing() -> None:
    on = scene(P.COMPLETED, revisions=[same(2, "sha256:a"), same(3, "sha256:a", restarts=1)])
    assert order(V.UNDO, on, to_revision=2) is on.workload


def test_undo_to_a_number_that_is_gone_and_runs_changes_nothing() -> None:
    on = scene(P.COMPLETED, revisions=[revision(2), revision(3, healthy=True, restores=1)])
    assert order(V.UNDO, on, to_revision=1) is on.workload


def test_undo_to_a_revision_that_is_gone_names_those_that_are_kept() -> None:
    with pytest.raises(NotNow, match="revision 9 is not kept; kept are 1, 2, 3"):
        order(V.UNDO, scene(P.COMPLETED), to_revision=9)


def test_restart_is_counted_and_may_ask_the_registry() -> None:
    on = scene(P.COMPLETED)
    made = order(V.RESTART, on, pull=True, message="new key")
    assert (made.restart_count, made.pull, made.message, made.generation) == (1, True, "new key", 3)
    again = order(V.RESTART, on._replace(workload=made))
    assert (again.restart_count, again.pull) == (2, False)
    never = scene(P.COMPLETED, spec=WorkloadSpec(image="web:3", image_pull_policy="Never"))
    with pytest.raises(NotNow, match="NEVER"):
        order(V.RESTART, never, pull=True)
