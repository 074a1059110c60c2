"""``wait``: watch a workload until it is where it should be, or until it is clear why not.

Knows nothing of goals itself: ``verdict.judge`` decides on every state that the watch
brings. The only timers are the caller's deadline and the patience with placement.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from cloudless.domain.errors import NotFound
from cloudless.sdk.failures import CannotPlace, RolloutFailed, WaitTimeout
from cloudless.sdk.limits import PLACEMENT_PATIENCE_S
from cloudless.sdk.verdict import Goal, Outcome, Verdict, judge
from cloudless.sdk.watch import WorkloadWatch
from cloudless.sdk.workload import Workload

#: Told of every state that was judged.
OnChange = Callable[[Workload, Verdict], None]


async def wait_for(
    changes: WorkloadWatch,
    workload: Workload,
    goal: Goal,
    *,
    generation: int,
    timeout_s: float,
    on_change: OnChange | None = None,
) -> Workload:
    """Follow ``changes`` of ``workload`` until ``goal``; raises the failures of ``sdk.failures``."""
    loop = asyncio.get_running_loop()
    end_s = loop.time() + timeout_s
    unplaced_until_s: float | None = None
    current, verdict = workload, judge(workload.message, goal, generation)
    while True:
        if on_change is not None:
            on_change(current, verdict)
        if verdict.outcome is Outcome.DONE:
            return current
        if verdict.outcome is Outcome.FAILED:
            raise _failed(current, verdict)
        if verdict.outcome is not Outcome.UNPLACED:
            unplaced_until_s = None
        elif unplaced_until_s is None:
            unplaced_until_s = loop.time() + PLACEMENT_PATIENCE_S
        until_s = end_s if unplaced_until_s is None else min(end_s, unplaced_until_s)
        try:
            async with asyncio.timeout_at(until_s):
                change = await _next(changes, workload)
        except TimeoutError:
            if until_s == unplaced_until_s:
                raise _unplaced(current, verdict) from None
            raise WaitTimeout(
                f"{current.name} is not {goal} after {timeout_s:g} s: waiting for {verdict.missing}",
                hint=f"cloudless describe workload {current.name}",
            ) from None
        if change is None:
            if goal == "deleted":
                return current
            raise NotFound(f"workload {current.name} was deleted meanwhile")
        current, verdict = change, judge(change.message, goal, generation)


async def _next(changes: WorkloadWatch, workload: Workload) -> Workload | None:
    """The next state of this very workload (same id); None when it is gone."""
    async for change in changes:
        if change.workload.id != workload.id:
            if change.workload.name == workload.name and change.type != "DELETED":
                return None  # created again under the same name
            continue
        return None if change.type == "DELETED" else change.workload
    raise RuntimeError("a watch never ends by itself")


def _failed(workload: Workload, verdict: Verdict) -> RolloutFailed:
    hint = f"cloudless describe workload {workload.name}"
    if verdict.replica:
        hint = f"cloudless logs {verdict.replica}"
    return RolloutFailed(
        f"{workload.name} did not become available: {verdict.missing}",
        replica=verdict.replica,
        log_lines=verdict.log_lines,
        hint=hint,
    )


def _unplaced(workload: Workload, verdict: Verdict) -> CannotPlace:
    return CannotPlace(
        f"{workload.name} cannot be placed: {verdict.missing}",
        refusals=verdict.refusals,
        hint="cloudless nodes -o wide",
    )
