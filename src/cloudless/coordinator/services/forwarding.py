"""Forward: a ready replica is chosen for each connection, and its node carries it.

The choice is stable, so that connections made one after the other meet the same replica
as long as it is ready, and the next one when it is not. Nothing of a connection is read
before a replica has accepted it: until then another replica can be tried.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

from grpclib.const import Cardinality

from cloudless import api
from cloudless.aio.supervise import Supervisor
from cloudless.coordinator.limits import (
    FORWARD_TARGET_S,
    MAX_FORWARD_TRIES,
    MAX_FORWARDS,
    MAX_FORWARDS_OF_CALLER,
)
from cloudless.coordinator.services.context import Context
from cloudless.coordinator.services.lookup import find_replicas, find_workload
from cloudless.coordinator.services.quota import Quota, current_caller
from cloudless.domain.errors import (
    CloudlessError,
    DeadlineExceeded,
    Invalid,
    NotFound,
    PreconditionFailed,
    Unavailable,
)
from cloudless.domain.replica import UNPROBED, ReplicaPhase
from cloudless.domain.workload import WorkloadRecord
from cloudless.planning.status import ReplicaView, view_workload
from cloudless.transport.bidi import received, send_all
from cloudless.transport.context import be_patient
from cloudless.wire.mirror import refuse_unknown

ROUTE = "/cloudless.api.AgentService/Forward"


class Forwarding:
    """All forwarded connections of one coordinator."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._quota = Quota("forwarded connections", of_caller=MAX_FORWARDS_OF_CALLER, in_all=MAX_FORWARDS)

    async def forward(
        self, messages: AsyncIterator[api.ForwardRequest]
    ) -> AsyncGenerator[api.ForwardResponse, None]:
        """Carry one connection; close it with ``aclosing``.

        Raises ``NotFound``, ``PreconditionFailed`` (no replica is ready, or the port is
        closed in it), ``Exhausted``, ``Unavailable`` (its node is away, or the connection broke).
        """
        be_patient()
        target = await _first(messages)
        views = self._candidates(target)
        with self._quota.slot(current_caller()):
            async with AsyncExitStack() as stack:
                call, replies, opened = await self._open(stack, views, target.port)
                stop = Unavailable("the coordinator is stopping", hint="connect again")
                stack.enter_context(self._context.closing.waking(lambda: call.fail(stop)))
                self._context.closing.check()
                yield opened
                tasks = await stack.enter_async_context(Supervisor("forward"))
                tasks.start("requests", send_all(call, received(messages)))
                async for reply in replies:
                    yield reply

    def _candidates(self, target: api.ForwardTarget) -> list[ReplicaView]:
        """Replicas to try, the best first; never empty."""
        context, cluster = self._context, self._context.cache.cluster
        workload = find_workload(cluster, target.namespace, target.name)
        wanted = {record.id for record in find_replicas(cluster, workload, target.replica)}
        views = view_workload(cluster, workload.id, context.clock.now()).replicas
        return choose(workload, [view for view in views if view.record.id in wanted], target.replica)

    async def _open(
        self, stack: AsyncExitStack, views: list[ReplicaView], port: int
    ) -> tuple[Any, AsyncIterator[api.ForwardResponse], api.ForwardResponse]:
        """A call to a node whose replica has accepted the connection; ``stack`` ends it."""
        first: CloudlessError | None = None
        for view in views[:MAX_FORWARD_TRIES]:
            try:
                async with AsyncExitStack() as attempt:
                    opened = await self._try(attempt, view, port)
                    stack.push_async_exit(attempt.pop_all())
                    return opened
            except (NotFound, PreconditionFailed, Unavailable) as error:
                first = first or error
        assert first is not None, "there is a replica to try"
        raise first

    async def _try(
        self, stack: AsyncExitStack, view: ReplicaView, port: int
    ) -> tuple[Any, AsyncIterator[api.ForwardResponse], api.ForwardResponse]:
        assert view.observation is not None
        channel = await self._context.nodes.bulk(view.record.node_id, view.node_name)
        call: Any = channel.request(ROUTE, Cardinality.STREAM_STREAM, api.ForwardRequest, api.ForwardResponse)
        await stack.enter_async_context(call)
        await call.send_request()
        call.be_patient()
        target = api.ForwardTarget(container_id=view.observation.container_id, port=port)
        await call.send_message(api.ForwardRequest(target=target))
        replies: AsyncIterator[api.ForwardResponse] = aiter(call)
        opened = await anext(replies, None)
        if opened is None or opened.opened is None:
            await stack.aclose()  # raises what the node says
            raise Unavailable(f"node {view.node_name} did not open the connection")
        opened.opened.replica = f"{view.record.name}/{view.record.ordinal}"
        return call, replies, opened


def choose(workload: WorkloadRecord, views: list[ReplicaView], named: str) -> list[ReplicaView]:
    """Replicas in the order in which to try them: ready ones by ordinal, or the one that is named.

    Raises ``PreconditionFailed`` when there is none, and ``Unavailable`` while one has not been
    probed yet since it, or its agent, has started: who asks is to ask again.
    """
    running = [
        view
        for view in views
        if view.phase in (ReplicaPhase.RUNNING, ReplicaPhase.STOPPING)
        and view.observation is not None
        and view.observation.container_id
    ]
    fitting = running if named else [view for view in running if view.ready and view.record.run]
    if fitting:
        return sorted(
            fitting, key=lambda one: (not one.record.run, one.record.ordinal, one.record.created_at)
        )
    unprobed = [view for view in running if view.record.run and _message(view) == UNPROBED]
    if unprobed and not named:
        name = f"{unprobed[0].record.name}/{unprobed[0].record.ordinal}"
        raise Unavailable(f"{name} {UNPROBED}", hint="try again in a moment")
    states = ", ".join(
        f"{view.record.name}/{view.record.ordinal} is {_state(view)}"
        for view in sorted(views, key=lambda one: one.record.ordinal)[:4]
    )
    of_workload = f"workload {workload.namespace}/{workload.name}"
    what = (
        f"replica {named} of {of_workload} does not run" if named else f"no replica of {of_workload} is ready"
    )
    hint = "wait until it runs" if named else "wait until one is, or name one that is not with --replica"
    raise PreconditionFailed(f"{what}: {states}" if states else what, hint=hint)


def _message(view: ReplicaView) -> str:
    return view.observation.message if view.observation is not None else ""


def _state(view: ReplicaView) -> str:
    if view.phase is ReplicaPhase.RUNNING and not view.ready:
        return "running but not ready"
    return view.phase.words


async def _first(messages: AsyncIterator[api.ForwardRequest]) -> api.ForwardTarget:
    """The target, from the first message; raises ``Invalid``."""
    try:
        async with asyncio.timeout(FORWARD_TARGET_S):
            message = await anext(messages, None)
    except TimeoutError:
        raise DeadlineExceeded(f"no target was named within {FORWARD_TARGET_S:g} s") from None
    if message is None or message.target is None:
        raise Invalid.field("target", "is required in the first message")
    refuse_unknown(message)
    target = message.target
    if message.data or message.end:
        raise Invalid.field("data", "must come after the first message")
    if target.container_id:
        raise Invalid.field("target.container_id", "is for a node's own address; here, name the workload")
    if not 0 < target.port < 65536:
        raise Invalid.field("target.port", "must be between 1 and 65535")
    return target
