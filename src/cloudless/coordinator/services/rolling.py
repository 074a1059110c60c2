"""Rollout and GetRollout: the verbs that steer a rollout, and its journal.

A verb writes only what a user asks for (``WorkloadRecord``); the control loop takes it up.
Whether it fits is decided on the status as this coordinator sees it, and the write holds
only if that status is still the stored one.
"""

from __future__ import annotations

import asyncio

from cloudless import api
from cloudless.coordinator.limits import TAKE_UP_S, UPDATE_ATTEMPTS
from cloudless.coordinator.services import fields
from cloudless.coordinator.services.context import Context
from cloudless.coordinator.services.idempotency import Ticket, first_answer, ticket_of
from cloudless.coordinator.services.lookup import find_workload
from cloudless.coordinator.services.orders import ORDERS, Scene
from cloudless.coordinator.services.reading import revisions_of
from cloudless.coordinator.services.writing import (
    Guard,
    Raced,
    check_version,
    dry_run,
    existing,
    refuse_deleted,
    write,
)
from cloudless.coordinator.state import keys
from cloudless.coordinator.state.changes import Changes
from cloudless.coordinator.state.journal import read_journal
from cloudless.domain.errors import Conflict, FieldViolation, Invalid, NotFound, Unavailable
from cloudless.domain.workload import WorkloadRecord
from cloudless.planning.status import view_workload
from cloudless.transport.codec import Encoded
from cloudless.wire.rollouts import journal_to_wire, rollout_to_wire

_Verb = api.RolloutRequestVerb
#: Fields that belong to some verbs only.
_FIELDS: dict[str, tuple[_Verb, ...]] = {
    "to_revision": (_Verb.UNDO,),
    "pull": (_Verb.RESTART,),
    "full": (_Verb.PROMOTE,),
    "message": (_Verb.UNDO, _Verb.RESTART),
    "author": (_Verb.UNDO, _Verb.RESTART),
}


async def steer_rollout(context: Context, request: api.RolloutRequest) -> api.RolloutResponse:
    """Do what ``request.verb`` says; raises ``Invalid``, ``PreconditionFailed``, ``Conflict``."""
    _check(request)
    namespace, name = fields.namespace_of(request.namespace), fields.name_of(request.name)
    version = fields.version_of(request.resource_version)
    ticket = ticket_of("Rollout", request)
    if request.dry_run:
        scene = await _scene(context, namespace, name, version)
        workload, plan = await dry_run(context, _ordered(context, scene, request))
        return api.RolloutResponse(workload=workload, plan=plan)
    encoded = await first_answer(context, ticket)
    if encoded is None:
        encoded = await _order(context, (namespace, name), version, request, ticket)
    return api.RolloutResponse(workload=Encoded(encoded, api.Workload))  # type: ignore[arg-type]


def _check(request: api.RolloutRequest) -> None:
    """Refuse what is no verb, and fields that do not belong to it."""
    verb = request.verb
    if verb == _Verb.VERB_UNSPECIFIED:
        raise Invalid.field("verb", "is required")
    if verb not in ORDERS:
        raise Invalid.field("verb", f"unknown value {int(verb)}")
    wrong = tuple(
        FieldViolation(field, f"has no meaning with {verb.name}")
        for field, verbs in _FIELDS.items()
        if getattr(request, field) and verb not in verbs
    )
    if wrong:
        raise Invalid(violations=wrong)
    if request.to_revision < 0:
        raise Invalid.field("to_revision", "must be the number of a revision, or 0")
    fields.message_of(request.message)
    fields.author_of(request.author)


async def _order(
    context: Context,
    name: tuple[str, str],
    version: int | None,
    request: api.RolloutRequest,
    ticket: Ticket | None,
) -> bytes:
    """Write what the verb asks for, on the status that it was decided on."""
    for _ in range(UPDATE_ATTEMPTS):
        scene = await _scene(context, *name, version)
        key = keys.status(scene.workload.id)
        guard = Guard(key, context.cache.facts.mods.get(key, 0))
        try:
            return await write(context, _ordered(context, scene, request), scene.workload, ticket, guard)
        except Raced as race:
            await context.cache.wait_for(race.revision)
    raise Conflict(
        f"the rollout of {name[0]}/{name[1]} goes on faster than it can be steered",
        hint="try again in a moment",
    )


def _ordered(context: Context, scene: Scene, request: api.RolloutRequest) -> WorkloadRecord:
    """The workload with what the verb asks for; the same record when there is nothing to ask."""
    changed = ORDERS[request.verb](scene, request)
    if changed is scene.workload:
        return changed
    return changed.replaced(updated_at=context.clock.now())


async def _scene(context: Context, namespace: str, name: str, version: int | None) -> Scene:
    """The workload with its rollout, once nothing that was asked before is left to take up."""
    woken = asyncio.Event()

    def notice(_: Changes) -> None:
        woken.set()

    deadline_s = context.clock.monotonic() + TAKE_UP_S
    with context.cache.subscribed(notice):
        while True:
            woken.clear()
            record = await existing(context, namespace, name, version)
            check_version(record, version)
            refuse_deleted(record)
            cluster = context.cache.cluster
            view = view_workload(cluster, record.id, context.clock.now())
            rollout = view.status.rollout if view.status is not None else None
            if rollout is not None and view.rollout is not None and not view.rollout.pending:
                return Scene(record, rollout, dict(cluster.revisions.get(record.id, {})))
            left_s = deadline_s - context.clock.monotonic()
            try:
                async with asyncio.timeout(max(left_s, 0)):
                    await woken.wait()
            except TimeoutError:
                raise Unavailable(
                    "the coordinator has not yet taken up the last change of the workload",
                    hint="try again in a moment",
                ) from None


async def get_rollout(context: Context, request: api.GetRolloutRequest) -> api.GetRolloutResponse:
    """One revision with its rollout and journal; raises ``NotFound`` for one that is not kept."""
    if request.revision < 0:
        raise Invalid.field("revision", "must be the number of a revision, or 0 for the newest")
    cluster = context.cache.cluster
    record = find_workload(cluster, request.namespace, request.name)
    kept = {revision.number: revision for revision in revisions_of(cluster, record)}
    number = request.revision or max(kept, default=0)
    if number not in kept:
        raise _no_revision(record, number, list(kept))
    view = view_workload(cluster, record.id, context.clock.now())
    rollout = view.status.rollout if view.status is not None else None
    shown = None
    if rollout is not None and rollout.revision == number:
        shown = rollout_to_wire(rollout, record.spec.rollout, view.rollout)
    journal = await read_journal(context.typed, record.id, number)
    return api.GetRolloutResponse(revision=kept[number], rollout=shown, journal=journal_to_wire(journal))


def _no_revision(record: WorkloadRecord, number: int, kept: list[int]) -> NotFound:
    where = f"workload {record.namespace}/{record.name}"
    if not kept:
        return NotFound(f"{where} has no revision yet", hint="try again in a moment")
    shown = ", ".join(str(one) for one in kept)
    return NotFound(f"{where} has no revision {number}; kept are {shown}", hint="name one of these")
