"""When a wait that was given no limit ends by itself: a pure clockwork, fed with each state.

The coordinator judges a rollout that is on, so its deadline is the wait's: nothing is
given up while states come, nor before silence has outlasted all that the coordinator may
wait for without a word. With no rollout on (paused, waiting for somebody, not taken up,
nothing to roll out) nobody else would ever end the wait.
"""

from __future__ import annotations

import datetime

from cloudless import api
from cloudless.sdk.limits import SILENCE_MARGIN_S, WAIT_TIMEOUT_S
from cloudless.sdk.objects import enum_name

#: Phases of a rollout that the coordinator ends by a deadline.
_JUDGED = frozenset({"PROGRESSING", "ROLLING_BACK"})
#: What holds where a specification is silent, as the domain model has it.
_PROGRESS_DEADLINE_S = 600.0
_SCALE_DOWN_DELAY_S = 30.0
_DRAIN_S = 5.0
_STOP_GRACE_S = 30.0


class Patience:
    """Of one wait. ``timeout_s`` counts from its beginning; None: as the module says."""

    def __init__(self, timeout_s: float | None, now_s: float) -> None:
        self._started_s = self._idle_since_s = now_s
        self._timeout_s = timeout_s

    def end_s(self, workload: api.Workload, now_s: float) -> float:
        """When the wait ends if no other state than this one, seen now, is seen."""
        if self._timeout_s is not None:
            return self._started_s + self._timeout_s
        if not _is_judged(workload):
            return self._idle_since_s + WAIT_TIMEOUT_S
        self._idle_since_s = now_s
        return now_s + silence_s(workload.spec)

    def waited_s(self, now_s: float) -> float:
        """How long it lasts already, for people."""
        return self._timeout_s if self._timeout_s is not None else round(now_s - self._started_s)


def silence_s(spec: api.WorkloadSpec | None) -> float:
    """The longest time that a rollout may be on without a change of what is shown of it.

    The longest wait that its strategy asks for, its deadline, and the end of what it stops.

    >>> silence_s(None) == 600 + 30 + 5 + 30 + SILENCE_MARGIN_S
    True
    """
    spec = spec or api.WorkloadSpec()
    rollout = spec.rollout or api.RolloutStrategy()
    waits = [
        _seconds(rollout.scale_down_delay, _SCALE_DOWN_DELAY_S),
        _seconds(rollout.bake_time, 0.0),
        _seconds(rollout.pause_duration, 0.0),
        _seconds(rollout.min_ready_time, 0.0),
        *(_seconds(step.pause.duration, 0.0) for step in rollout.steps if step.pause is not None),
    ]
    return (
        max(waits)
        + _seconds(rollout.progress_deadline, _PROGRESS_DEADLINE_S)
        + _seconds(rollout.drain_time, _DRAIN_S)
        + _seconds(spec.stop_grace_period, _STOP_GRACE_S)
        + SILENCE_MARGIN_S
    )


def _is_judged(workload: api.Workload) -> bool:
    status = workload.status
    if status is None or status.rollout is None or workload.deleted_at is not None:
        return False
    taken_up = status.observed_generation >= workload.generation and not status.rollout.pending
    return taken_up and enum_name(status.rollout.phase) in _JUDGED


def _seconds(given: datetime.timedelta | None, otherwise_s: float) -> float:
    return otherwise_s if given is None else given.total_seconds()
