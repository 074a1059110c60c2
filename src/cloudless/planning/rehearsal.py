"""A rollout in advance: plans are played through on a copy of the cluster, to the end.

Its nodes do all they are told, without fail and as soon as a decision is made; timed
waits pass at once, and where somebody has to promote, somebody does. The coordinator
plays one decision at a time, so that a large rehearsal keeps nobody waiting.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from dataclasses import replace

from cloudless.domain.cluster import Cluster
from cloudless.domain.node import NodePhase
from cloudless.domain.plan import Plan
from cloudless.domain.quantity import format_duration
from cloudless.domain.replica import Observation, ReplicaPhase, ReplicaRecord
from cloudless.domain.rollout import MOVING, Rollout, RolloutPhase, Stage
from cloudless.planning.apply import apply_in_place
from cloudless.planning.describe import PlannedStep, describe_plan
from cloudless.planning.revisions import proved_healthy
from cloudless.planning.status import WorkloadView, view_workload
from cloudless.planning.workload import plan_workload

#: Decisions of one rehearsal, and replicas looked at by all of them: a longer rollout is cut off.
MAX_DECISIONS = 500
MAX_LOOKS = 150_000
#: Steps that are shown.
MAX_STEPS = 2_000
#: Replicas of one stage that are shown one by one; of more, those on one node share a step.
MAX_SINGLE = 60
#: Replicas that a step shared by many names.
MAX_NAMED = 5

#: What a timed wait is for.
_WAITS = {
    Stage.BAKE: "the new replicas are watched (bake_time)",
    Stage.RETIRE: "the old replicas are kept (scale_down_delay)",
    Stage.PROMOTE: "the pause of this step",
}


def rehearse(
    cluster: Cluster, workload_id: str, now: datetime.datetime, new_id: Callable[[], str]
) -> tuple[PlannedStep, ...]:
    """All steps until nothing is left to do; ``cluster`` is not touched."""
    rehearsal = Rehearsal(cluster.copy(), workload_id, now, new_id)
    while rehearsal.play():
        pass
    return tuple(rehearsal.steps)


class Rehearsal:
    """One workload's way to what its record asks for. Call ``play`` until it says no.

    ``cluster`` belongs to the rehearsal from then on: it is played on.
    """

    def __init__(
        self, cluster: Cluster, workload_id: str, now: datetime.datetime, new_id: Callable[[], str]
    ) -> None:
        self.steps: list[PlannedStep] = []
        self._world = cluster
        self._id = workload_id
        self._now = now
        self._new_id = new_id
        self._open: list[PlannedStep] = []
        self._stage = 0
        self._decisions = 0
        self._looks = 0

    def play(self) -> bool:
        """One decision and what its nodes make of it; whether there is more to come."""
        plan = plan_workload(self._world, self._id, self._now, self._new_id)
        self._open += describe_plan(self._world, plan)
        apply_in_place(self._world, plan)
        if self._has_more(plan):
            return self._may_go_on()
        self._close_stage()
        if self._id not in self._world.workloads:
            return False
        if _obey(self._world, self._id, self._now) or plan.actions:
            return self._may_go_on()
        return self._wait() and self._may_go_on()

    def _has_more(self, plan: Plan) -> bool:
        """Whether one decision was too large for one plan."""
        return bool(plan.actions) and plan.wake_at is not None and plan.wake_at <= self._now

    def _may_go_on(self) -> bool:
        self._decisions += 1
        self._looks += sum(1 for _ in self._world.replicas_of(self._id))
        if self._decisions < MAX_DECISIONS and self._looks < MAX_LOOKS and len(self.steps) < MAX_STEPS:
            return True
        self._close_stage()
        del self.steps[MAX_STEPS:]
        self._show([PlannedStep("more", because="it goes on like this; too much to show")], self._view())
        return False

    def _close_stage(self) -> None:
        """Show what was decided together, with what is left meanwhile."""
        if self._open:
            self._stage += 1
            self._show(_condensed(self._open), self._view())
            self._open = []

    def _show(self, steps: Sequence[PlannedStep], view: WorkloadView | None) -> None:
        available, existing = (view.available, view.current) if view is not None else (0, 0)
        for step in steps:
            self.steps.append(replace(step, stage=self._stage, available=available, existing=existing))

    def _view(self) -> WorkloadView | None:
        if self._id not in self._world.workloads:
            return None
        return view_workload(self._world, self._id, self._now)

    def _wait(self) -> bool:
        """Nothing is to be done now: let time pass, or promote; False when neither helps."""
        view = self._view()
        rollout = view.status.rollout if view is not None and view.status is not None else None
        if view is None or rollout is None:
            return False
        counts = f"{view.available} available, {view.desired} wanted, {view.updated} updated"
        if rollout.phase is RolloutPhase.WAITING_PROMOTION:
            self._show([PlannedStep("wait", because=f"until somebody promotes it: {counts}")], view)
            return self._promote(rollout)
        timed = [at for at in (view.valid_until, rollout.paused_until) if at is not None and at > self._now]
        if timed:
            until = min(timed)
            why = _why(rollout, until)
            self._show([PlannedStep("wait", because=f"{why}: {counts}", wait=until - self._now)], view)
            self._now = until
            return True
        if rollout.phase in MOVING:
            self._show([PlannedStep("wait", because=f"{rollout.because}: {counts}")], view)
        if rollout.phase is RolloutPhase.PROGRESSING:
            self._show([PlannedStep("judge", because=self._end_of_waiting(rollout))], view)
        return False

    def _end_of_waiting(self, rollout: Rollout) -> str:
        """What becomes of a rollout that gets no further, as far as can be seen now."""
        strategy = self._world.workloads[self._id].spec.rollout
        fails = f"fails after {format_duration(strategy.progress_deadline)} without progress"
        healthy = proved_healthy(self._world.revisions.get(self._id, {}), rollout.revision)
        if healthy is None:
            return f"{fails}, and stays so: no earlier revision was proved healthy"
        if not strategy.auto_rollback:
            return f"{fails}, and stays so: auto_rollback is off"
        return f"{fails}, and goes back to revision {healthy.number}"

    def _promote(self, rollout: Rollout) -> bool:
        record = self._world.workloads[self._id]
        intent = record.intent
        if intent.revision != rollout.revision:
            intent = intent.replaced(revision=rollout.revision, paused=False, full=False)
        elif intent.promotions > rollout.promotions:
            return False  # promoted already, and it did not help
        self._world.put_workload(record.replaced(intent=intent.replaced(promotions=rollout.promotions + 1)))
        return True


def _why(rollout: Rollout, until: datetime.datetime) -> str:
    if rollout.paused_until != until:
        return "new replicas count once they are ready for a while (min_ready_time)"
    return _WAITS.get(rollout.stage, "the pause between two batches")


def _condensed(steps: Sequence[PlannedStep]) -> list[PlannedStep]:
    """The steps of one stage; many replicas with the same lot share one."""
    if len(steps) <= MAX_SINGLE:
        return list(steps)
    lots: dict[tuple[str, str, str], list[PlannedStep]] = {}
    for step in steps:
        lots.setdefault((step.action, step.node, step.because), []).append(step)
    shown = []
    for same in lots.values():
        names = [step.replica for step in same]
        more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
        shown.append(replace(same[0], replica=", ".join(names[:MAX_NAMED]) + more))
    return shown


def _obey(world: Cluster, workload_id: str, now: datetime.datetime) -> bool:
    """Let the nodes do what the records say; whether that changed anything."""
    changed = False
    for replica in list(world.replicas_of(workload_id)):
        node = world.nodes.get(replica.node_id)
        if node is None or node.phase is not NodePhase.READY:
            continue
        seen = world.observations.get(replica.id)
        if not replica.run:
            world.drop_observation(replica.id)
            world.drop_replica(replica.id)
            changed = True
        elif seen is None or seen.phase in (ReplicaPhase.PENDING, ReplicaPhase.STARTING):
            world.put_observation(_running(replica, now))
            changed = True
    return changed


def _running(replica: ReplicaRecord, now: datetime.datetime) -> Observation:
    return Observation(
        replica_id=replica.id,
        workload_id=replica.workload_id,
        node_id=replica.node_id,
        phase=ReplicaPhase.RUNNING,
        ready=True,
        started_at=now,
        ready_since=now,
    )
