"""ExecCommand: a replica of the workload is chosen, and its node runs the command."""

from __future__ import annotations

import datetime

from cloudless import api
from cloudless.coordinator.limits import (
    EXEC_MARGIN_S,
    EXEC_OUTPUT_BYTES,
    EXEC_TIMEOUT,
    MAX_EXEC_OUTPUT_BYTES,
    MAX_EXEC_TIMEOUT,
)
from cloudless.coordinator.services import fields
from cloudless.coordinator.services.context import Context
from cloudless.coordinator.services.lookup import find_replicas, find_workload
from cloudless.domain.errors import Invalid, PreconditionFailed
from cloudless.domain.replica import ReplicaPhase
from cloudless.domain.workload import WorkloadRecord
from cloudless.planning.status import ReplicaView, view_workload


async def exec_command(context: Context, request: api.ExecCommandRequest) -> api.ExecCommandResponse:
    """Run a command in a ready replica, or in the one that is named.

    Raises ``PreconditionFailed`` when none runs, ``Unavailable`` when its node is away.
    """
    if request.container_id:
        raise Invalid.field("container_id", "is for a node's own address; here, name the workload")
    if not request.command or not request.command[0]:
        raise Invalid.field("command", "is required: the program and its arguments")
    timeout = _timeout(request.timeout)
    limit_bytes = request.output_limit_bytes
    if not 0 <= limit_bytes <= MAX_EXEC_OUTPUT_BYTES:
        raise Invalid.field("output_limit_bytes", f"must be from 1 to {MAX_EXEC_OUTPUT_BYTES}")
    cluster = context.cache.cluster
    workload = find_workload(cluster, request.namespace, request.name)
    wanted = {record.id for record in find_replicas(cluster, workload, request.replica)}
    views = view_workload(cluster, workload.id, context.clock.now()).replicas
    view = choose(workload, [view for view in views if view.record.id in wanted], request.replica)
    assert view.observation is not None
    stub = api.AgentServiceStub(await context.nodes.bulk(view.record.node_id, view.node_name))
    response = await stub.exec_command(
        api.ExecCommandRequest(
            container_id=view.observation.container_id,
            command=list(request.command),
            env=dict(request.env),
            working_dir=request.working_dir,
            user=request.user,
            timeout=timeout,
            output_limit_bytes=limit_bytes or EXEC_OUTPUT_BYTES,
            stdin=request.stdin,
        ),
        timeout=timeout.total_seconds() + EXEC_MARGIN_S,
    )
    response.replica = f"{view.record.name}/{view.record.ordinal}"
    return response


def _timeout(value: datetime.timedelta | None) -> datetime.timedelta:
    given = fields.duration_of(value, "timeout")
    if given is None:
        return EXEC_TIMEOUT
    if not datetime.timedelta(0) < given <= MAX_EXEC_TIMEOUT:
        raise Invalid.field("timeout", "must be above 0 and at most one hour")
    return given


def choose(workload: WorkloadRecord, views: list[ReplicaView], named: str) -> ReplicaView:
    """A ready replica, or else one that runs; of several, the lowest ordinal."""
    running = [
        view
        for view in views
        if view.phase is ReplicaPhase.RUNNING
        and view.observation is not None
        and view.observation.container_id
    ]
    if running:
        return min(running, key=lambda view: (not view.ready, not view.record.run, view.record.ordinal))
    what = f"replica {named} of workload" if named else "no replica of workload"
    state = ", ".join(
        sorted(f"{view.record.name}/{view.record.ordinal} is {view.phase.words}" for view in views)[:4]
    )
    raise PreconditionFailed(
        f"{what} {workload.namespace}/{workload.name} is {'not running' if named else 'running'}"
        + (f": {state}" if state else ""),
        hint="wait until it runs, or look at its logs",
    )
