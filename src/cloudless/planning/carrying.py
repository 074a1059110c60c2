"""What a move's verbs say is put into the plan and into the journal.

Called by ``workload`` for each move of a stepper. Moves are taken until there
is none: what has no node yet is gone as soon as it is told to stop, and a stage may end
where the next one begins.
"""

from __future__ import annotations

from collections.abc import Collection

from cloudless.domain.rollout import RolloutPhase, Stage
from cloudless.planning.bounds import Bounds
from cloudless.planning.census import Standing
from cloudless.planning.draft import Draft
from cloudless.planning.judging import LEFT_ALONE
from cloudless.planning.progress import ENDED, shares_text
from cloudless.planning.replicas import heal_old, surge
from cloudless.planning.strategies import next_move
from cloudless.planning.trouble import counted
from cloudless.planning.verbs import Judge, Move, Pause, Retire, Scene, Surge, Switch, Verb, Weigh

#: Most moves in one plan.
MAX_MOVES = 8
#: Replicas that a line of the journal names.
MAX_NAMED = 8


def take_moves(draft: Draft, bounds: Bounds, *, further: bool) -> Move:
    """The next move, and those that it makes possible at once; the last one is returned."""
    restored = _is_restored(draft, bounds)
    move = Move()
    for _ in range(MAX_MOVES):
        heal_old(draft, bounds)
        before, scene = draft.rollout, _scene(draft, bounds, further, restored)
        move = next_move(scene)
        _note_promotion(draft, move, scene)
        _carry_out(draft, move, scene)
        _advance(draft, move, scene)
        if move.done and not move.verbs:
            break
        if not move.verbs and (before.stage, before.step) == (draft.rollout.stage, draft.rollout.step):
            break
        further = False
    return move


def _scene(draft: Draft, bounds: Bounds, further: bool, restored: bool) -> Scene:
    rollout, intent = draft.rollout, draft.workload.intent
    mine = intent.revision == rollout.revision
    stopped = rollout.phase is RolloutPhase.FAILED and not rollout.back_to
    alone = stopped and rollout.failure is not None and rollout.failure.reason == LEFT_ALONE
    paused = rollout.phase is RolloutPhase.PAUSED or alone
    return Scene(
        census=draft.census,
        bounds=bounds,
        strategy=draft.workload.spec.rollout,
        rollout=rollout,
        now=draft.now,
        hold=stopped or paused,
        paused=paused,
        promoted=mine and intent.promotions > rollout.promotions,
        full=mine and intent.full,
        further=further,
        restored=restored,
    )


def _is_restored(draft: Draft, bounds: Bounds) -> bool:
    """Whether the whole new set was kept from before: an undo finds it ready to serve."""
    return bool(draft.target.restores) and all(
        one.record.created_at < draft.rollout.started_at for one in draft.census.new
    )


def _carry_out(draft: Draft, move: Move, scene: Scene) -> None:
    """Put the verbs into the plan, and into the journal while a rollout is on."""
    for verb in move.verbs:
        journaled = draft.census.replacing or scene.rollout.phase not in ENDED
        seen = draft.census.summary(draft.rollout.target) if journaled else ""
        decided = _do(draft, verb, move)
        if journaled and decided:
            draft.note(_name(verb), decided, _why(verb, scene), seen=seen)


def _do(draft: Draft, verb: Verb, move: Move) -> str:
    """Carry out one verb; says in a few words what was decided."""
    rollout = draft.rollout
    match verb:
        case Surge(count, revision):
            number = revision or draft.target.number
            before = {one.record.id for one in draft.census.staying}
            surge(draft, count, number, _why_created(draft, number, move))
            made = [one.title for one in draft.census.staying if one.record.id not in before]
            draft.say(f"{counted(len(made))} of revision {number} to create")
            return f"create {_named(made)} of revision {number}" if made else ""
        case Retire(replicas, why):
            reason = why if why and not draft.census.replacing else _why_stopped(draft, move, why)
            stopped = [one.title for one in replicas if draft.stop(one, reason)]
            return f"stop {_named(stopped)}" if stopped else ""
        case Switch(shares, _) | Weigh(shares, _):
            text = f"new connections: {shares_text(shares)}"
            draft.rollout = rollout.replaced(shares=shares)
            if isinstance(verb, Switch):
                draft.tell("TrafficSwitched", text)
            else:
                draft.say(text)
            return text
        case Pause(until, why):
            text = f"wait until {until:%H:%M:%S} UTC" if until is not None else "wait to be promoted"
            return f"{text} {why}".rstrip()
        case Judge(until):
            return f"watch the new replicas until {until:%H:%M:%S} UTC"


def _advance(draft: Draft, move: Move, scene: Scene) -> None:
    """Write down where the strategy is after the move."""
    rollout = draft.rollout
    if scene.ended and not move.verbs and (rollout.stage, rollout.paused_until) == (move.stage, move.until):
        return
    changes: dict[str, object] = {"stage": move.stage, "paused_until": move.until}
    if rollout.step != move.step:
        changes["step"] = move.step
    waited = rollout.paused_until is not None and move.until is None
    if not scene.ended and (move.verbs or waited):  # a step taken, or a wait over, is progress
        changes["progressed_at"] = draft.now
    if _goes_on(move, scene):
        changes["progressed_at"] = draft.now
    draft.rollout = draft.rollout.replaced(**changes)


def _goes_on(move: Move, scene: Scene) -> bool:
    """Whether the move leaves a wait behind it."""
    left = scene.rollout.stage is Stage.PROMOTE and move.stage is not Stage.PROMOTE
    return left or move.step > scene.rollout.step


def _note_promotion(draft: Draft, move: Move, scene: Scene) -> None:
    """A promotion is used up by the wait that it ends."""
    if scene.promoted and _goes_on(move, scene):
        revision = draft.rollout.revision
        draft.rollout = draft.rollout.replaced(promotions=draft.workload.intent.promotions)
        draft.tell("RolloutPromoted", f"rollout of revision {revision} promoted")
        draft.note("promote", "goes on", "a user promoted it")


def _name(verb: Verb) -> str:
    return {
        Surge: "surge",
        Retire: "retire",
        Switch: "switch",
        Weigh: "weigh",
        Pause: "pause",
        Judge: "bake",
    }[type(verb)]


def _why(verb: Verb, scene: Scene) -> str:
    """The rule behind a verb, for the journal."""
    bounds = scene.bounds
    match verb:
        case Surge():
            wanted = "1 is" if bounds.desired == 1 else f"{bounds.desired} are"
            return f"at most {bounds.desired + bounds.surge} may exist, {wanted} wanted"
        case Retire(replicas, why):
            return why or _why_retired(scene, replicas)
        case Switch(_, why) | Weigh(_, why):
            return why
        case Judge():
            return "bake_time"
    return ""


def _why_retired(scene: Scene, replicas: Collection[Standing]) -> str:
    """The bound that allows it; below the floor already only those go that take nothing from it."""
    going = {one.record.id for one in replicas}
    available = sum(one.settled for one in scene.census.staying if one.record.id not in going)
    floor = scene.bounds.floor
    if available >= floor:
        stays = {0: "none has to stay", 1: "at least 1 stays"}.get(floor, f"at least {floor} stay")
        return f"{stays} available"
    return "not available" if len(going) == 1 else "none of them is available"


def _why_created(draft: Draft, number: int, move: Move) -> str:
    if draft.census.replacing:
        if draft.rollout.back_to:
            return f"going back to revision {draft.rollout.back_to}"
        return f"rollout of revision {draft.rollout.revision}"
    return f"{counted(draft.workload.spec.replicas)} wanted"


def _why_stopped(draft: Draft, move: Move, why: str) -> str:
    rollout = draft.rollout
    if not draft.census.replacing:
        return why or move.because
    if rollout.back_to:
        return f"back to revision {rollout.back_to}"
    return f"replaced by revision {rollout.revision}"


def _named(titles: list[str]) -> str:
    shown = ", ".join(titles[:MAX_NAMED])
    return f"{shown} and {len(titles) - MAX_NAMED} more" if len(titles) > MAX_NAMED else shown
