"""ListExecs and KillExec: nodes are asked what runs there by exec; nothing of it is stored.

A node that does not answer is named in the list, and is why a program that is not found
may be there all the same.
"""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Iterable

from cloudless import api
from cloudless.coordinator.limits import (
    EXEC_MARGIN_S,
    EXECS_ASKED_AT_ONCE,
    EXECS_ASKED_S,
    KILL_GRACE_S,
    MAX_KILL_GRACE_S,
    MAX_PAGE_BYTES,
)
from cloudless.coordinator.services import fields
from cloudless.coordinator.services.context import Context
from cloudless.coordinator.services.lookup import find_replicas, find_workload
from cloudless.domain.cluster import Cluster
from cloudless.domain.errors import CloudlessError, Invalid, NotFound, Unavailable
from cloudless.domain.replica import ReplicaRecord
from cloudless.transport.codec import encode

_ELSEWHERE = "is for a node's own address; here, name the workload"
_EPOCH = datetime.datetime.fromtimestamp(0, datetime.UTC)


async def list_execs(context: Context, request: api.ListExecsRequest) -> api.ListExecsResponse:
    """What runs by exec in the replicas that are meant. Raises ``Invalid``, ``NotFound``."""
    if request.container_id:
        raise Invalid.field("container_id", _ELSEWHERE)
    if request.replica and not request.name:
        raise Invalid.field("name", "is required when a replica is named")
    found = await _ask(context, _replicas(context.cache.cluster, request))
    shown = api.ListExecsResponse(failures=found.failures, truncated=found.truncated)
    left_bytes = MAX_PAGE_BYTES - len(encode(shown))
    for one in found.execs:
        left_bytes -= len(encode(one)) + 4
        if left_bytes < 0:
            shown.truncated = True
            break
        shown.execs.append(one)
    return shown


async def kill_exec(context: Context, request: api.KillExecRequest) -> api.KillExecResponse:
    """End one of them, or signal it.

    Raises ``Invalid``, ``NotFound``, ``Unavailable`` (its node is away, or nobody that answers has
    it), and what the node says.
    """
    if request.container_id:
        raise Invalid.field("container_id", _ELSEWHERE)
    if not request.exec_id:
        raise Invalid.field("exec_id", "is required: the id of a program, or its first letters")
    grace = fields.duration_of(request.grace_period, "grace_period")
    if grace is not None and not 0 <= grace.total_seconds() <= MAX_KILL_GRACE_S:
        raise Invalid.field("grace_period", f"must be from 0 to {MAX_KILL_GRACE_S:g} seconds")
    cluster = context.cache.cluster
    workload = find_workload(cluster, request.namespace, request.name)
    replicas = find_replicas(cluster, workload, request.replica)
    where = f"workload {workload.namespace}/{workload.name}"
    meant = _meant(await _ask(context, replicas), request.exec_id, where)
    node_id = cluster.replicas[meant.replica_id].node_id
    stub = api.AgentServiceStub(await context.nodes.bulk(node_id, meant.node))
    await stub.kill_exec(
        api.KillExecRequest(
            container_id=meant.container_id,
            exec_id=meant.exec_id,
            signal=request.signal,
            grace_period=request.grace_period,
        ),
        timeout=(KILL_GRACE_S if grace is None else grace.total_seconds()) + EXEC_MARGIN_S,
    )
    return api.KillExecResponse(exec=meant)


def _replicas(cluster: Cluster, request: api.ListExecsRequest) -> list[ReplicaRecord]:
    if request.name:
        workload = find_workload(cluster, request.namespace, request.name)
        return find_replicas(cluster, workload, request.replica)
    namespace = fields.any_namespace_of(request.namespace)
    return [one for one in cluster.replicas.values() if not namespace or one.namespace == namespace]


async def _ask(context: Context, replicas: Iterable[ReplicaRecord]) -> api.ListExecsResponse:
    """What all nodes say that hold these replicas, in order; their failures beside it."""
    wanted = {one.id: one for one in replicas if one.node_id}
    places = asyncio.Semaphore(EXECS_ASKED_AT_ONCE)
    async with asyncio.TaskGroup() as group:
        asked = [
            group.create_task(_ask_node(context, node_id, places), name=f"execs of {node_id}")
            for node_id in sorted({one.node_id for one in wanted.values()})
        ]
    everything = api.ListExecsResponse()
    for task in asked:
        answer = task.result()
        everything.failures += answer.failures
        everything.truncated = everything.truncated or answer.truncated
        for one in answer.execs:
            record = wanted.get(one.replica_id)
            if record is None:
                continue
            one.namespace, one.replica = record.namespace, f"{record.name}/{record.ordinal}"
            everything.execs.append(one)
    everything.execs.sort(
        key=lambda one: (
            one.namespace,
            wanted[one.replica_id].name,
            wanted[one.replica_id].ordinal,
            one.started_at or _EPOCH,
            one.exec_id,
        )
    )
    return everything


async def _ask_node(context: Context, node_id: str, places: asyncio.Semaphore) -> api.ListExecsResponse:
    record = context.cache.cluster.nodes.get(node_id)
    name = record.name if record is not None else node_id
    try:
        async with places:
            stub = api.AgentServiceStub(await context.nodes.bulk(node_id, name))
            answer = await stub.list_execs(api.ListExecsRequest(), timeout=EXECS_ASKED_S)
    except CloudlessError as error:
        return api.ListExecsResponse(failures=[api.NodeFailure(node=name, message=error.message)])
    for one in answer.execs:
        one.node = name
    return answer


def _meant(found: api.ListExecsResponse, exec_id: str, where: str) -> api.Exec:
    """The one whose id begins so; a whole id is never taken for the beginning of another."""
    fitting = [one for one in found.execs if one.exec_id.startswith(exec_id)]
    exact = [one for one in fitting if one.exec_id == exec_id]
    if len(exact or fitting) == 1:
        return (exact or fitting)[0]
    if fitting:
        shown = ", ".join(f"{one.exec_id} in {one.replica}" for one in (exact or fitting)[:4])
        raise Invalid.field("exec_id", f"{exec_id[:80]!r} means several: {shown}")
    missing = f"no program {exec_id[:80]!r} runs in {where}"
    if found.failures:
        why = "; ".join(f"{one.node}: {one.message}" for one in found.failures[:4])
        raise Unavailable(f"{missing} on the nodes that answer ({why})", hint="try again when all are back")
    raise NotFound(missing, hint="list the programs that run; it may have ended")
