from __future__ import annotations

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudless.domain.workload import Backoff, RestartPolicy, RestartPolicyName
from cloudless.planning.restart import RestartHistory, decide, delay_s, retry_start

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
HOUR = datetime.timedelta(hours=1)


def policy(name: RestartPolicyName, **changes: object) -> RestartPolicy:
    return RestartPolicy.model_validate({"policy": name, **changes})


@pytest.mark.parametrize(
    ("name", "succeeded", "restart"),
    [
        (RestartPolicyName.ALWAYS, True, True),
        (RestartPolicyName.ALWAYS, False, True),
        (RestartPolicyName.ON_FAILURE, True, False),
        (RestartPolicyName.ON_FAILURE, False, True),
        (RestartPolicyName.NEVER, True, False),
        (RestartPolicyName.NEVER, False, False),
    ],
)
def test_the_policy_decides_by_success(name: RestartPolicyName, succeeded: bool, restart: bool) -> None:
    decision = decide(policy(name), RestartHistory(), succeeded=succeeded, started_at=NOW, now=NOW)
    assert decision.restart is restart
    assert decision.because


def test_delays_double_up_to_the_cap_and_begin_anew_after_a_long_run() -> None:
    always, history, delays = policy(RestartPolicyName.ALWAYS), RestartHistory(), []
    for _ in range(7):
        decision = decide(always, history, succeeded=False, started_at=NOW, now=NOW)
        delays.append(decision.delay_s)
        history = decision.history
    assert delays == [10.0, 20.0, 40.0, 80.0, 160.0, 300.0, 300.0]
    decision = decide(always, history, succeeded=False, started_at=NOW - HOUR, now=NOW)
    assert (decision.delay_s, decision.history.restarts) == (10.0, 8)


def test_a_base_of_zero_restarts_at_once_every_time() -> None:
    fast = policy(RestartPolicyName.ALWAYS, backoff={"base": "0s"})
    history = RestartHistory(restarts=50, failures=50)
    assert decide(fast, history, succeeded=False, started_at=NOW, now=NOW).delay_s == 0.0


def test_retries_run_out_and_a_long_run_gives_them_back() -> None:
    twice = policy(RestartPolicyName.ON_FAILURE, max_retries=2)
    history = RestartHistory()
    for _ in range(2):
        decision = decide(twice, history, succeeded=False, started_at=NOW, now=NOW)
        assert decision.restart
        history = decision.history
    ended = decide(twice, history, succeeded=False, started_at=NOW, now=NOW)
    assert not ended.restart
    assert "max_retries (2)" in ended.because
    assert decide(twice, history, succeeded=False, started_at=NOW - HOUR, now=NOW).restart


def test_failed_starts_are_retried_whatever_the_policy_and_do_not_count_as_restarts() -> None:
    never, history, delays = policy(RestartPolicyName.NEVER), RestartHistory(), []
    for _ in range(10):
        decision = retry_start(never, history)
        assert decision.restart
        delays.append(decision.delay_s)
        history = decision.history
    assert delays == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 300.0]
    assert (history.restarts, history.failures) == (0, 0)


@given(failures=st.integers(0, 10_000), base_s=st.integers(0, 10_000), cap_s=st.integers(0, 10_000))
def test_a_delay_lies_between_base_and_the_larger_of_both(failures: int, base_s: int, cap_s: int) -> None:
    backoff = Backoff(base=datetime.timedelta(seconds=base_s), cap=datetime.timedelta(seconds=cap_s))
    assert min(base_s, max(cap_s, base_s)) <= delay_s(backoff, failures) <= max(base_s, cap_s)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 2000)), max_size=30))
def test_the_restart_counter_never_falls(ends: list[tuple[bool, int]]) -> None:
    history = RestartHistory()
    for succeeded, ran_s in ends:
        started = NOW - datetime.timedelta(seconds=ran_s)
        after = decide(RestartPolicy(), history, succeeded=succeeded, started_at=started, now=NOW).history
        assert after.restarts == history.restarts + 1
        history = after
