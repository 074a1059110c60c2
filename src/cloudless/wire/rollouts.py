"""Rollouts as users see them: where one is and why, revisions, journals, planned steps.

``objects`` puts a rollout into its workload; the coordinator's services encode the rest.
"""

from __future__ import annotations

from collections.abc import Iterable

from cloudless import api
from cloudless.domain.revision import Revision
from cloudless.domain.rollout import MOVING, JournalEntry, Rollout, RolloutPhase, Stage
from cloudless.domain.status import Refusal
from cloudless.domain.strategy import RolloutStrategy, Strategy
from cloudless.planning.changes import revision_changes
from cloudless.planning.describe import PlannedStep
from cloudless.planning.explain import RolloutFacts
from cloudless.wire.mirror import to_wire
from cloudless.wire.spec import spec_to_wire

#: Phases in which a rollout stands at some step of a canary.
_AT_A_STEP = frozenset(
    {RolloutPhase.PROGRESSING, RolloutPhase.PAUSED, RolloutPhase.WAITING_PROMOTION, RolloutPhase.FAILED}
)


def rollout_to_wire(
    rollout: Rollout, strategy: RolloutStrategy, facts: RolloutFacts | None = None
) -> api.RolloutStatus:
    """Where a rollout is: what is stored, and what follows from the replicas now."""
    facts = facts or RolloutFacts()
    moves = rollout.phase in MOVING or rollout.stage is Stage.RETIRE
    step, steps = _steps(rollout, strategy)
    return api.RolloutStatus(
        phase=api.RolloutStatusPhase[rollout.phase.name],
        revision=rollout.revision,
        from_revision=rollout.from_revision,
        strategy=api.RolloutStrategyStrategy[rollout.strategy.name],
        because=rollout.because,
        started_at=rollout.started_at,
        progressed_at=rollout.progressed_at,
        target_revision=rollout.target,
        stage=rollout.stage.value if moves or rollout.phase is RolloutPhase.FAILED else "",
        step=step,
        steps=steps,
        traffic=[to_wire(share, api.TrafficShare) for share in rollout.shares],
        waits_until=rollout.paused_until if moves else None,
        deadline=facts.deadline,
        failures=max(rollout.failures - rollout.forgiven, 0),
        failure=None if rollout.failure is None else to_wire(rollout.failure, api.RolloutFailure),
        reasons=[api.Reason(depth=one.depth, text=one.text, replica=one.replica) for one in facts.reasons],
        ended_at=rollout.ended_at,
        new_replicas=facts.new_replicas,
        new_available=facts.new_available,
        old_replicas=facts.old_replicas,
        pending=facts.pending,
    )


def _steps(rollout: Rollout, strategy: RolloutStrategy) -> tuple[int, int]:
    """The present step of a canary, from 1, and how many there are; 0 when they are done."""
    if rollout.strategy is not Strategy.CANARY:
        return 0, 0
    steps = len(strategy.canary_steps)
    done = rollout.phase not in _AT_A_STEP or rollout.step >= steps
    return 0 if done else rollout.step + 1, steps


def revision_to_wire(
    revision: Revision, before: Revision | None = None, rollout: Rollout | None = None
) -> api.Revision:
    """One version of a workload's template; ``rollout`` is the newest one, if it is of this revision."""
    phase = rollout.phase if rollout is not None and rollout.revision == revision.number else revision.phase
    return api.Revision(
        number=revision.number,
        spec=spec_to_wire(revision.spec.shown),
        image_digest=revision.image_digest,
        created_at=revision.created_at,
        author=revision.author,
        message=revision.message,
        healthy_at=revision.healthy_at,
        phase=api.RolloutStatusPhase[phase.name] if phase else api.RolloutStatusPhase.PHASE_UNSPECIFIED,
        ended_at=revision.ended_at,
        changes=[] if before is None else list(revision_changes(before, revision)),
    )


def journal_to_wire(entries: Iterable[JournalEntry]) -> list[api.JournalEntry]:
    """A journal, in the order that it is given in."""
    return [
        api.JournalEntry(
            sequence=entry.sequence,
            at=entry.at,
            verb=entry.verb,
            seen=entry.seen,
            decided=entry.decided,
            because=entry.because,
            phase=api.RolloutStatusPhase[entry.phase.name],
        )
        for entry in entries
    ]


def steps_to_wire(steps: Iterable[PlannedStep]) -> list[api.PlannedStep]:
    """What would be done, in order."""
    return [
        api.PlannedStep(
            action=step.action,
            replica=step.replica,
            node=step.node,
            because=step.because,
            score=dict(step.score),
            refusals=refusals_to_wire(step.refusals),
            wait=step.wait or None,
            stage=step.stage,
            available=step.available,
            existing=step.existing,
            sentence=step.sentence,
        )
        for step in steps
    ]


def refusals_to_wire(refusals: Iterable[Refusal]) -> list[api.NodeRefusal]:
    """Why nodes were not taken."""
    return [api.NodeRefusal(node=refusal.node, reason=refusal.reason) for refusal in refusals]
