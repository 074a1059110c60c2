"""``CoordinatorService``: every RPC of the coordinator, each in a line.

A request with a field that this version does not know is refused before its handler
sees it. What handlers raise becomes a status in the transport.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

from cloudless import api
from cloudless.coordinator.services import (
    changing,
    creating,
    execs,
    happenings,
    machines,
    reading,
    rolling,
    watching,
)
from cloudless.coordinator.services.context import Context
from cloudless.coordinator.services.forwarding import Forwarding
from cloudless.coordinator.services.logstream import LogStreams
from cloudless.coordinator.services.programs import Programs
from cloudless.transport.codec import Encoded
from cloudless.wire.mirror import refuse_unknown


class CoordinatorService(api.CoordinatorServiceBase):
    """The handlers, over one context."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._forwarding = Forwarding(context)
        self._programs = Programs(context)
        self._logs = LogStreams(context)

    async def create_workload(self, message: api.CreateWorkloadRequest) -> api.CreateWorkloadResponse:
        refuse_unknown(message)
        return await creating.create_workload(self._context, message)

    async def update_workload(self, message: api.UpdateWorkloadRequest) -> api.UpdateWorkloadResponse:
        refuse_unknown(message)
        return await changing.update_workload(self._context, message)

    async def delete_workload(self, message: api.DeleteWorkloadRequest) -> api.DeleteWorkloadResponse:
        refuse_unknown(message)
        return await changing.delete_workload(self._context, message)

    async def scale_workload(self, message: api.ScaleWorkloadRequest) -> api.ScaleWorkloadResponse:
        refuse_unknown(message)
        return await changing.scale_workload(self._context, message)

    async def get_workload(self, message: api.GetWorkloadRequest) -> api.GetWorkloadResponse:
        refuse_unknown(message)
        return await reading.get_workload(self._context, message)

    async def list_workloads(  # type: ignore[override]
        self, message: api.ListWorkloadsRequest
    ) -> Encoded:
        refuse_unknown(message)
        return await reading.list_workloads(self._context, message)

    async def watch_workloads(
        self, message: api.WatchWorkloadsRequest
    ) -> AsyncIterator[api.WatchWorkloadsResponse]:
        refuse_unknown(message)
        async with aclosing(watching.watch_workloads(self._context, message)) as responses:
            async for response in responses:
                yield response

    async def list_replicas(self, message: api.ListReplicasRequest) -> api.ListReplicasResponse:
        refuse_unknown(message)
        return await reading.list_replicas(self._context, message)

    async def get_node(self, message: api.GetNodeRequest) -> api.GetNodeResponse:
        refuse_unknown(message)
        return await machines.get_node(self._context, message)

    async def list_nodes(self, message: api.ListNodesRequest) -> api.ListNodesResponse:
        refuse_unknown(message)
        return await machines.list_nodes(self._context, message)

    async def list_events(self, message: api.ListEventsRequest) -> api.ListEventsResponse:
        refuse_unknown(message)
        return await happenings.list_events(self._context, message)

    async def watch_events(self, message: api.WatchEventsRequest) -> AsyncIterator[api.WatchEventsResponse]:
        refuse_unknown(message)
        async with aclosing(happenings.watch_events(self._context, message)) as responses:
            async for response in responses:
                yield response

    async def rollout(self, message: api.RolloutRequest) -> api.RolloutResponse:
        refuse_unknown(message)
        return await rolling.steer_rollout(self._context, message)

    async def get_rollout(self, message: api.GetRolloutRequest) -> api.GetRolloutResponse:
        refuse_unknown(message)
        return await rolling.get_rollout(self._context, message)

    async def list_revisions(self, message: api.ListRevisionsRequest) -> api.ListRevisionsResponse:
        refuse_unknown(message)
        return await reading.list_revisions(self._context, message)

    async def stream_logs(self, message: api.StreamLogsRequest) -> AsyncIterator[api.LogBatch]:
        refuse_unknown(message)
        async with aclosing(self._logs.stream(message)) as batches:
            async for batch in batches:
                yield batch

    async def exec_command(self, message: api.ExecCommandRequest) -> api.ExecCommandResponse:
        refuse_unknown(message)
        return await self._programs.command(message)

    async def exec(self, messages: AsyncIterator[api.ExecRequest]) -> AsyncIterator[api.ExecResponse]:
        async with aclosing(self._programs.exec(messages)) as replies:
            async for reply in replies:
                yield reply

    async def attach(self, messages: AsyncIterator[api.ExecRequest]) -> AsyncIterator[api.ExecResponse]:
        async with aclosing(self._programs.attach(messages)) as replies:
            async for reply in replies:
                yield reply

    async def list_execs(self, message: api.ListExecsRequest) -> api.ListExecsResponse:
        refuse_unknown(message)
        return await execs.list_execs(self._context, message)

    async def kill_exec(self, message: api.KillExecRequest) -> api.KillExecResponse:
        refuse_unknown(message)
        return await execs.kill_exec(self._context, message)

    async def forward(
        self, messages: AsyncIterator[api.ForwardRequest]
    ) -> AsyncIterator[api.ForwardResponse]:
        async with aclosing(self._forwarding.forward(messages)) as responses:
            async for response in responses:
                yield response

    async def get_info(self, message: api.GetInfoRequest) -> api.GetInfoResponse:
        refuse_unknown(message)
        return await reading.get_info(self._context, message)
