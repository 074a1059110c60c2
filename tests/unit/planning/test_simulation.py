from __future__ import annotations

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.planning.world import OPERATIONS, World

#: A longer search: EXAMPLES=5000 pytest tests/unit/planning/test_simulation.py
EXAMPLES = int(os.environ.get("EXAMPLES", "120"))
operation = st.tuples(st.sampled_from(OPERATIONS), st.integers(0, 99))


@settings(max_examples=EXAMPLES, deadline=None, derandomize=EXAMPLES == 120)
@given(st.lists(operation, max_size=40), st.integers(0, 5), st.integers(1, 3))
def test_every_invariant_holds_at_each_step_and_all_converges_after_healing(
    operations: list[tuple[str, int]], seed: int, nodes: int
) -> None:
    world = World(seed, nodes)
    world.settle()
    for one in operations:
        world.do(one)
    world.heal()


@pytest.mark.parametrize("surge", ["0", "1", "25%", "100%"])
@pytest.mark.parametrize("unavailable", ["1%", "1", "25%", "100%"])
@pytest.mark.parametrize("replicas", [1, 2, 5, 8])
def test_a_rollout_completes_with_any_bounds(surge: str, unavailable: str, replicas: int) -> None:
    rollout = {"max_surge": surge, "max_unavailable": unavailable}
    world = World(1, 2, replicas=replicas, rollout=rollout)
    world.run(10)
    assert world.converged()
    world.change(image="web:2")
    for _ in range(60):
        world.do(("tick", 0))
        if world.converged():
            break
    assert world.converged()
    assert {one.record.revision for one in world.view().replicas} == {2}
