from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cloudless.domain.workload import WorkloadSpec
from cloudless.planning.probes import ContainerProbes, ProbeKind, Verdict

STARTUP, LIVENESS, READINESS = ProbeKind.STARTUP, ProbeKind.LIVENESS, ProbeKind.READINESS


def spec(**probes: object) -> WorkloadSpec:
    return WorkloadSpec.model_validate({"image": "app:1", **probes})


def tcp(**timing: object) -> dict[str, object]:
    return {"tcp": {"port": 80}, **timing}


def answer(
    state: ContainerProbes, kind: ProbeKind, ok: bool, at: float, took: float = 0.0
) -> ContainerProbes:
    return state.record(kind, ok=ok, message="seen", began_at=at, now=at + took)


def test_without_probes_a_container_is_ready_at_once() -> None:
    state = ContainerProbes.of(spec(), 0.0)
    assert not state
    assert state.ready
    assert state.message == state.restart_because == ""


def test_readiness_waits_for_its_first_answer_and_falls_after_the_threshold() -> None:
    state = ContainerProbes.of(spec(readiness_probe=tcp(failure_threshold=2)), 5.0)
    assert (state.ready, state.next_attempt_at(READINESS)) == (False, 5.0)
    state = answer(state, READINESS, True, 5.0)
    assert state.ready
    state = answer(state, READINESS, False, 15.0)
    assert state.ready
    state = answer(state, READINESS, False, 25.0)
    assert not state.ready
    assert state.message == "readiness probe: seen"
    assert state.restart_because == ""


def test_success_threshold_counts_in_a_row() -> None:
    state = ContainerProbes.of(spec(readiness_probe=tcp(success_threshold=2)), 0.0)
    for ok, ready in [(True, False), (False, False), (True, False), (True, True)]:
        state = answer(state, READINESS, ok, 0.0)
        assert state.ready is ready


def test_liveness_asks_for_a_restart_after_its_threshold() -> None:
    state = ContainerProbes.of(spec(liveness_probe=tcp()), 0.0)
    for _ in range(2):
        state = answer(state, LIVENESS, False, 0.0)
        assert state.restart_because == ""
    state = answer(state, LIVENESS, False, 0.0)
    assert state.restart_because == "liveness probe failed 3 times: seen"
    assert state.ready


def test_a_startup_probe_holds_the_others_back_until_it_passed() -> None:
    state = ContainerProbes.of(
        spec(startup_probe=tcp(), liveness_probe=tcp(initial_delay="30s"), readiness_probe=tcp()), 0.0
    )
    assert [state.next_attempt_at(kind) for kind in (STARTUP, LIVENESS, READINESS)] == [0.0, None, None]
    assert not state.ready
    state = answer(state, STARTUP, True, 10.0, took=0.5)
    assert [state.next_attempt_at(kind) for kind in (STARTUP, LIVENESS, READINESS)] == [None, 30.0, 10.5]
    assert not state.ready
    assert answer(state, READINESS, True, 10.5).ready


def test_a_startup_probe_that_never_passes_restarts() -> None:
    state = ContainerProbes.of(spec(startup_probe=tcp(failure_threshold=1)), 0.0)
    assert answer(state, STARTUP, False, 0.0).restart_because.startswith("startup probe failed 1 times")


def test_attempts_begin_one_period_apart_and_never_pile_up() -> None:
    state = ContainerProbes.of(spec(readiness_probe=tcp(initial_delay="3s", period="2s")), 0.0)
    assert state.next_attempt_at(READINESS) == 3.0
    assert answer(state, READINESS, True, 3.0, took=0.5).next_attempt_at(READINESS) == 5.0
    assert answer(state, READINESS, True, 3.0, took=9.0).next_attempt_at(READINESS) == 12.0


@given(st.lists(st.booleans(), max_size=40), st.integers(1, 5), st.integers(1, 5))
def test_the_verdict_is_that_of_the_last_whole_row(answers: list[bool], good: int, bad: int) -> None:
    probe = tcp(success_threshold=good, failure_threshold=bad)
    state = ContainerProbes.of(spec(readiness_probe=probe), 0.0)
    expected = Verdict.UNKNOWN
    for index, ok in enumerate(answers):
        state = answer(state, READINESS, ok, float(index))
        row = 0
        for earlier in reversed(answers[: index + 1]):
            if earlier is not ok:
                break
            row += 1
        if row >= (good if ok else bad):
            expected = Verdict.PASSING if ok else Verdict.FAILING
        assert state.states[READINESS].verdict is expected
