"""Rollouts in advance: what is shown is what the planner would do, with what it leaves."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.planning.world import SECOND, START, WEB, World

from cloudless.planning import rehearsal
from cloudless.planning.bounds import bounds_of
from cloudless.planning.describe import PlannedStep
from cloudless.planning.rehearsal import rehearse


def settled(**spec: Any) -> World:
    world = World(**spec)
    world.run(15)
    return world


def steps_of(world: World) -> tuple[PlannedStep, ...]:
    return rehearse(world.cluster, WEB, world.now, world.new_id)


def shown(world: World) -> list[tuple[int, int, int, str]]:
    return [(step.stage, step.available, step.existing, step.sentence) for step in steps_of(world)]


def test_a_rolling_update_to_its_end_touches_nothing() -> None:
    world = settled(replicas=2, rollout={"max_surge": "1", "max_unavailable": "0", "min_ready_time": "5s"})
    world.change(image="web:2")
    before = dict(world.cluster.replicas), dict(world.cluster.statuses)
    waits = "wait 5s: new replicas count once they are ready for a while (min_ready_time): "
    assert shown(world) == [
        (1, 2, 3, "revision: revision 2: image web:1 -> web:2"),
        (1, 2, 3, "create web/2 on n2: revision 2"),
        (1, 2, 3, f"{waits}2 available, 2 wanted, 1 updated"),
        (2, 2, 3, "stop web/0 on n0: replaced by revision 2"),
        (3, 2, 3, "create web/0 on n0: revision 2"),
        (3, 2, 3, f"{waits}2 available, 2 wanted, 2 updated"),
        (4, 2, 3, "stop web/1 on n1: replaced by revision 2"),
        (5, 2, 2, "end: completed (every wanted replica is of the new revision and available)"),
    ]
    assert (dict(world.cluster.replicas), dict(world.cluster.statuses)) == before
    assert steps_of(world)[2].wait == 5 * SECOND


def test_the_fewest_available_replicas_are_seen_while_others_start_and_stop() -> None:
    world = settled(replicas=4, rollout={"max_surge": "1", "max_unavailable": "1"})
    world.change(image="web:2")
    steps = steps_of(world)
    assert min(step.available for step in steps) == 3
    assert max(step.existing for step in steps) == 5
    assert steps[-1].available == steps[-1].existing == 4


def test_recreate_says_that_nothing_is_available_for_a_while() -> None:
    world = settled(replicas=2)
    world.change(image="web:2", rollout={"strategy": "RECREATE"})
    stages = {step.stage: (step.action, step.available) for step in steps_of(world) if step.replica}
    assert stages == {1: ("stop", 0), 2: ("create", 0)}


def test_blue_green_shows_the_promotion_the_switch_and_both_waits() -> None:
    rollout = {"strategy": "BLUE_GREEN", "bake_time": "10s", "scale_down_delay": "20s"}
    world = settled(replicas=2, rollout=rollout)
    world.change(image="web:2")
    steps = steps_of(world)
    assert [step.action for step in steps] == [
        "revision", "create", "create", "wait", "switch", "wait", "end", "wait", "stop", "stop",
    ]  # fmt: skip
    assert [step.sentence for step in steps if step.action == "wait"] == [
        "wait: until somebody promotes it: 4 available, 2 wanted, 2 updated",
        "wait 10s: the new replicas are watched (bake_time): 4 available, 2 wanted, 2 updated",
        "wait 20s: the old replicas are kept (scale_down_delay): 4 available, 2 wanted, 2 updated",
    ]
    assert [step.sentence for step in steps if step.action == "switch"] == [
        "switch: new connections: 100 % revision 2 (the new set is ready)"
    ]
    assert min(step.available for step in steps) == 2


def test_a_canary_shows_each_step_with_its_weight_and_pause() -> None:
    given = [{"weight": 25, "pause": {}}, {"weight": 50, "pause": {"duration": "1m"}}]
    world = settled(replicas=4, rollout={"strategy": "CANARY", "steps": given})
    world.change(image="web:2")
    steps = steps_of(world)
    weights = [step.because.partition(" (")[0] for step in steps if step.action == "weigh"]
    assert weights[:2] == [
        "new connections: 75 % revision 1, 25 % revision 2",
        "new connections: 50 % revision 1, 50 % revision 2",
    ]
    waits = [step.sentence.partition(":")[0] for step in steps if step.action == "wait"]
    assert waits == ["wait", "wait 1m"]
    assert steps[-1].action == "end"


def test_a_pause_between_batches() -> None:
    world = settled(replicas=2, rollout={"pause_duration": "7s", "max_surge": "1", "max_unavailable": "0"})
    world.change(image="web:2")
    waits = [step for step in steps_of(world) if step.action == "wait"]
    assert [wait.wait for wait in waits] == [7 * SECOND]
    assert "the pause between two batches" in waits[0].because


def test_a_paused_rollout_is_shown_up_to_its_pause() -> None:
    world = settled(replicas=4)
    world.change(image="web:2")
    world.do(("tick", 0))
    record = world.cluster.workloads[WEB]
    world.cluster.put_workload(record.replaced(intent=record.intent.replaced(revision=2, paused=True)))
    last = steps_of(world)[-1]
    assert last.sentence.startswith("wait: paused by a user until resumed, at most until 2026-01-02 ")


def test_bounds_that_leave_no_step() -> None:
    world = settled(replicas=2, rollout={"max_surge": "0", "min_available": "2"})
    world.change(image="web:2")
    judged = next(step for step in steps_of(world) if step.action == "judge")
    assert judged.sentence.startswith(
        "judge: failed, back to revision 1 (max_surge 0 and min_available 2 of 2"
    )


def test_what_finds_no_node_is_said_and_waited_for() -> None:
    world = World(replicas=1, resources={"requests": {"memory": "10Gi"}})
    steps = rehearse(world.cluster, WEB, START, world.new_id)
    assert [step.action for step in steps] == ["revision", "create", "wait", "judge"]
    assert steps[1].sentence.startswith("create web/0: no node: n0: needs memory 10Gi, 750Mi free; n1: needs")
    assert "web/0 (pending)" in steps[2].sentence
    assert steps[3].sentence == (
        "judge: fails after 10m without progress, and stays so: no earlier revision was proved healthy"
    )


@pytest.mark.parametrize(
    ("back", "end"), [(True, "goes back to revision 1"), (False, "stays so: auto_rollback is off")]
)
def test_an_update_without_room_says_how_it_ends(back: bool, end: str) -> None:
    world = settled(replicas=1, rollout={"progress_deadline": "90s", "auto_rollback": back})
    world.change(image="web:2", resources={"requests": {"memory": "10Gi"}})
    last = steps_of(world)[-1]
    assert last.sentence == f"judge: fails after 1m30s without progress, and {end}"


def test_no_room_for_surge_goes_on_within_the_bounds() -> None:
    """Every node is full: one replica has to go first, and the plan says so."""
    world = settled(replicas=3, nodes=3, resources={"requests": {"memory": "600Mi"}})
    world.change(image="web:2", rollout={"max_surge": "1", "max_unavailable": "1"})
    steps = steps_of(world)
    assert any(step.refusals for step in steps)
    assert min(step.available for step in steps) == 2
    assert steps[-1].action == "end"


def test_a_deletion() -> None:
    world = settled(replicas=1)
    record = world.cluster.workloads[WEB]
    world.cluster.put_workload(record.replaced(deleted_at=world.now))
    assert shown(world) == [
        (1, 0, 1, "stop web/0 on n0: the workload is deleted"),
        (2, 0, 0, "delete: nothing is left of the workload"),
    ]


def test_scaling_is_shown_too() -> None:
    world = settled(replicas=1)
    world.change(replicas=3)
    assert [step.sentence.partition(" on")[0] for step in steps_of(world)] == ["create web/1", "create web/2"]


def test_many_replicas_share_lines_and_thousands_are_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(replicas=1000, resources={"requests": {"memory": "100Ki"}})
    steps = rehearse(world.cluster, WEB, START, world.new_id)
    created = [step for step in steps if step.action == "create"]
    assert len(created) == 3, "one for each node"
    assert created[0].replica.endswith("more")
    assert (steps[-1].action, steps[-1].available) == ("end", 1000)
    monkeypatch.setattr(rehearsal, "MAX_LOOKS", 500)
    cut = rehearse(world.cluster, WEB, START, world.new_id)
    assert cut[-1].action == "more"
    monkeypatch.setattr(rehearsal, "MAX_STEPS", 2)
    assert [step.action for step in rehearse(world.cluster, WEB, START, world.new_id)][2:] == ["more"]


COUNTS = st.sampled_from(["0", "1", "2", "25%", "50%", "100%"])
#: 1 % comes to 0 of so few: both set to 0 is refused.
OTHER_COUNTS = st.sampled_from(["1%", "1", "2", "25%", "50%", "100%"])
ROLLOUTS = st.one_of(
    st.fixed_dictionaries(
        {"max_surge": COUNTS, "max_unavailable": OTHER_COUNTS},
        optional={"min_available": st.sampled_from(["1", "50%"]), "pause_duration": st.just("3s")},
    ),
    st.fixed_dictionaries(
        {"strategy": st.just("BLUE_GREEN")},
        optional={
            "auto_promote": st.booleans(),
            "bake_time": st.just("5s"),
            "scale_down_delay": st.just("0s"),
        },
    ),
    st.fixed_dictionaries(
        {
            "strategy": st.just("CANARY"),
            "max_surge": COUNTS,
            "max_unavailable": COUNTS,
            "steps": st.lists(
                st.builds(
                    lambda weight, pause: {"weight": weight, **pause},
                    st.integers(1, 100),
                    st.sampled_from([{}, {"pause": {}}, {"pause": {"duration": "9s"}}]),
                ),
                min_size=1,
                max_size=4,
            ),
        }
    ),
)


@given(
    before=st.integers(1, 9),
    after=st.integers(1, 9),
    rollout=ROLLOUTS,
    min_ready=st.sampled_from(["0s", "2s"]),
)
@settings(max_examples=60, deadline=None)
def test_what_is_shown_keeps_the_bounds_and_comes_to_its_end(
    before: int, after: int, rollout: dict[str, Any], min_ready: str
) -> None:
    rollout = {**rollout, "min_ready_time": min_ready}
    world = settled(replicas=before, rollout=rollout)
    world.change(image="web:2", replicas=after)
    bounds = bounds_of(world.cluster.workloads[WEB].spec)
    steps = steps_of(world)
    assert max(step.existing for step in steps) <= max(before, after + bounds.surge)
    assert min(step.available for step in steps) >= min(before, bounds.floor)
    last = steps[-1]
    assert "end" in {step.action for step in steps}
    assert last.existing - sum(step.stage == last.stage and step.action == "stop" for step in steps) == after
    assert [step.stage for step in steps] == sorted(step.stage for step in steps)
    waits = [step for step in steps if step.action == "wait"]
    assert all(step.wait or "promotes" in step.because for step in waits)
