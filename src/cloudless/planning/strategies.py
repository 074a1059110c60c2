"""Which stepper belongs to which strategy, and the number of replicas outside of rollouts."""

from __future__ import annotations

from collections.abc import Callable

from cloudless.domain.strategy import Strategy
from cloudless.planning.bluegreen import step_blue_green
from cloudless.planning.canary import step_canary
from cloudless.planning.census import Census, leaving_order
from cloudless.planning.recreate import step_recreate
from cloudless.planning.rolling import Step, step_rolling
from cloudless.planning.verbs import Move, Retire, Scene, Surge, Verb

STEPPERS: dict[Strategy, Callable[[Scene], Move]] = {
    Strategy.ROLLING_UPDATE: step_rolling,
    Strategy.RECREATE: step_recreate,
    Strategy.BLUE_GREEN: step_blue_green,
    Strategy.CANARY: step_canary,
}


def next_move(scene: Scene) -> Move:
    """What the workload's strategy says, and the right number of replicas once it has had its say."""
    move = STEPPERS[scene.strategy.strategy](scene)
    if scene.paused:
        move = _held(move, scene)
    census = scene.census
    if census.replacing and not scene.ended:
        return move
    count = settle_count(census, scene.desired)
    if census.replacing or not scene.ended:  # an old set that is kept, and all on its way out, takes up room
        room = scene.desired + scene.bounds.surge - census.existing
        count = count._replace(births=max(0, min(count.births, room)))
    kept = tuple(verb for verb in move.verbs if not _counts(verb))
    return move._replace(verbs=(*kept, *count.verbs), because=move.because or count.because)


def _held(move: Move, scene: Scene) -> Move:
    """What a user's pause leaves of a move: replicas kept in number, and where it is stays where it is.

    Whatever a stepper says: no traffic is led elsewhere, no wait begins, and it does not end.
    """
    rollout = scene.rollout
    kept = tuple(verb for verb in move.verbs if isinstance(verb, Surge | Retire))
    return Move(kept, rollout.stage, rollout.step, rollout.paused_until)


def settle_count(census: Census, desired: int) -> Step:
    """The step when all replicas are of the wanted template: create what lacks, stop what exceeds.

    Stopped first are those without a node, then those not ready, then the newest.
    """
    lacking = desired - len(census.new)
    if lacking >= 0:
        return Step(births=lacking, because=f"{lacking} of {desired} replicas lacking" if lacking else "")
    surplus = sorted(census.new, key=leaving_order)[:-lacking]
    return Step(stops=tuple(surplus), because=f"{len(surplus)} more than the {desired} wanted")


def _counts(verb: Verb) -> bool:
    """Whether a verb is about the number of new replicas."""
    return isinstance(verb, Surge) or (isinstance(verb, Retire) and all(one.current for one in verb.replicas))
