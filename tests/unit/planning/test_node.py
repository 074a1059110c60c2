from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cloudless.domain.replica import Assignment
from cloudless.domain.workload import WorkloadSpec
from cloudless.planning.node import ContainerFact, ContainerState, plan_node

S = ContainerState
SPEC = WorkloadSpec(image="app:1")


def told(replica_id: str, *, run: bool = True) -> dict[str, Assignment]:
    assignment = Assignment(
        replica_id=replica_id,
        workload_id="w",
        namespace="default",
        name="web",
        ordinal=0,
        revision=1,
        spec=SPEC,
        run=run,
    )
    return {replica_id: assignment}


def found(replica_id: str, state: ContainerState, attempt: int = 1) -> ContainerFact:
    return ContainerFact(f"cl-{replica_id}-{attempt}", replica_id, "w", attempt, state)


def test_an_assigned_container_that_runs_is_adopted() -> None:
    running = found("a", S.RUNNING)
    plan = plan_node(told("a"), [running])
    assert plan.adopt == {"a": running}
    assert (plan.start, plan.remove, plan.stop, plan.keep) == ((), (), {}, ())


def test_one_that_ended_is_adopted_for_its_end_to_be_judged() -> None:
    assert plan_node(told("a"), [found("a", S.STOPPED)]).adopt["a"].state is S.STOPPED


def test_of_several_the_running_one_counts_and_the_others_go() -> None:
    old, new = found("a", S.STOPPED, 3), found("a", S.RUNNING, 2)
    plan = plan_node(told("a"), [old, new])
    assert plan.adopt == {"a": new}
    assert plan.remove == (old,)


def test_a_start_that_was_cut_short_is_done_again() -> None:
    for state in (S.RECORDED, S.CREATED):
        plan = plan_node(told("a"), [found("a", state)])
        assert plan.start == ("a",)
        assert [container.state for container in plan.remove] == [state]


def test_nothing_there_means_start() -> None:
    assert plan_node(told("a"), []).start == ("a",)


def test_what_is_to_stop_is_stopped_with_all_its_containers() -> None:
    containers = [found("a", S.RUNNING, 2), found("a", S.STOPPED, 1)]
    plan = plan_node(told("a", run=False), containers)
    assert set(plan.stop["a"]) == set(containers)
    assert plan_node(told("a", run=False), []).stop == {"a": ()}


def test_strangers_stop_only_once_everything_was_told() -> None:
    stranger = found("x", S.RUNNING)
    assert plan_node({}, [stranger], whole=False).keep == (stranger,)
    assert plan_node({}, [stranger], whole=True).stop == {"x": (stranger,)}


def test_what_was_taken_away_stops_even_when_not_everything_was_told() -> None:
    taken = found("x", S.RUNNING)
    assert plan_node({}, [taken], doomed={"x", "y"}, whole=False).stop == {"x": (taken,), "y": ()}


@given(
    assigned=st.dictionaries(st.sampled_from("abcd"), st.booleans()),
    containers=st.sets(
        st.tuples(st.sampled_from("abcdxy"), st.sampled_from(list(S)), st.integers(1, 3)), max_size=12
    ),
    doomed=st.sets(st.sampled_from("xyz")),
    whole=st.booleans(),
)
def test_every_container_has_exactly_one_fate_and_no_assigned_one_is_lost(
    assigned: dict[str, bool],
    containers: set[tuple[str, ContainerState, int]],
    doomed: set[str],
    whole: bool,
) -> None:
    assignments: dict[str, Assignment] = {}
    for replica_id, run in assigned.items():
        assignments |= told(replica_id, run=run)
    facts = [found(replica_id, state, attempt) for replica_id, state, attempt in sorted(containers)]
    plan = plan_node(assignments, facts, doomed=doomed, whole=whole)
    fates = [
        *plan.adopt.values(),
        *plan.remove,
        *plan.keep,
        *(one for many in plan.stop.values() for one in many),
    ]
    assert sorted(map(repr, fates)) == sorted(map(repr, facts))
    wanted = {replica_id for replica_id, run in assigned.items() if run}
    assert {*plan.adopt, *plan.start} == wanted
    assert not wanted & plan.stop.keys()
    assert not (plan.keep and whole)
