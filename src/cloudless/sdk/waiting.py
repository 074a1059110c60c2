"""``wait``: watch a workload until it is where it should be, or until it is clear why not.

Knows nothing of goals itself: ``verdict.judge`` decides on every state that the watch
brings. The only timers are the caller's deadline and the patience with placement.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from cloudless.domain.errors import NotFound
from cloudless.sdk.failures import CannotPlace, RolloutFailed, WaitTimeout
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
    settle_s: float = 0.0,
    on_change: OnChange | None = None,
) -> Workload:
    """Follow ``changes`` of ``workload`` until ``goal``; raises the failures of ``sdk.failures``.

    With ``settle_s`` the goal must have held for that long.
    """
    loop = asyncio.get_running_loop()
    end_s = loop.time() + timeout_s
    since: tuple[Outcome, float] = (Outcome.WAIT, loop.time())
    current, verdict = workload, judge(workload.message, goal, generation)
    while True:
        if on_change is not None:
            on_change(current, verdict)
        if verdict.outcome is not since[0]:
            since = (verdict.outcome, loop.time())
        until_s = end_s
        if verdict.outcome is not Outcome.WAIT:
            lasts_s = settle_s if verdict.outcome is Outcome.DONE else verdict.patience_s
            until_s = since[1] + lasts_s
        if loop.time() >= min(until_s, end_s):
            return _conclude(current, verdict, goal, timeout_s)
        try:
            async with asyncio.timeout_at(min(until_s, end_s)):
                change = await _next(changes, workload)
        except TimeoutError:
            return _conclude(current, verdict, goal, timeout_s)
        if change is None:
            if goal == "deleted":
                return current
            raise NotFound(f"workload {current.name} was deleted meanwhile")
        current, verdict = change, judge(change.message, goal, generation)


def _conclude(workload: Workload, verdict: Verdict, goal: Goal, timeout_s: float) -> Workload:
    """The end of a wait: the workload, or the error for what it has come to."""
    if verdict.outcome is Outcome.DONE:
        return workload
    if verdict.outcome is Outcome.FAILED:
        raise _failed(workload, verdict)
    if verdict.outcome is Outcome.UNPLACED:
        raise _unplaced(workload, verdict)
    raise WaitTimeout(
        f"{workload.name} is not {goal} after {timeout_s:g} s: waiting for {verdict.missing}",
        hint=f"cloudless describe workload {workload.name}",
    )


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
    if verdict.log_lines:
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
