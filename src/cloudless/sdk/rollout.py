"""Following one rollout: ``async with web.rollout() as r: async for step in r``.

Each step is a state that differs from the one before in what a person reads. The loop ends
when the revision is rolled out and raises ``RolloutFailed`` when it is not; a block that is
left by an exception takes its rollout back, unless that is over.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Self

from cloudless import api
from cloudless.domain.errors import CloudlessError, Conflict
from cloudless.sdk.limits import ABORT_TIMEOUT_S, CONFLICT_TRIES
from cloudless.sdk.objects import enum_name
from cloudless.sdk.verdict import WAITING, Outcome, Verdict
from cloudless.sdk.waiting import judged
from cloudless.sdk.watch import WorkloadWatch
from cloudless.sdk.workload import Workload

if TYPE_CHECKING:
    from cloudless.sdk.client import Client

#: Phases of a rollout that can be taken back by leaving it.
ACTIVE_PHASES = frozenset({"PROGRESSING", "PAUSED", "WAITING_PROMOTION"})


@dataclass(frozen=True, slots=True)
class Step:
    """One state of a rollout; ``workload`` is all of it."""

    workload: Workload
    verdict: Verdict

    @property
    def status(self) -> api.RolloutStatus:
        """The rollout as the coordinator reports it."""
        return self.workload.status.rollout or api.RolloutStatus()

    @property
    def because(self) -> str:
        """Why the last step was taken, or what is waited for, as a sentence."""
        if self.verdict.outcome is Outcome.DONE:
            return f"revision {self.workload.status.revision} is rolled out"
        waits = f"waiting for {self.verdict.missing}" if self.verdict.missing else ""
        return (self.status.because if self.taken_up else "") or waits

    @property
    def taken_up(self) -> bool:
        """Whether the coordinator has taken up all that was asked for: else the rest is of before."""
        status = self.workload.status
        return status.observed_generation >= self.workload.generation and not self.status.pending

    @property
    def phase(self) -> str:
        """PROGRESSING, PAUSED, WAITING_PROMOTION, COMPLETED, ROLLING_BACK; PENDING until it is taken up."""
        return enum_name(self.status.phase) if self.taken_up else "PENDING"

    @property
    def revision(self) -> int:
        """The revision on its way."""
        return self.status.revision

    @property
    def traffic(self) -> dict[int, int]:
        """Revision -> percent of new connections; empty when every ready replica gets as many."""
        return {share.revision: share.percent for share in self.status.traffic}

    @property
    def available(self) -> int:
        """Available replicas of the revision that replicas are made from now."""
        return self.status.new_available

    def same_as(self, other: Step | None) -> bool:
        """Whether a person would read the same."""
        return other is not None and self._shown() == other._shown()

    def _shown(self) -> tuple[object, ...]:
        status = self.status
        return self.because, self.phase, self.revision, status.stage, status.step, self.traffic


class Rollout:
    """Of the revision that ``workload`` asked for; use it as ``async with``.

    Left by an exception (cancellation of the task too) the rollout is aborted, within
    ``ABORT_TIMEOUT_S``: not when it is over, and not when a newer change has taken its place.
    What became of that is a note of the exception.
    """

    def __init__(self, client: Client, workload: Workload, *, timeout_s: float | None = None) -> None:
        self._client = client
        #: The newest state that was seen.
        self.workload = workload
        self._timeout_s = timeout_s
        #: What says whether a rollout is ours, whatever is seen later; its revision once it has one.
        self._ours = _asked(workload)
        self._revision = 0
        self._watch: WorkloadWatch | None = None
        self._states: AsyncGenerator[tuple[Workload, Verdict], None] | None = None
        self._last: Step | None = None

    async def __aenter__(self) -> Self:
        workload = self.workload
        watch = self._client.watch(namespace=workload.namespace, name=workload.name)
        self._watch = await watch.__aenter__()
        self._states = judged(
            watch, workload, "available", generation=workload.generation, timeout_s=self._timeout_s
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._watch is not None and self._states is not None:
            async with self._watch, aclosing(self._states):
                pass
        if error is not None and not isinstance(error, GeneratorExit):
            note = await self._take_back()
            if note:
                error.add_note(note)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Step:
        """The next step; raises what ``Client.wait`` raises."""
        if self._states is None:
            raise RuntimeError("use 'async with workload.rollout() as r'")
        async for workload, verdict in self._states:
            self.workload = workload
            step = Step(workload, verdict)
            if step.taken_up and _asked(workload) == self._ours:
                self._revision = workload.status.revision
            if not step.same_as(self._last):
                self._last = step
                return step
        raise StopAsyncIteration

    async def pause(self) -> Workload:
        """No further step until resumed; what was begun is finished."""
        return await self._client.pause(self.workload.name, namespace=self.workload.namespace)

    async def resume(self) -> Workload:
        """Go on after ``pause``."""
        return await self._client.resume(self.workload.name, namespace=self.workload.namespace)

    async def promote(self, *, full: bool = False) -> Workload:
        """Go on from a wait for promotion; ``full`` leaves out all further canary steps."""
        return await self._client.promote(self.workload.name, full=full, namespace=self.workload.namespace)

    async def abort(self) -> Workload:
        """Go back to the last revision that was proved healthy."""
        return await self._client.abort(self.workload.name, namespace=self.workload.namespace)

    async def _take_back(self) -> str:
        """Abort this very rollout if it is still on; answers what became of that."""
        try:
            async with asyncio.timeout(ABORT_TIMEOUT_S):
                for _ in range(CONFLICT_TRIES):
                    try:
                        return await self._abort_ours()
                    except Conflict:
                        continue  # written meanwhile: look whether it is still ours
                return "the rollout goes on: others change the workload all the time"
        except TimeoutError:
            return f"the rollout may go on: it could not be aborted within {ABORT_TIMEOUT_S:g} s"
        except CloudlessError as error:
            return f"the rollout was not aborted: {error.message}"

    async def _abort_ours(self) -> str:
        now = await self._client.get(self.workload.name, self.workload.namespace)
        step = Step(now, WAITING)
        same = step.taken_up and now.status.revision == self._revision  # it was scaled, for example
        if now.id != self._ours[0] or not (same or _asked(now) == self._ours):
            return ""  # a newer change has taken its place: not ours to take back
        phase = step.phase
        if now.deleted_at is not None or phase not in ACTIVE_PHASES | {"PENDING"}:
            return ""
        await self._client.abort(now.name, namespace=now.namespace, resource_version=now.resource_version)
        return f"the rollout of {now.name} was aborted"


def _asked(workload: Workload) -> tuple[str, int, int]:
    """Which change: a restart, and an undo to another digest, leave the generation as it is."""
    return workload.id, workload.generation, workload.message.restarts
