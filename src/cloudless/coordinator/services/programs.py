"""Exec and Attach: a replica is chosen, and its node talks with the caller through us.

Nothing is kept here but one message each way: flow control goes from end to end. When
the caller goes, so does the call to the node, and the node ends the program.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing
from dataclasses import replace
from typing import Any

from grpclib.const import Cardinality

from cloudless import api
from cloudless.aio.supervise import Supervisor
from cloudless.coordinator.limits import EXEC_START_S, MAX_EXECS, MAX_EXECS_OF_CALLER
from cloudless.coordinator.services.context import Context
from cloudless.coordinator.services.executing import choose, exec_command
from cloudless.coordinator.services.lookup import find_replicas, find_workload
from cloudless.coordinator.services.quota import Quota, current_caller
from cloudless.domain.errors import DeadlineExceeded, Invalid, Unavailable
from cloudless.planning.status import ReplicaView, view_workload
from cloudless.transport.bidi import received, send_all
from cloudless.transport.context import CALLER_KEY, be_patient, watch_peer
from cloudless.wire.mirror import refuse_unknown

ROUTE = "/cloudless.api.AgentService/"


class Programs:
    """All programs that run for callers of one coordinator."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._quota = Quota("programs", of_caller=MAX_EXECS_OF_CALLER, in_all=MAX_EXECS)

    async def command(self, request: api.ExecCommandRequest) -> api.ExecCommandResponse:
        """The buffered form; see ``executing``."""
        with self._quota.slot(current_caller()):
            return await exec_command(self._context, request)

    async def exec(self, messages: AsyncIterator[api.ExecRequest]) -> AsyncGenerator[api.ExecResponse, None]:
        """Run a program; close it with ``aclosing``.

        Raises ``NotFound``, ``PreconditionFailed`` (no replica runs), ``Exhausted``,
        ``Unavailable`` (its node is away, or went away), and what the node refuses.
        """
        first = await _first(messages)
        if first.start is None:
            raise Invalid.field("start", "is required in the first message")
        asked = first.start
        view = self._choose(asked, "start")
        start = replace(asked, namespace="", name="", replica="", container_id=_container_of(view))
        async with aclosing(self._carry("Exec", view, api.ExecRequest(start=start), messages)) as replies:
            async for reply in replies:
                yield reply

    async def attach(
        self, messages: AsyncIterator[api.ExecRequest]
    ) -> AsyncGenerator[api.ExecResponse, None]:
        """Join a replica's own program; close it with ``aclosing``. Raises as ``exec``."""
        first = await _first(messages)
        if first.attach is None:
            raise Invalid.field("attach", "is required in the first message")
        asked = first.attach
        view = self._choose(asked, "attach")
        attach = replace(asked, namespace="", name="", replica="", container_id=_container_of(view))
        async with aclosing(self._carry("Attach", view, api.ExecRequest(attach=attach), messages)) as replies:
            async for reply in replies:
                yield reply

    def _choose(self, asked: api.ExecStart | api.AttachStart, field: str) -> ReplicaView:
        if asked.container_id:
            raise Invalid.field(
                f"{field}.container_id", "is for a node's own address; here, name the workload"
            )
        context, cluster = self._context, self._context.cache.cluster
        workload = find_workload(cluster, asked.namespace, asked.name)
        wanted = {record.id for record in find_replicas(cluster, workload, asked.replica)}
        views = view_workload(cluster, workload.id, context.clock.now()).replicas
        return choose(workload, [view for view in views if view.record.id in wanted], asked.replica)

    async def _carry(
        self,
        method: str,
        view: ReplicaView,
        first: api.ExecRequest,
        messages: AsyncIterator[api.ExecRequest],
    ) -> AsyncGenerator[api.ExecResponse, None]:
        """Between the caller and the node, until the node is done."""
        be_patient()
        watch_peer()
        async with AsyncExitStack() as stack:
            caller = current_caller()
            stack.enter_context(self._quota.slot(caller))
            channel = await self._context.nodes.bulk(view.record.node_id, view.node_name)
            call: Any = channel.request(
                ROUTE + method,
                Cardinality.STREAM_STREAM,
                api.ExecRequest,
                api.ExecResponse,
                # What is detached outlives the slot here: its node counts it.
                metadata={CALLER_KEY: caller},
            )
            await stack.enter_async_context(call)
            await call.send_request()
            call.be_patient()
            stop = Unavailable("the coordinator is stopping", hint="connect again")
            stack.enter_context(self._context.closing.waking(lambda: call.fail(stop)))
            self._context.closing.check()
            tasks = await stack.enter_async_context(Supervisor("exec"))
            tasks.start("requests", send_all(call, _requests(first, messages)))
            async for reply in call:
                if reply.started is not None:
                    reply.started.replica = f"{view.record.name}/{view.record.ordinal}"
                    reply.started.node = view.node_name
                yield reply


async def _first(messages: AsyncIterator[api.ExecRequest]) -> api.ExecRequest:
    try:
        async with asyncio.timeout(EXEC_START_S):
            message = await anext(messages, None)
    except TimeoutError:
        raise DeadlineExceeded(f"nothing was asked for within {EXEC_START_S:g} s") from None
    if message is None:
        raise Invalid("the first message, which says what is wanted, did not come")
    refuse_unknown(message)
    return message


async def _requests(
    first: api.ExecRequest, messages: AsyncIterator[api.ExecRequest]
) -> AsyncGenerator[api.ExecRequest, None]:
    yield first
    async with aclosing(received(messages)) as rest:
        async for message in rest:
            refuse_unknown(message)
            yield message


def _container_of(view: ReplicaView) -> str:
    assert view.observation is not None, "a replica that runs was observed"
    return view.observation.container_id
