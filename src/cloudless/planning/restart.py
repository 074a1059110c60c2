"""Whether and when a container that ended is started again. Pure.

The agent asks after every exit and after every start that failed, and keeps the
history that comes back in its journal, so that a restarted agent goes on counting.
Two kinds of failure are told apart: a process that ended is the policy's business; a
start that never became a process (no image, no port) is retried for as long as the
replica is wanted.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass, replace

from cloudless.domain.workload import Backoff, RestartPolicy, RestartPolicyName

#: Shortest delay after a start that failed: each try costs a registry or the kernel work.
START_RETRY_BASE_S = 1.0


@dataclass(frozen=True, slots=True)
class RestartHistory:
    """What is remembered of a replica's earlier ends; counts of this node only.

    ``restarts`` never falls; ``failures`` (which set the delay and are held against
    ``max_retries``) and ``failed_starts`` are forgotten after a long enough run.
    """

    restarts: int = 0
    failures: int = 0
    failed_starts: int = 0


@dataclass(frozen=True, slots=True)
class RestartDecision:
    """``restart`` after ``delay_s`` seconds, or never; ``because`` is for people."""

    restart: bool
    delay_s: float
    history: RestartHistory
    because: str


def decide(
    policy: RestartPolicy,
    history: RestartHistory,
    *,
    succeeded: bool,
    started_at: datetime.datetime | None,
    now: datetime.datetime,
) -> RestartDecision:
    """What follows when the container's process has ended.

    ``succeeded`` is whether its exit code was 0. ``started_at`` None: it ran too short to tell.

    >>> from cloudless.domain.workload import RestartPolicy
    >>> start = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    >>> decision = decide(RestartPolicy(), RestartHistory(), succeeded=False, started_at=start, now=start)
    >>> decision.restart, decision.delay_s, decision.history.restarts
    (True, 10.0, 1)
    """
    if policy.policy is RestartPolicyName.NEVER:
        return RestartDecision(False, 0.0, history, "the restart policy is NEVER")
    if succeeded and policy.policy is RestartPolicyName.ON_FAILURE:
        return RestartDecision(False, 0.0, history, "it succeeded, and the restart policy is ON_FAILURE")
    if started_at is not None and now - started_at >= policy.backoff.reset_after:
        history = replace(history, failures=0, failed_starts=0)
    if policy.max_retries is not None and history.failures >= policy.max_retries:
        return RestartDecision(False, 0.0, history, f"max_retries ({policy.max_retries}) is reached")
    wait_s = delay_s(policy.backoff, history.failures)
    after = RestartHistory(history.restarts + 1, history.failures + 1, 0)
    because = f"restart {after.restarts}" + (f" after {wait_s:g} s" if wait_s else " at once")
    return RestartDecision(True, wait_s, after, because)


def retry_start(policy: RestartPolicy, history: RestartHistory) -> RestartDecision:
    """What follows when a container could not be started: always another try, later each time.

    >>> from cloudless.domain.workload import RestartPolicy
    >>> history, delays = RestartHistory(), []
    >>> for _ in range(4):
    ...     decision = retry_start(RestartPolicy(), history)
    ...     history = decision.history
    ...     delays.append(decision.delay_s)
    >>> delays, history.restarts
    ([1.0, 2.0, 4.0, 8.0], 0)
    """
    cap_s = max(policy.backoff.cap.total_seconds(), START_RETRY_BASE_S)
    wait_s = _doubled(START_RETRY_BASE_S, history.failed_starts, cap_s)
    after = replace(history, failed_starts=history.failed_starts + 1)
    return RestartDecision(True, wait_s, after, f"next try after {wait_s:g} s")


def delay_s(backoff: Backoff, failures: int) -> float:
    """Seconds before the restart that follows ``failures`` earlier ones.

    >>> from cloudless.domain.workload import Backoff
    >>> [delay_s(Backoff(), failures) for failures in (0, 1, 2, 5, 1000)]
    [10.0, 20.0, 40.0, 300.0, 300.0]
    """
    base_s = backoff.base.total_seconds()
    return _doubled(base_s, failures, max(backoff.cap.total_seconds(), base_s))


def _doubled(base_s: float, times: int, cap_s: float) -> float:
    # 2**60 of any base is beyond every cap; more would only be a big number.
    return float(min(base_s * 2 ** min(times, 60), cap_s))
