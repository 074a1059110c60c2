"""BLUE_GREEN: a full new set beside the old one, then all traffic to it at one instant.

Before the switch the old set is never touched; after it the old set is kept for a while,
so that the way back is a switch as well. Going back is the same with the sets changed
round, without waiting for anybody. Sets are told apart by whether their revision has a
share of the traffic: what has none can go.
"""

from __future__ import annotations

from cloudless.domain.rollout import Stage
from cloudless.planning.census import Standing, leaving_order
from cloudless.planning.verbs import Move, Retire, Scene, Surge, Switch, Verb, Weigh, all_to_new, bake

S = Stage


def step_blue_green(scene: Scene) -> Move:
    """The next move, from the first new replica to the last old one's end."""
    if scene.ended:
        return _retire(scene)
    census, rollout = scene.census, scene.rollout
    if not census.old:
        return _alone(scene)
    if rollout.stage is S.BAKE:
        if scene.hold:
            return Move(_sizes(scene), S.BAKE, until=rollout.paused_until)
        return _baked(scene)
    idle = idle_replicas(scene)
    if idle and not scene.back and not scene.paused:
        return Move((Retire(idle, "they get no traffic"),), rollout.stage)
    if scene.back and len(idle) == len(census.old):  # the switch had not come yet, or was taken back
        return Move((Retire(idle, "they get no traffic"),), rollout.stage)
    sizes = _sizes(scene)
    if not _full(scene):
        return Move(sizes, S.SURGE)
    if sizes or scene.hold:
        return Move(sizes, rollout.stage)
    waits = not (scene.strategy.auto_promote or scene.back or scene.promoted or scene.restored)
    if waits:
        return Move(stage=S.PROMOTE, promotion=True)
    why = "back to the set that was proved healthy" if scene.back else "the new set is ready"
    return Move((Switch(all_to_new(scene), why),), S.BAKE)


def idle_replicas(scene: Scene) -> tuple[Standing, ...]:
    """Old replicas whose revision gets no traffic, though some revision does."""
    served = {share.revision for share in scene.rollout.shares if share.percent}
    if not served:
        return ()
    return tuple(one for one in scene.census.old if one.record.revision not in served)


def sized(scene: Scene, room: int) -> tuple[Verb, ...]:
    """Keep the old set that serves at the wanted size, whatever happens to the new one.

    ``room`` is how many more replicas may exist.
    """
    census, served = scene.census, {share.revision for share in scene.rollout.shares if share.percent}
    serving = [one for one in census.old if one.record.revision in served]
    lacking = scene.desired - len(serving)
    if lacking > 0 and serving:
        newest = max(one.record.revision for one in serving)
        return (Surge(min(lacking, room), newest),) if room > 0 else ()
    if lacking < 0:
        return (Retire(tuple(sorted(serving, key=leaving_order)[:-lacking]), "scaled in"),)
    return ()


def _sizes(scene: Scene) -> tuple[Verb, ...]:
    """Both sets at the wanted size."""
    census, desired = scene.census, scene.desired
    room = desired + scene.bounds.surge - census.existing
    old = () if scene.back else sized(scene, room)
    if scene.hold and not scene.back and scene.rollout.stage is not S.BAKE:
        return old  # nothing more for a set that does not serve yet
    room -= sum(verb.births for verb in old if isinstance(verb, Surge))
    lacking = desired - len(census.new)
    if lacking < 0:
        return (*old, Retire(tuple(sorted(census.new, key=leaving_order)[:-lacking]), "scaled in"))
    births = min(lacking, room)
    return (*old, Surge(births)) if births > 0 else old


def _full(scene: Scene) -> bool:
    """Whether the new set can take all the traffic; on the way back as much as the other can."""
    if not scene.back:
        return scene.arrived
    led = {share.revision for share in scene.rollout.shares if share.percent}
    serving = sum(one.settled and (not led or one.record.revision in led) for one in scene.census.staying)
    return scene.settled >= max(1, min(scene.desired, serving))


def _baked(scene: Scene) -> Move:
    """After the switch: watch, then count as done; the old set waits for its end."""
    sizes = (*_followed(scene), *(verb for verb in _sizes(scene) if _is_birth(verb)))
    wanted = scene.strategy.bake_time
    if wanted and not scene.back:
        if scene.rollout.paused_until is None:
            move = bake(scene._replace(rollout=scene.rollout.replaced(stage=S.SURGE)))
            return move if move is not None else Move(stage=S.BAKE)
        if not scene.waited():
            return Move(sizes, S.BAKE, until=scene.rollout.paused_until)
    if not scene.back and not scene.arrived:
        return Move(sizes, S.BAKE, until=scene.rollout.paused_until)
    delay = scene.strategy.scale_down_delay
    if sizes:
        return Move(sizes, S.BAKE, until=scene.rollout.paused_until)
    return Move(stage=S.RETIRE, until=scene.now + delay if delay else None, done=True)


def _retire(scene: Scene) -> Move:
    """The old set goes when its time has come."""
    if not scene.census.old:
        return Move(done=True)
    if scene.rollout.stage is S.RETIRE and not scene.waited():
        return Move(_followed(scene), S.RETIRE, until=scene.rollout.paused_until, done=True)
    return Move(
        (Retire(tuple(scene.census.old), f"revision {scene.rollout.target} has taken over"),),
        S.RETIRE,
        done=True,
    )


def _followed(scene: Scene) -> tuple[Verb, ...]:
    """After the switch the traffic follows the new set, however that changes."""
    shares = all_to_new(scene)
    return (Weigh(shares, "the new set changed"),) if shares != scene.rollout.shares else ()


def _is_birth(verb: Verb) -> bool:
    return isinstance(verb, Surge) and not verb.revision


def _alone(scene: Scene) -> Move:
    """No old replica is left, or there never was one: nothing to switch from."""
    stage = S.BAKE if scene.rollout.stage is S.BAKE else S.SURGE
    if scene.arrived and not scene.census.replacing:
        return bake(scene) or Move(stage=stage, done=True)
    return Move(_sizes(scene), stage, until=scene.rollout.paused_until if stage is S.BAKE else None)
