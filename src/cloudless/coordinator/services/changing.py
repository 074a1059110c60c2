"""UpdateWorkload, ScaleWorkload and DeleteWorkload."""

from __future__ import annotations

from collections.abc import Sequence

from cloudless import api
from cloudless.coordinator.services import fields
from cloudless.coordinator.services.context import Context
from cloudless.coordinator.services.idempotency import ticket_of
from cloudless.coordinator.services.masks import Mask, masked_spec
from cloudless.coordinator.services.writing import (
    Alter,
    change,
    check_version,
    dry_run,
    existing,
    refuse_deleted,
)
from cloudless.domain.errors import Invalid
from cloudless.domain.workload import WorkloadRecord, WorkloadSpec
from cloudless.transport.codec import Encoded


async def update_workload(context: Context, request: api.UpdateWorkloadRequest) -> api.UpdateWorkloadResponse:
    """Replace the specification, or what the mask names; raises ``Invalid``, ``Conflict``."""
    mask = Mask.of(request.update_mask)
    message, author = fields.message_of(request.message), fields.author_of(request.author)
    labels = fields.labels_of(request.labels)
    annotations = fields.annotations_of(request.annotations)
    spec = fields.spec_of(request.spec) if mask.whole_spec else None
    masked_paths = mask.spec_paths

    def alter(current: WorkloadRecord) -> WorkloadRecord:
        refuse_deleted(current)
        new = spec if spec is not None else current.spec
        if masked_paths:
            new = _masked(current, request, masked_paths)
        new = fields.with_passwords(new, current.spec)
        changed = current.replaced(
            spec=new,
            labels=labels if mask.names("labels") or (mask.empty and labels) else current.labels,
            annotations=annotations
            if mask.names("annotations") or (mask.empty and annotations)
            else current.annotations,
        )
        if changed == current:
            return current
        if new != current.spec:
            changed = changed.replaced(generation=current.generation + 1, restores=0)
        if new.template_hash != current.spec.template_hash:
            changed = changed.replaced(author=author)  # who only scales has not made the revision
        return changed.replaced(updated_at=context.clock.now(), message=message)

    workload, plan = await _run(context, request, "UpdateWorkload", alter)
    return api.UpdateWorkloadResponse(workload=workload, plan=plan)


async def scale_workload(context: Context, request: api.ScaleWorkloadRequest) -> api.ScaleWorkloadResponse:
    """Change the number of replicas; raises ``Invalid``, ``Conflict``."""
    replicas = fields.replicas_of(request.replicas)

    def alter(current: WorkloadRecord) -> WorkloadRecord:
        refuse_deleted(current)
        if current.spec.replicas == replicas:
            return current
        wrong = current.spec.rollout.contradiction(replicas)
        if wrong:
            raise Invalid.field(
                "replicas",
                f"{replicas} are too few: rollout.min_available {wrong}",
                hint="change spec.rollout first (min_available, max_surge); 0 replicas are always allowed",
            )
        return current.replaced(
            spec=current.spec.replaced(replicas=replicas),
            generation=current.generation + 1,
            updated_at=context.clock.now(),
        )

    workload, plan = await _run(context, request, "ScaleWorkload", alter)
    return api.ScaleWorkloadResponse(workload=workload, plan=plan)


async def delete_workload(context: Context, request: api.DeleteWorkloadRequest) -> api.DeleteWorkloadResponse:
    """Ask for a workload's end; a second time it may only make it sooner."""
    grace = fields.duration_of(request.grace_period, "grace_period")

    def alter(current: WorkloadRecord) -> WorkloadRecord:
        now = context.clock.now()
        if current.deleted_at is None:
            return current.replaced(deleted_at=now, delete_grace=grace, updated_at=now)
        pending = current.delete_grace if current.delete_grace is not None else current.spec.stop_grace_period
        if grace is None or grace >= pending:
            return current
        return current.replaced(delete_grace=grace, updated_at=now)

    workload, _ = await _run(context, request, "DeleteWorkload", alter)
    return api.DeleteWorkloadResponse(workload=workload)


def _masked(
    current: WorkloadRecord, request: api.UpdateWorkloadRequest, paths: Sequence[tuple[str, ...]]
) -> WorkloadSpec:
    """The specification with what the mask names; what it had wrong before is no matter of a mask."""
    new = fields.sized(masked_spec(current.spec, request.spec, paths))
    return new if new == current.spec else fields.without_contradiction(new)


async def _run(
    context: Context,
    request: api.UpdateWorkloadRequest | api.ScaleWorkloadRequest | api.DeleteWorkloadRequest,
    method: str,
    alter: Alter,
) -> tuple[api.Workload, list[api.PlannedStep]]:
    namespace, name = fields.namespace_of(request.namespace), fields.name_of(request.name)
    version = fields.version_of(request.resource_version)
    ticket = ticket_of(method, request)
    if request.dry_run:
        current = await existing(context, namespace, name, version)
        check_version(current, version)
        return await dry_run(context, alter(current))
    encoded = await change(context, namespace, name, alter, version=version, ticket=ticket)
    return Encoded(encoded, api.Workload), []  # type: ignore[return-value]
