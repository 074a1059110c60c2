"""Planted bugs: each invariant's check must find its own, else the check proves nothing."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from tests.unit.planning.checks import Broken
from tests.unit.planning.world import OPERATIONS, World

from cloudless.domain.plan import PutRevision, RemoveReplica
from cloudless.domain.strategy import Strategy
from cloudless.domain.usage import NodeRoom
from cloudless.planning import (
    bluegreen,
    canary,
    carrying,
    census,
    deletion,
    liveness,
    placement,
    recreate,
    replicas,
    status,
    strategies,
    workload,
)
from cloudless.planning.bounds import Bounds
from cloudless.planning.census import Census
from cloudless.planning.draft import Draft
from cloudless.planning.verbs import Move, Retire, Scene, Surge

#: Runs of random operations in which a planted bug has to show.
SEEDS = 400
Patch = Callable[[pytest.MonkeyPatch], None]


def broken_by(seed: int) -> str:
    """The name of the check that a run of random operations breaks, empty when none."""
    source = random.Random(seed)
    world = World(seed, 1 + seed % 3, replicas=1 + seed % 5)
    try:
        world.settle()
        for _ in range(40):
            world.do((source.choice(OPERATIONS), source.randrange(100)))
        world.heal()
    except AssertionError as error:
        return error.name if isinstance(error, Broken) else str(error).partition(":")[0]
    return ""


def changed(owner: Any, name: str, make: Callable[[Any], Any]) -> Patch:
    return lambda patch: patch.setattr(owner, name, make(getattr(owner, name)))


def bounds(**wrong: int) -> Patch:
    """Bounds that are off by something."""

    def make(right: Callable[..., Bounds]) -> Callable[..., Bounds]:
        def bounds_of(spec: Any) -> Bounds:
            found = right(spec)
            return found._replace(**{name: max(0, getattr(found, name) + by) for name, by in wrong.items()})

        return bounds_of

    return changed(workload, "bounds_of", make)


def nothing(*_: Any, **__: Any) -> None:
    return None


def forgetful_deletion(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(deletion, "_end", lambda cluster, replica, *_: RemoveReplica(replica))


def greedy_revisions(right: Callable[..., Any]) -> Callable[..., Any]:
    return lambda numbers, used: sorted(numbers)[:-1]


def rewriting(right: Callable[..., Any]) -> Callable[..., Any]:
    def keep(draft: Any) -> None:
        draft.actions.append(PutRevision(draft.target))

    return keep


def eager_recreate(patch: pytest.MonkeyPatch) -> None:
    def step(scene: Scene) -> Move:
        births = Surge(max(0, scene.desired - len(scene.census.new)))
        return recreate.step_recreate(scene)._replace(verbs=(births,) if births.births else ())

    patch.setitem(strategies.STEPPERS, Strategy.RECREATE, step)


def empty_retire(right: Callable[..., Any]) -> Callable[..., Any]:
    return lambda draft, verb, move: "" if isinstance(verb, Retire) else right(draft, verb, move)


def skipping_journal(right: Callable[..., Any]) -> Callable[..., Any]:
    def note(draft: Any, *words: Any, **more: Any) -> None:
        right(draft, *words, **more)
        draft.rollout = draft.rollout.replaced(journal=draft.rollout.journal + 1)

    return note


def half_weights(right: Callable[..., Any]) -> Callable[..., Any]:
    return lambda counts, total=100: right(counts, total // 2)


def blind_phase(right: Callable[..., Any]) -> Callable[..., Any]:
    return lambda record, observation, connected: right(record, observation, True)


def uncounted_leaving(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Census, "existing", property(lambda self: len(self.old) + len(self.new)))


ZOO: dict[str, tuple[Patch, str]] = {
    "the floor is one too low": (bounds(floor=-1), "floor"),
    "the surge is one too high": (bounds(surge=1), "surge"),
    "replicas on their way out are not counted": (uncounted_leaving, "surge"),
    "resources are not looked at": (
        changed(NodeRoom, "fits", lambda _: lambda self, demand: True),
        "over-commit",
    ),
    "each placement forgets the one before": (
        changed(placement._Search, "take", lambda _: nothing),
        "over-commit",
    ),
    "lost replicas are kept beside their replacement": (
        changed(workload, "clear_lost", lambda _: nothing),
        "identity",
    ),
    "a node that is back keeps both": (changed(workload, "stop_duplicates", lambda _: nothing), "identity"),
    "ordinals are never reused": (
        changed(replicas, "free_ordinals", lambda _: lambda found: iter([0] * 100)),
        "idempotent",
    ),
    "status believes silent nodes": (changed(census, "_phase", blind_phase), "nothing-runs-unseen"),
    "deletion forgets what still runs": (forgetful_deletion, "no-orphan"),
    "a revision in use is removed": (
        changed(workload, "surplus_revisions", greedy_revisions),
        "revision-kept",
    ),
    "scaling in stops the ready ones": (
        changed(strategies, "leaving_order", lambda _: lambda one: not one.ready),
        "ready-stop-last",
    ),
    "min_ready_time is not waited for": (
        changed(census, "stand", lambda right: lambda c, r, n, wait, now: right(c, r, n, wait * 0, now)),
        "available",
    ),
    "RECREATE does not wait": (eager_recreate, "recreate-all-gone-first"),
    "BLUE_GREEN switches before the new set is ready": (
        changed(bluegreen, "_full", lambda _: lambda scene: bool(scene.census.new)),
        "floor",
    ),
    "weights do not add up": (changed(canary, "divided", half_weights), "shares"),
    "the journal has holes": (changed(Draft, "note", skipping_journal), "journal"),
    "a node is lost without a grace": (
        changed(liveness, "_CONNECTED", lambda _: frozenset()),
        "node-transition",
    ),
    "messages are empty": (changed(status, "_replica_message", lambda _: lambda *a: ""), "explained"),
    "revisions are written again and again": (
        changed(workload, "_keep_revisions", rewriting),
        "idempotent",
    ),
    "a rollout never completes": (
        changed(workload, "conclude_rollout", lambda _: nothing),
        "no convergence",
    ),
    "a user's pause holds nothing": (changed(strategies, "_held", lambda _: lambda move, _: move), "held"),
    "stops are only meant": (changed(carrying, "_do", empty_retire), "no convergence"),
}


@pytest.mark.parametrize("name", ZOO)
def test_each_planted_bug_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    patch, expected = ZOO[name]
    patch(monkeypatch)
    assert any(broken_by(seed) == expected for seed in range(SEEDS))


def test_without_a_planted_bug_nothing_is_found() -> None:
    assert [broken_by(seed) for seed in range(100)] == [""] * 100
