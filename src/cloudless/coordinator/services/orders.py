"""What each verb of a rollout asks for, and when it fits: pure, one function for each verb.

Each takes the workload with its rollout and answers the record to write, the very same one
when there is nothing to ask for, or raises ``PreconditionFailed`` with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from cloudless import api
from cloudless.domain.errors import PreconditionFailed
from cloudless.domain.intent import RolloutIntent
from cloudless.domain.revision import Revision
from cloudless.domain.rollout import ACTIVE, BACK, Rollout, RolloutPhase, Stage
from cloudless.domain.strategy import Strategy
from cloudless.domain.workload import NOT_TEMPLATE, ImagePullPolicy, WorkloadRecord
from cloudless.planning.revisions import proved_healthy

P = RolloutPhase


class NotNow(PreconditionFailed):
    """The rollout is not in a state that the verb fits; the message says in which it is."""

    code = "CL-4125"


class Scene(NamedTuple):
    """A workload, the rollout of its newest revision, and the revisions that are kept."""

    workload: WorkloadRecord
    rollout: Rollout
    revisions: Mapping[int, Revision]

    @property
    def intent(self) -> RolloutIntent:
        """What was asked of this rollout so far."""
        known, rollout = self.workload.intent, self.rollout
        if known.revision == rollout.revision:  # a pause does not outlive the rollout that it was of
            return known if rollout.phase in ACTIVE else known.replaced(paused=False)
        return RolloutIntent(
            revision=rollout.revision,
            promotions=rollout.promotions,
            aborts=rollout.aborts,
            retries=rollout.retries,
        )

    def asking(self, **changes: object) -> WorkloadRecord:
        """The workload with something more asked of its rollout."""
        return self.workload.replaced(intent=self.intent.replaced(**changes))

    @property
    def state(self) -> str:
        """Where the rollout is, as the reason why a verb does not fit."""
        number, rollout = self.rollout.revision, self.rollout
        if rollout.phase is P.PROGRESSING:
            return f"the rollout of revision {number} is on its way: {rollout.because or 'it has just begun'}"
        return {
            P.PAUSED: f"the rollout of revision {number} is paused",
            P.WAITING_PROMOTION: f"the rollout of revision {number} waits to be promoted",
            P.COMPLETED: f"revision {number} is rolled out",
            P.FAILED: f"the rollout of revision {number} has failed",
            P.ROLLING_BACK: f"the rollout of revision {number} goes back to revision {rollout.target}",
            P.ROLLED_BACK: f"revision {number} failed and was rolled back to revision {rollout.target}",
            P.ABORTED: f"revision {number} was aborted; revision {rollout.target} is in its place",
            P.SUPERSEDED: f"revision {number} was superseded",
        }[rollout.phase]

    @property
    def retiring(self) -> bool:
        """Whether the old replicas are still kept after a switch: the way back is open."""
        return self.rollout.phase is P.COMPLETED and self.rollout.stage is Stage.RETIRE


def pause(scene: Scene, request: api.RolloutRequest) -> WorkloadRecord:
    """No further step until resumed."""
    if scene.intent.paused and scene.rollout.phase is P.PAUSED:
        return scene.workload
    if scene.rollout.phase not in (P.PROGRESSING, P.WAITING_PROMOTION):
        raise NotNow(f"nothing to pause: {scene.state}")
    return scene.asking(paused=True)


def resume(scene: Scene, request: api.RolloutRequest) -> WorkloadRecord:
    """On with it."""
    asked = scene.intent.paused
    if scene.rollout.phase is not P.PAUSED and not (asked and scene.rollout.phase in ACTIVE):
        raise NotNow(f"not paused: {scene.state}")
    return scene.asking(paused=False) if asked else scene.workload


def promote(scene: Scene, request: api.RolloutRequest) -> WorkloadRecord:
    """On from a wait; with ``full`` past all further steps of a canary."""
    rollout, intent = scene.rollout, scene.intent
    if request.full:
        if rollout.strategy is not Strategy.CANARY:
            raise NotNow(f"only a CANARY has steps to leave out; this is a {rollout.strategy}")
        if rollout.phase not in ACTIVE:
            raise NotNow(f"nothing to promote: {scene.state}")
        if intent.full or rollout.stage in (Stage.REPLACE, Stage.BAKE):
            return scene.workload
        return scene.asking(full=True, promotions=rollout.promotions + 1)
    timed = rollout.phase is P.PROGRESSING and rollout.stage is Stage.PROMOTE
    if rollout.phase is P.PAUSED and rollout.stage is Stage.PROMOTE:
        raise NotNow(f"nothing to promote: {scene.state}", hint="resume it first")
    if rollout.phase is not P.WAITING_PROMOTION and not timed:
        raise NotNow(f"nothing to promote: {scene.state}")
    if intent.promotions > rollout.promotions:
        return scene.workload  # asked for already
    return scene.asking(promotions=rollout.promotions + 1)


def abort(scene: Scene, request: api.RolloutRequest) -> WorkloadRecord:
    """Back to the revision that was proved healthy last."""
    phase = scene.rollout.phase
    if phase is P.ROLLING_BACK:
        return scene.workload
    if phase not in ACTIVE and phase is not P.FAILED and not scene.retiring:
        raise NotNow(f"nothing to abort: {scene.state}", hint=_undo_hint(scene))
    if proved_healthy(scene.revisions, scene.rollout.revision) is None:
        raise NotNow(
            "nothing to go back to: no earlier revision was proved healthy",
            hint="update to a specification that works, or delete the workload",
        )
    return scene.asking(aborts=scene.rollout.aborts + 1, paused=False)


def undo(scene: Scene, request: api.RolloutRequest) -> WorkloadRecord:
    """An older revision's template becomes the newest one, with today's replicas and rollout."""
    workload, rollout = scene.workload, scene.rollout
    wanted = _wanted(scene, request.to_revision)
    if wanted.spec.template_hash == workload.spec.template_hash:
        settled = rollout.phase is P.COMPLETED or rollout.phase in ACTIVE
        if _is_other(wanted, scene, settled=settled):
            return workload.replaced(
                restart_count=workload.restart_count + 1,
                pull=False,
                restores=wanted.number,
                message=request.message,
                author=request.author,
            )
        if settled:
            return workload
        raise NotNow(
            f"revision {wanted.number} is the same specification as revision {rollout.revision}: "
            f"{scene.state}",
            hint="retry the rollout, or undo to another revision",
        )
    kept = {name: getattr(workload.spec, name) for name in NOT_TEMPLATE}
    return workload.replaced(
        spec=wanted.spec.replaced(**kept),
        generation=workload.generation + 1,
        restores=wanted.number,
        message=request.message,
        author=request.author,
    )


def _is_other(wanted: Revision, scene: Scene, *, settled: bool = True) -> bool:
    """Whether a revision of today's specification is another one than the newest all the same.

    Its image's tag meant another digest; or the newest is a restart of it that did not go well.
    """
    newest = scene.revisions.get(scene.rollout.revision)
    if newest is None or newest.number == wanted.number:
        return False
    moved = bool(wanted.image_digest) and wanted.image_digest != newest.image_digest
    return moved or (not settled and wanted.template_hash != newest.template_hash)


def _wanted(scene: Scene, number: int) -> Revision:
    """The revision to go back to."""
    revisions, rollout = scene.revisions, scene.rollout
    if number:
        newest = revisions.get(rollout.revision)
        if number not in revisions and newest is not None and newest.restores == number:
            return newest  # it is what runs, though its old number is forgotten
        if number not in revisions:
            kept = ", ".join(str(one) for one in sorted(revisions))
            raise NotNow(f"revision {number} is not kept; kept are {kept}", hint="name one of these")
        return revisions[number]
    if rollout.phase in BACK and rollout.target in revisions:
        return revisions[rollout.target]
    today = scene.workload.spec.template_hash
    older = [
        one
        for one in revisions.values()
        if one.number < rollout.revision and (one.spec.template_hash != today or _is_other(one, scene))
    ]
    if not older:
        raise NotNow("nothing to undo: no earlier revision with another specification or image is kept")
    return max(older, key=lambda one: (one.healthy_at is not None, one.number))


def restart(scene: Scene, request: api.RolloutRequest) -> WorkloadRecord:
    """New replicas of the same specification; with ``pull`` of what the image means now."""
    workload = scene.workload
    if scene.rollout.phase in BACK:
        raise NotNow(
            f"{scene.state}: a restart would be of the specification that failed",
            hint="undo to make the older revision the newest, or retry this one",
        )
    if request.pull and workload.spec.pull_policy is ImagePullPolicy.NEVER:
        raise NotNow("image_pull_policy is NEVER: no registry is asked", hint="restart without pull")
    return workload.replaced(
        restart_count=workload.restart_count + 1,
        pull=request.pull,
        restores=0,
        message=request.message,
        author=request.author,
    )


def retry(scene: Scene, request: api.RolloutRequest) -> WorkloadRecord:
    """The same revision once more."""
    if scene.rollout.phase not in (P.FAILED, P.ROLLED_BACK, P.ABORTED):
        raise NotNow(f"nothing to retry: {scene.state}")
    return scene.asking(retries=scene.rollout.retries + 1, paused=False, full=False)


def _undo_hint(scene: Scene) -> str:
    return "undo goes back to an earlier revision" if scene.rollout.phase is P.COMPLETED else ""


_Verb = api.RolloutRequestVerb
Order = Callable[[Scene, api.RolloutRequest], WorkloadRecord]
ORDERS: dict[_Verb, Order] = {
    _Verb.PAUSE: pause,
    _Verb.RESUME: resume,
    _Verb.PROMOTE: promote,
    _Verb.ABORT: abort,
    _Verb.UNDO: undo,
    _Verb.RESTART: restart,
    _Verb.RETRY: retry,
}
