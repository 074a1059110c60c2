"""How a changed workload is written: one transaction with the answer to its request_id.

``create``, ``update``, ``scale`` and ``delete`` say what changes; this module reads, checks
versions, writes, and settles conflicts. An answer is given after the write is durable,
and when this coordinator's cache has seen it, so that the next read shows it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from cloudless import api
from cloudless.coordinator.limits import UPDATE_ATTEMPTS
from cloudless.coordinator.services.context import Context
from cloudless.coordinator.services.idempotency import Ticket, answer_of, first_answer, keep_answer
from cloudless.coordinator.services.publishing import refuse_published_elsewhere
from cloudless.coordinator.services.views import with_version
from cloudless.coordinator.state import keys
from cloudless.coordinator.state.records import RequestRecord
from cloudless.coordinator.state.snapshots import part_of
from cloudless.coordinator.state.typed import OutcomeUnknown
from cloudless.domain.cluster import Cluster
from cloudless.domain.errors import Conflict, NotFound, PreconditionFailed, Unavailable
from cloudless.domain.workload import WorkloadRecord
from cloudless.planning.rehearsal import Rehearsal
from cloudless.planning.status import view_workload
from cloudless.store.port import KeyValue, Put, TxnResult
from cloudless.wire.objects import workload_to_wire
from cloudless.wire.rollouts import steps_to_wire

#: What a request makes of a workload; the same record means that nothing changes.
Alter = Callable[[WorkloadRecord], WorkloadRecord]


class Guard(NamedTuple):
    """A key beside the workload's own that must not have changed since ``revision``."""

    key: str
    revision: int


class Raced(Conflict):
    """Somebody wrote first; ``current`` is what is there now, ``revision`` the newest write found."""

    def __init__(self, current: WorkloadRecord | None, revision: int = 0) -> None:
        super().__init__("the workload changed meanwhile")
        self.current = current
        self.revision = revision


async def change(
    context: Context,
    namespace: str,
    name: str,
    alter: Alter,
    *,
    version: int | None,
    ticket: Ticket | None,
) -> bytes:
    """Change a workload that exists; answers it, encoded.

    Raises ``NotFound``, ``Conflict`` when ``version`` is not the stored one, and whatever
    ``alter`` raises.
    """
    replayed = await first_answer(context, ticket)
    if replayed is not None:
        return replayed
    current = await existing(context, namespace, name, version)
    for _ in range(UPDATE_ATTEMPTS):
        check_version(current, version)
        try:
            return await write(context, alter(current), current, ticket)
        except Raced as race:
            if race.current is None:
                raise not_found(namespace, name) from None
            current = race.current
    raise Conflict(
        f"workload {namespace}/{name} is changed by others all the time", hint="try again in a moment"
    )


async def existing(context: Context, namespace: str, name: str, version: int | None) -> WorkloadRecord:
    """The workload of that name; waits for the cache when ``version`` is newer than it."""
    if version is not None and version > context.cache.revision:
        await context.cache.wait_for(version)
    record = context.cache.cluster.workload_named(namespace, name)
    if record is None:
        raise not_found(namespace, name)
    return record


def not_found(namespace: str, name: str) -> NotFound:
    """The error for a workload that is not there."""
    return NotFound(
        f"workload {namespace}/{name} does not exist",
        hint="list the workloads of the namespace, or name another namespace",
    )


def refuse_deleted(current: WorkloadRecord) -> None:
    """Raise ``PreconditionFailed`` for a workload that is on its way out."""
    if current.deleted_at is not None:
        raise PreconditionFailed(
            f"workload {current.namespace}/{current.name} is being deleted since "
            f"{current.deleted_at:%H:%M:%S} UTC",
            hint="wait until it is gone and create it again",
        )


def check_version(current: WorkloadRecord, version: int | None) -> None:
    """Raise ``Conflict`` unless ``version`` is the stored one (or not given)."""
    if version is not None and version != current.resource_version:
        raise Conflict(
            f"workload {current.namespace}/{current.name} is at version {current.resource_version}, "
            f"not {version}: it changed meanwhile",
            hint="read it again, apply the change to what is there now, and retry",
        )


async def write(
    context: Context,
    record: WorkloadRecord,
    current: WorkloadRecord | None,
    ticket: Ticket | None,
    guard: Guard | None = None,
) -> bytes:
    """Write ``record`` in the place of ``current`` (None: it is new); answers it, encoded.

    Raises ``Raced`` when ``current``, or what ``guard`` is about, is no longer what is
    stored; ``PublishedElsewhere``.
    """
    changed = record is not current
    if current is None or current.spec.ports != record.spec.ports:
        refuse_published_elsewhere(context.cache.cluster, record)
    encoded = context.views.encode_without_version(_with(context, record), record.id)
    if not changed and ticket is None:
        return with_version(encoded, record.resource_version)
    batch = context.typed.batch()
    key = keys.workload(record.namespace, record.name)
    batch.expect(key, 0 if current is None else current.resource_version)
    batch.else_read(key)
    if guard is not None:
        batch.expect(guard.key, guard.revision)
        batch.else_read(guard.key)
    if changed:
        batch.put(key, record)
    if ticket is not None:
        keep_answer(batch, context, ticket, encoded, 0 if changed else record.resource_version)
        batch.else_read(keys.request(ticket.request_id))
    try:
        result = await context.typed.commit(batch)
    except OutcomeUnknown:
        revision = await _happened(context, key, batch.ops[0])
        if revision is None:
            raise
        result = TxnResult(True, revision)
    if not result.succeeded:
        return _lost_race(context, key, result, ticket)
    await context.cache.wait_for(result.revision)
    return with_version(encoded, result.revision if changed else record.resource_version)


async def dry_run(context: Context, record: WorkloadRecord) -> tuple[api.Workload, list[api.PlannedStep]]:
    """The workload as it would be, and what would be done to the end; on a copy, with no effect."""
    now = context.clock.now()
    refuse_published_elsewhere(context.cache.cluster, record)
    cluster = context.cache.cluster.copy()
    cluster.put_workload(record)
    workload = workload_to_wire(record, view_workload(cluster, record.id, now))
    rehearsal = Rehearsal(cluster, record.id, now, context.new_id)
    more = True
    while more:
        more = rehearsal.play()
        await asyncio.sleep(0)  # a long rehearsal keeps nobody waiting
    return workload, steps_to_wire(rehearsal.steps)


def _with(context: Context, record: WorkloadRecord) -> Cluster:
    part = part_of(context.cache.cluster, record.id)
    part.put_workload(record)
    return part


def _lost_race(context: Context, key: str, result: TxnResult, ticket: Ticket | None) -> bytes:
    """A compare failed: a repetition that overtook us, or somebody else's change of ``key`` or the guard."""
    found = [response for response in result.responses if isinstance(response, KeyValue)]
    for kv in found:
        if ticket is not None and kv.key == keys.request(ticket.request_id):
            answer, revision = context.typed.read(RequestRecord, kv)
            return answer_of(answer, revision, ticket)
    newest = max((kv.mod_revision for kv in found), default=0)
    for kv in found:
        if kv.key == key:
            stored, revision = context.typed.read(WorkloadRecord, kv)
            raise Raced(stored.replaced(resource_version=revision), newest)
    raise Raced(None, newest)


async def _happened(context: Context, key: str, op: object) -> int | None:
    """The revision at which our write happened after all; None when nobody can tell.

    The bytes hold ids and times of this request alone: whoever finds them found our write.
    """
    try:
        kv = await context.typed.get_raw(key)
    except Unavailable:
        return None
    if isinstance(op, Put) and op.key == key and kv is not None and kv.value == op.value:
        return kv.mod_revision
    return None
