"""CANARY: a few new replicas beside all old ones, step by step, then all of them.

At each step so many new replicas are brought up, get their weight of the traffic, and are
watched for a pause or until somebody promotes. After the last step the rest is replaced
within the bounds of a rolling update, the weight rising with the replicas. Going back
takes the traffic away first and never touches the old replicas.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from cloudless.domain.rollout import Stage, TrafficShare
from cloudless.planning.bluegreen import idle_replicas, sized
from cloudless.planning.census import Standing, leaving_order
from cloudless.planning.rolling import replace_some
from cloudless.planning.verbs import (
    Move,
    Pause,
    Retire,
    Scene,
    Shares,
    Surge,
    Verb,
    Weigh,
    all_to_new,
    bake,
    divided,
)

S = Stage


def step_canary(scene: Scene) -> Move:
    """The next move, from the first canary to the end of the bake time."""
    rollout, census = scene.rollout, scene.census
    if not census.old or scene.ended:
        return _alone(scene)
    if scene.back:
        return _go_back(scene)
    idle = idle_replicas(scene)
    if idle and not scene.paused:
        return Move((Retire(idle, "they get no traffic"),), rollout.stage, rollout.step)
    steps = scene.strategy.canary_steps
    if scene.full or rollout.step >= len(steps) or rollout.stage is S.REPLACE:
        return _replace(scene, len(steps))
    here = steps[rollout.step]
    wanted = here.count(scene.desired)
    serving = sum(one.settled for one in census.old)
    if not wanted or (len(census.new) > wanted and serving < scene.bounds.floor):
        return _replace(scene, len(steps))  # the old set is no longer whole: no way to try anything out
    sizes = _sizes(scene, wanted)
    waiting = rollout.stage is S.PROMOTE
    if sizes or scene.hold or len(census.new) != wanted or scene.settled < wanted:
        stage = S.PROMOTE if waiting else S.SURGE
        return Move(sizes, stage, rollout.step, rollout.paused_until if waiting else None)
    verbs = _weigh(scene, here.weight)
    if here.pause is None:
        return Move(verbs, S.SURGE, rollout.step + 1)
    if here.pause.duration is None:
        if (waiting and scene.promoted) or scene.strategy.auto_promote:
            return Move(verbs, S.SURGE, rollout.step + 1)
        return Move(verbs, S.PROMOTE, rollout.step, promotion=True)
    if waiting:
        if scene.waited() or scene.promoted:
            return Move(verbs, S.SURGE, rollout.step + 1)
        return Move(verbs, S.PROMOTE, rollout.step, rollout.paused_until)
    until = scene.now + here.pause.duration
    return Move((*verbs, Pause(until, f"after step {rollout.step + 1}")), S.PROMOTE, rollout.step, until)


def _sizes(scene: Scene, wanted: int) -> tuple[Verb, ...]:
    """``wanted`` new replicas beside the full old set."""
    census = scene.census
    room = scene.desired + scene.bounds.surge - census.existing
    old = sized(scene, room)
    if scene.hold:
        return old
    room -= sum(verb.births for verb in old if isinstance(verb, Surge))
    lacking = wanted - len(census.new)
    if lacking < 0:
        return (*old, Retire(tuple(sorted(census.new, key=leaving_order)[:-lacking]), "this step has fewer"))
    births = min(lacking, room)
    return (*old, Surge(births)) if births > 0 else old


def _replace(scene: Scene, steps: int) -> Move:
    """The last part: a rolling update whose weight rises with the new replicas."""
    step = replace_some(scene.census, scene.bounds, paused=scene.hold, pausing=False, frozen=scene.paused)
    old = sum(one.settled for one in scene.census.old)
    share = -(-100 * scene.settled // max(1, scene.settled + old))
    weight = max(share, _weight_of(scene))
    verbs = _weigh(scene, weight) if scene.settled else ()
    return Move((*verbs, *step.verbs), S.REPLACE, steps)


def _go_back(scene: Scene) -> Move:
    """The old replicas get the traffic and the canaries go."""
    target = scene.rollout.target
    shares = all_to_new(scene) if scene.settled >= max(1, scene.bounds.floor) else ()
    verbs: tuple[Verb, ...] = ()
    if scene.rollout.shares != shares:
        verbs = (Weigh(shares, f"back to revision {target}"),)
    step = replace_some(scene.census, scene.bounds, paused=False, pausing=False)
    return Move((*verbs, *step.verbs), S.SURGE, scene.rollout.step)


def _alone(scene: Scene) -> Move:
    """No old replica is left, or there never was one."""
    census, rollout = scene.census, scene.rollout
    stage = rollout.stage if rollout.stage in (S.BAKE, S.REPLACE) else S.SURGE
    steps = len(scene.strategy.canary_steps)
    if census.old:  # ended, and some came back with their node
        return Move((Retire(tuple(census.old)),), stage, steps, done=True)
    if scene.arrived and not census.replacing:
        return bake(scene) or Move(stage=stage, step=steps, done=True)
    room = scene.desired + scene.bounds.surge - census.existing
    births = min(scene.desired - len(census.new), room)
    until = rollout.paused_until if stage is S.BAKE else None
    verbs = (Surge(births),) if births > 0 and not scene.ended else ()
    return Move(verbs, stage, rollout.step, until)


def _weight_of(scene: Scene) -> int:
    """Percent of the traffic that new replicas have now."""
    old = {one.record.revision for one in scene.census.old}
    return sum(share.percent for share in scene.rollout.shares if share.revision not in old)


def _weigh(scene: Scene, weight: int) -> tuple[Verb, ...]:
    """``weight`` percent for the new replicas, the rest for the old ones that serve."""
    shares = _shares(scene, weight)
    return (
        (Weigh(shares, f"{weight} % to revision {scene.rollout.target}"),)
        if shares != scene.rollout.shares
        else ()
    )


def _shares(scene: Scene, weight: int) -> Shares:
    fresh = divided(_by_revision(scene.census.new), weight if scene.census.old else 100)
    old = divided(_by_revision(scene.census.old), 100 - weight if fresh or not weight else 100)
    return tuple(sorted((*fresh, *old), key=_revision))


def _by_revision(standings: Iterable[Standing]) -> dict[int, int]:
    return dict(Counter(one.record.revision for one in standings))


def _revision(share: TrafficShare) -> int:
    return share.revision
