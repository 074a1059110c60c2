"""Probes one running container on time and says what follows.

The schedule and the thresholds are ``planning.probes``; an attempt is whatever the
owner passes in. Each probe has its own task, so that a slow one delays no other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from cloudless.agent.probing.outcome import ProbeOutcome
from cloudless.aio.clock import Clock
from cloudless.domain.probes import Probe
from cloudless.domain.workload import WorkloadSpec
from cloudless.planning.probes import ContainerProbes, ProbeKind

Attempt = Callable[[Probe], Awaitable[ProbeOutcome]]


class Health:
    """``changed`` is called after each attempt that changes readiness or its reason."""

    def __init__(
        self, spec: WorkloadSpec, clock: Clock, attempt: Attempt, changed: Callable[[], None]
    ) -> None:
        self._clock = clock
        self._attempt = attempt
        self._changed = changed
        self._started = asyncio.Event()
        self._unhealthy: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.state = ContainerProbes.of(spec, clock.monotonic())

    async def run(self) -> str:
        """Probe until the container must be restarted; returns why. Never returns without probes."""
        async with asyncio.TaskGroup() as group:
            children = [group.create_task(self._probe(kind)) for kind in self.state.states]
            why = await self._unhealthy
            for child in children:
                child.cancel()
        return why

    async def _probe(self, kind: ProbeKind) -> None:
        while True:
            due = self.state.next_attempt_at(kind)
            if due is None:
                if kind is ProbeKind.STARTUP:
                    return
                await self._started.wait()
                continue
            began_at = self._clock.monotonic()
            if began_at < due:
                await self._clock.sleep(due - began_at)
                began_at = self._clock.monotonic()
            outcome = await self._attempt(self.state.states[kind].probe)
            self._take(kind, outcome, began_at)

    def _take(self, kind: ProbeKind, outcome: ProbeOutcome, began_at: float) -> None:
        before = (self.state.ready, self.state.failing, self.state.message)
        self.state = self.state.record(
            kind, ok=outcome.ok, message=outcome.message, began_at=began_at, now=self._clock.monotonic()
        )
        if kind is ProbeKind.STARTUP and self.state.next_attempt_at(kind) is None:
            self._started.set()
        if self.state.restart_because and not self._unhealthy.done():
            self._unhealthy.set_result(self.state.restart_because)
        if (self.state.ready, self.state.failing, self.state.message) != before:
            self._changed()
