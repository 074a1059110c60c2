"""What time will do to a rollout, said with the revisions that it is about."""

from __future__ import annotations

import datetime

import pytest

from cloudless import api
from cloudless.cli.output.rollouts import countdowns

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
LATER = NOW + datetime.timedelta(seconds=59)
Phase = api.RolloutStatusPhase


@pytest.mark.parametrize(
    ("phase", "target", "before", "said"),
    [
        (Phase.COMPLETED, 3, 2, "the replicas of revision 2 go in 59s"),
        (Phase.ABORTED, 2, 2, "the replicas of revision 3 go in 59s"),
        (Phase.ROLLED_BACK, 2, 2, "the replicas of revision 3 go in 59s"),
        (Phase.COMPLETED, 3, 0, "the old replicas go in 59s"),
    ],
)
def test_the_set_that_goes_is_named_by_its_revision(
    phase: Phase, target: int, before: int, said: str
) -> None:
    rollout = api.RolloutStatus(
        phase=phase,
        revision=3,
        target_revision=target,
        from_revision=before,
        stage="retire",
        waits_until=LATER,
    )
    assert countdowns(rollout, NOW) == [said]


@pytest.mark.parametrize(
    ("phase", "unless"),
    [
        (Phase.PAUSED, "somebody resumes it"),
        (Phase.WAITING_PROMOTION, "somebody promotes it"),
        (Phase.PROGRESSING, "it gets further"),
    ],
)
def test_a_deadline_says_what_keeps_it_from_coming(phase: Phase, unless: str) -> None:
    rollout = api.RolloutStatus(phase=phase, revision=3, target_revision=3, deadline=LATER)
    assert countdowns(rollout, NOW) == [f"fails in 59s unless {unless}"]


def test_paused_nothing_goes_on_by_itself() -> None:
    rollout = api.RolloutStatus(
        phase=Phase.PAUSED, revision=3, target_revision=3, stage="bake", waits_until=LATER, deadline=LATER
    )
    assert countdowns(rollout, NOW) == ["fails in 59s unless somebody resumes it"]
