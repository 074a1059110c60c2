"""CreateWorkload."""

from __future__ import annotations

from cloudless import api
from cloudless.coordinator.services import fields
from cloudless.coordinator.services.context import Context
from cloudless.coordinator.services.idempotency import first_answer, ticket_of
from cloudless.coordinator.services.writing import Raced, dry_run, write
from cloudless.domain.errors import AlreadyExists
from cloudless.domain.workload import WorkloadRecord
from cloudless.transport.codec import Encoded


async def create_workload(context: Context, request: api.CreateWorkloadRequest) -> api.CreateWorkloadResponse:
    """Record a new workload; raises ``AlreadyExists``, ``Invalid``."""
    namespace, name = fields.namespace_of(request.namespace), fields.name_of(request.name)
    now = context.clock.now()
    record = WorkloadRecord.model_construct(
        id=context.new_id(),
        namespace=namespace,
        name=name,
        spec=fields.with_passwords(fields.spec_of(request.spec), None),
        labels=fields.labels_of(request.labels),
        annotations=fields.annotations_of(request.annotations),
        generation=1,
        created_at=now,
        updated_at=now,
        author=fields.author_of(request.author),
        message=fields.message_of(request.message),
    )
    ticket = ticket_of("CreateWorkload", request)
    if request.dry_run:
        there = context.cache.cluster.workload_named(namespace, name)
        if there is not None:
            raise _exists(there)
        workload, plan = await dry_run(context, record)
        return api.CreateWorkloadResponse(workload=workload, plan=plan)
    encoded = await first_answer(context, ticket)
    if encoded is None:
        try:
            encoded = await write(context, record, None, ticket)
        except Raced as race:
            raise _exists(race.current) from None
    return api.CreateWorkloadResponse(workload=Encoded(encoded, api.Workload))  # type: ignore[arg-type]


def _exists(there: WorkloadRecord | None) -> AlreadyExists:
    if there is None:
        return AlreadyExists("a workload of this name was removed at this very moment", hint="try again")
    where = f"{there.namespace}/{there.name}"
    if there.deleted_at is not None:
        return AlreadyExists(
            f"workload {where} is being deleted since {there.deleted_at:%H:%M:%S} UTC; "
            "its replicas are not all gone yet",
            hint="wait until it is gone (delete with --wait), or choose another name",
        )
    return AlreadyExists(f"workload {where} exists already", hint="update it, or choose another name")
