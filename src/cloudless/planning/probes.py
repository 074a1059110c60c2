"""When to probe a container and what the answers mean: a pure state machine.

The agent carries attempts out (``agent.probing``) and feeds the outcomes in. Times are
seconds of a monotonic clock, so that a jump of the wall clock changes nothing. A
startup probe holds the other two back until it has passed once.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

from cloudless.domain.probes import Probe
from cloudless.domain.workload import WorkloadSpec


class ProbeKind(enum.StrEnum):
    """What a probe is for; the values are the words that people read."""

    STARTUP = "startup"
    LIVENESS = "liveness"
    READINESS = "readiness"


class Verdict(enum.Enum):
    """What a probe says so far: nothing yet, passing, or failing."""

    UNKNOWN = "unknown"
    PASSING = "passing"
    FAILING = "failing"


@dataclass(frozen=True, slots=True)
class ProbeState:
    """One probe of one running container.

    ``next_attempt_at`` is when to try next (None: no more). ``successes`` and ``failures``
    count in a row; ``message`` is what the last attempt saw.
    """

    probe: Probe
    next_attempt_at: float | None
    verdict: Verdict = Verdict.UNKNOWN
    successes: int = 0
    failures: int = 0
    message: str = ""

    def record(self, *, ok: bool, message: str, began_at: float, now: float) -> ProbeState:
        """The state after an attempt that began at ``began_at`` and ended at ``now``.

        Attempts begin one period apart; one that took longer than a period is followed at once.
        """
        successes, failures = (self.successes + 1, 0) if ok else (0, self.failures + 1)
        verdict = self.verdict
        if ok and successes >= self.probe.success_threshold:
            verdict = Verdict.PASSING
        elif not ok and failures >= self.probe.failure_threshold:
            verdict = Verdict.FAILING
        next_at = max(began_at + self.probe.period.total_seconds(), now)
        return ProbeState(self.probe, next_at, verdict, successes, failures, message)


@dataclass(frozen=True, slots=True)
class ContainerProbes:
    """All probes of one running container; None where the specification has none."""

    states: dict[ProbeKind, ProbeState]
    started_at: float

    @classmethod
    def of(cls, spec: WorkloadSpec, started_at: float) -> ContainerProbes:
        """The probes of a container whose process began at ``started_at``."""
        given = (
            (ProbeKind.STARTUP, spec.startup_probe),
            (ProbeKind.LIVENESS, spec.liveness_probe),
            (ProbeKind.READINESS, spec.readiness_probe),
        )
        states = {kind: _begin(probe, started_at) for kind, probe in given if probe is not None}
        if ProbeKind.STARTUP in states:
            for kind in (ProbeKind.LIVENESS, ProbeKind.READINESS):
                if kind in states:
                    states[kind] = replace(states[kind], next_attempt_at=None)
        return cls(states, started_at)

    def __bool__(self) -> bool:
        return bool(self.states)

    def next_attempt_at(self, kind: ProbeKind) -> float | None:
        """When to try next; None while held back, absent, or over."""
        state = self.states.get(kind)
        return None if state is None else state.next_attempt_at

    @property
    def ready(self) -> bool:
        """Whether traffic may come: all that hold it back have passed."""
        return all(
            self.states[kind].verdict is Verdict.PASSING
            for kind in (ProbeKind.STARTUP, ProbeKind.READINESS)
            if kind in self.states
        )

    @property
    def failing(self) -> bool:
        """Whether traffic must not come: one that holds it back has failed too often."""
        return any(
            self.states[kind].verdict is Verdict.FAILING
            for kind in (ProbeKind.STARTUP, ProbeKind.READINESS)
            if kind in self.states
        )

    @property
    def restart_because(self) -> str:
        """Why the container must be restarted; empty when it need not."""
        for kind in (ProbeKind.STARTUP, ProbeKind.LIVENESS):
            state = self.states.get(kind)
            if state is not None and state.verdict is Verdict.FAILING:
                return f"{kind} probe failed {state.failures} times: {state.message}"
        return ""

    @property
    def message(self) -> str:
        """What holds readiness back, for a person; empty when nothing does."""
        for kind in (ProbeKind.STARTUP, ProbeKind.READINESS):
            state = self.states.get(kind)
            if state is not None and state.verdict is not Verdict.PASSING:
                return (
                    f"{kind} probe: {state.message}" if state.message else f"{kind} probe: not answered yet"
                )
        return ""

    def record(
        self, kind: ProbeKind, *, ok: bool, message: str, began_at: float, now: float
    ) -> ContainerProbes:
        """The state after an attempt; a startup probe that passes lets the others begin."""
        states = dict(self.states)
        states[kind] = states[kind].record(ok=ok, message=message, began_at=began_at, now=now)
        if kind is ProbeKind.STARTUP and states[kind].verdict is Verdict.PASSING:
            states[kind] = replace(states[kind], next_attempt_at=None)
            for held in (ProbeKind.LIVENESS, ProbeKind.READINESS):
                if held in states:
                    due = self.started_at + states[held].probe.initial_delay.total_seconds()
                    states[held] = replace(states[held], next_attempt_at=max(due, now))
        return ContainerProbes(states, self.started_at)


def _begin(probe: Probe, started_at: float) -> ProbeState:
    return ProbeState(probe, started_at + probe.initial_delay.total_seconds())
