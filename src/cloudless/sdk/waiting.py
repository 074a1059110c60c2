"""``wait``: watch a workload until it is where it should be, or until it is clear why not.

Knows nothing of goals itself: ``verdict.judge`` decides on every state that the watch
brings. The only timers are the caller's deadline (or ``patience``) and the patience with placement.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from cloudless import api
from cloudless.sdk.explaining import Explanation
from cloudless.sdk.failures import CannotPlace, RolloutFailed, Superseded, WaitTimeout, WorkloadDeleted
from cloudless.sdk.objects import enum_name
from cloudless.sdk.patience import Patience
from cloudless.sdk.verdict import Goal, Outcome, Verdict, judge, name_of, superseded
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
    timeout_s: float | None,
    settle_s: float = 0.0,
    on_change: OnChange | None = None,
) -> Workload:
    """Follow ``changes`` of ``workload`` until ``goal``; raises the failures of ``sdk.failures``.

    With ``settle_s`` the goal must have held for that long. Without ``timeout_s`` a rollout's
    own deadline ends the wait, or ``patience``.
    """
    states = judged(changes, workload, goal, generation=generation, timeout_s=timeout_s, settle_s=settle_s)
    current = workload
    async with aclosing(states):
        async for current, verdict in states:
            if on_change is not None:
                on_change(current, verdict)
    return current


async def judged(
    changes: WorkloadWatch,
    workload: Workload,
    goal: Goal,
    *,
    generation: int,
    timeout_s: float | None,
    settle_s: float = 0.0,
) -> AsyncGenerator[tuple[Workload, Verdict], None]:
    """Every state with its verdict; ends when the goal is reached, raises as ``wait_for`` does."""
    loop = asyncio.get_running_loop()
    patience = Patience(timeout_s, loop.time())
    since: tuple[Outcome, float] = (Outcome.WAIT, loop.time())
    current, verdict = workload, judge(workload.message, goal, generation)
    while True:
        yield current, verdict
        if verdict.outcome is not since[0]:
            since = (verdict.outcome, loop.time())
        until_s = end_s = patience.end_s(current.message, loop.time())
        if verdict.outcome is not Outcome.WAIT:
            lasts_s = settle_s if verdict.outcome is Outcome.DONE else verdict.patience_s
            until_s = min(since[1] + lasts_s, end_s)
        try:
            change = await _next(changes, workload, until_s)
        except _Gone:
            if goal == "deleted":
                return
            raise _deleted(current) from None
        if change is None:
            _conclude(current, verdict, goal, patience.waited_s(loop.time()))
            return
        newer = superseded(workload.message, change.message, goal)
        current, verdict = change, newer or judge(change.message, goal, generation)


def _conclude(workload: Workload, verdict: Verdict, goal: Goal, waited_s: float) -> None:
    """The end of a wait: raises the error for what it has come to, unless that is the goal."""
    if verdict.outcome is Outcome.FAILED:
        raise _failed(workload, verdict)
    if verdict.outcome is Outcome.UNPLACED:
        raise _unplaced(workload, verdict)
    if verdict.outcome is Outcome.DELETED:
        raise _deleted(workload)
    if verdict.outcome is Outcome.SUPERSEDED:
        name = name_of(workload.message)
        raise Superseded(
            f"{workload.name}: {verdict.missing}, which asks for something else",
            workload=workload,
            hint=f"cloudless rollout watch {name}, or cloudless rollout history {name}",
        )
    if verdict.outcome is Outcome.WAIT:
        failed = f"; {verdict.explanation.sentence}" if verdict.explanation is not None else ""
        more = "describe workload" if goal == "deleted" else "rollout status"
        raise WaitTimeout(
            f"{workload.name} is not {goal.replace('_', ' ')} after {waited_s:g} s: "
            f"waiting for {verdict.missing}{failed}",
            hint=f"cloudless {more} {name_of(workload.message)}",
        )


class _Gone(Exception):
    """This very workload is no more."""


async def _next(changes: WorkloadWatch, workload: Workload, until_s: float) -> Workload | None:
    """The next state of this very workload (same id); None when the time is up; raises ``_Gone``."""
    if asyncio.get_running_loop().time() >= until_s:
        return None
    try:
        async with asyncio.timeout_at(until_s):
            return await _newer(changes, workload)
    except TimeoutError:
        return None


async def _newer(changes: WorkloadWatch, workload: Workload) -> Workload:
    async for change in changes:
        if change.workload.id != workload.id:
            if change.workload.name == workload.name and change.type != "DELETED":
                raise _Gone  # created again under the same name
            continue
        if change.type == "DELETED":
            raise _Gone
        return change.workload
    raise RuntimeError("a watch never ends by itself")


def _deleted(workload: Workload) -> WorkloadDeleted:
    return WorkloadDeleted(f"workload {workload.name} was deleted meanwhile")


def _failed(workload: Workload, verdict: Verdict) -> RolloutFailed:
    explanation = verdict.explanation or Explanation(message=verdict.missing)
    name = name_of(workload.message)
    if explanation.phase:
        return RolloutFailed(
            f"{workload.name}: {verdict.missing}", explanation=explanation, hint=_hints(name, explanation)
        )
    hint = f"cloudless describe workload {name}"
    if explanation.log_lines:
        hint = f"cloudless logs {explanation.replica}"
    return RolloutFailed(
        f"{workload.name} did not become available: {verdict.missing}", explanation=explanation, hint=hint
    )


def _hints(name: str, explanation: Explanation) -> str:
    """What to try after a rollout that ended badly, a line each."""
    history = f"cloudless rollout history {name} --revision {explanation.revision}"
    again = f"cloudless rollout retry {name}"
    if explanation.phase == "FAILED" and explanation.revision > 1:
        return f"{history}\ncloudless rollout undo {name}, or {again}"
    return f"{history}\n{again}, or apply what is mended"


def _unplaced(workload: Workload, verdict: Verdict) -> CannotPlace:
    rollout, name = workload.status.rollout or api.RolloutStatus(), name_of(workload.message)
    hints = ["cloudless nodes -o wide"]
    if enum_name(rollout.phase) == "PROGRESSING":
        hints.append(f"cloudless rollout watch {name}")
    if enum_name(rollout.phase) == "PROGRESSING" and rollout.from_revision:
        hints.append(f"cloudless rollout abort {name} ends it now")
        if _waits_for_surge(workload.message):
            bounds = "--set rollout.max_surge=0 --set rollout.max_unavailable=1"
            hints.append(f"cloudless update {name} {bounds} stops an old replica first")
    return CannotPlace(
        f"{workload.name} cannot be placed: {verdict.missing}\n{_goes_on(workload.message, rollout)}",
        refusals=verdict.refusals,
        hint="\n".join(hints),
    )


def _waits_for_surge(workload: api.Workload) -> bool:
    """Whether the rollout makes no room by itself: a rolling update that stops none before it has another."""
    strategy = (workload.spec.rollout if workload.spec is not None else None) or api.RolloutStrategy()
    rolling = enum_name(strategy.strategy) in ("ROLLING_UPDATE", "")
    return rolling and strategy.max_surge != "0"


def _goes_on(workload: api.Workload, rollout: api.RolloutStatus) -> str:
    """What happens to replicas without a node once nobody waits for them any more."""
    if enum_name(rollout.phase) != "PROGRESSING":
        return "the coordinator goes on trying until there is room"
    when = (
        f"at {rollout.deadline:%H:%M:%S} UTC" if rollout.deadline is not None else "by its progress_deadline"
    )
    strategy = (workload.spec.rollout if workload.spec is not None else None) or api.RolloutStrategy()
    back = rollout.from_revision and strategy.auto_rollback is not False
    then = "goes back to the last healthy revision" if back else "stays where it is"
    return f"the rollout goes on: unless there is room before, it fails {when} and {then}"
