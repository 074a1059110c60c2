"""``AgentService`` over the wire: decode, check, call, encode. No decisions.

Two faces of one service: over the link everything, on the node's own address everything
but the life line, which only the coordinator that this node dialled may hold.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path

import aiofiles.tempfile

from cloudless import api
from cloudless.agent.exec import CommandRunner, check_request
from cloudless.agent.execs.attach import Attachments
from cloudless.agent.execs.listing import ExecListing
from cloudless.agent.execs.service import Programs
from cloudless.agent.forwarding.forwarder import Forwarder
from cloudless.agent.images import ImageKeeper
from cloudless.agent.limits import MAX_IMPORT_BYTES, MAX_IMPORT_PIECE_BYTES
from cloudless.agent.logs.limits import BATCH_BYTES, MESSAGES_PER_TURN
from cloudless.agent.logs.store import LogStore
from cloudless.agent.lookup import Found, find
from cloudless.agent.node import Node
from cloudless.agent.output import ContainerLogs, split_id
from cloudless.agent.replica.start import container_id_of
from cloudless.agent.reports import Reports
from cloudless.agent.runtime.port import LocalImage, PullProgress, Runtime
from cloudless.agent.streaming import LogStreamer, Wanted
from cloudless.agent.synchronize import LifeLine
from cloudless.agent.tags import compare_tags
from cloudless.aio.clock import Clock
from cloudless.aio.slot import LatestSlot
from cloudless.aio.supervise import Supervisor
from cloudless.aio.turns import Turns
from cloudless.domain.errors import CloudlessError, Denied, Exhausted, Invalid, NotFound, PreconditionFailed
from cloudless.domain.workload import PullSecret
from cloudless.transport.context import CALLER_KEY, be_patient, current_call, room_to_send
from cloudless.wire import link
from cloudless.wire.loglines import entries_from_chunk
from cloudless.wire.logs import batch_to_wire, chunk_to_wire, query_from_wire


class AgentService(api.AgentServiceBase):
    """What the coordinator may ask over the link."""

    def __init__(
        self,
        *,
        node: Node,
        reports: Reports,
        runtime: Runtime,
        images: ImageKeeper,
        logs: LogStore,
        clock: Clock,
        output: ContainerLogs,
        runner: CommandRunner,
        forwarder: Forwarder,
        programs: Programs,
        listing: ExecListing,
        attachments: Attachments,
        spool: Path,
        in_use: Callable[[], frozenset[str]],
    ) -> None:
        self._node = node
        self._reports = reports
        self._runtime = runtime
        self._images = images
        self._output = output
        self._streamer = LogStreamer(logs, node, node_name=reports.facts.name, clock=clock)
        self._turns = Turns(MESSAGES_PER_TURN)
        self._runner = runner
        self._forwarder = forwarder
        self._programs = programs
        self._listing = listing
        self._attachments = attachments
        self._spool = spool
        self._in_use = in_use
        self._life_line = LifeLine(node, reports)

    async def synchronize(
        self, messages: AsyncIterator[api.SynchronizeRequest]
    ) -> AsyncGenerator[api.SynchronizeResponse, None]:
        async with aclosing(self._life_line.serve(messages)) as answers:
            async for answer in answers:
                yield answer

    async def stream_logs(self, message: api.StreamLogsRequest) -> AsyncGenerator[api.LogEntry, None]:
        for field in ("namespace", "label_selector", "resume", "current_only"):
            if getattr(message, field) not in ("", False, None):
                raise Invalid.field(field, "a node's own address streams one container or replica")
        found = self._find(message.container_id, message.replica, message.name)
        label = self._label(found.replica_id)
        async with aclosing(self._streamer.of_container(found, query_from_wire(message))) as batches:
            async for batch in batches:
                for chunk in batch.chunks:
                    for entry in entries_from_chunk(chunk_to_wire(chunk), label):
                        yield entry

    async def read_logs(self, message: api.ReadLogsRequest) -> AsyncGenerator[api.LogBatch, None]:
        be_patient()  # the coordinator bounds how many readers there are, and may wait for one
        wanted = Wanted(frozenset(message.workload_ids), message.namespace, message.name, message.replica)
        async with aclosing(self._streamer.of_workloads(wanted, query_from_wire(message))) as batches:
            async for batch in batches:
                await self._turns.take()
                answer = batch_to_wire(batch)
                yield answer
                answer.chunks, batch.chunks = [], []  # it is sent: nobody on its way shall keep it meanwhile
                await room_to_send(BATCH_BYTES)

    async def exec_command(self, message: api.ExecCommandRequest) -> api.ExecCommandResponse:
        request = check_request(
            argv=tuple(message.command),
            env=dict(message.env),
            cwd=message.working_dir,
            user=message.user,
            stdin=message.stdin,
            timeout_s=message.timeout.total_seconds() if message.timeout is not None else None,
            output_limit_bytes=message.output_limit_bytes,
        )
        replica_id, container_id = await self._node.found(lambda: self._running(message))
        result = await self._runner.run(container_id, request)
        return api.ExecCommandResponse(
            exit_code=result.exit_code,
            stdout=result.stdout,
            stderr=result.stderr,
            stdout_truncated=result.stdout_truncated,
            stderr_truncated=result.stderr_truncated,
            replica=self._label(replica_id),
            container_id=container_id,
            timed_out=result.timed_out,
        )

    async def exec(self, messages: AsyncIterator[api.ExecRequest]) -> AsyncGenerator[api.ExecResponse, None]:
        async with aclosing(self._programs.serve(messages, self._caller())) as answers:
            async for answer in answers:
                yield answer

    async def attach(
        self, messages: AsyncIterator[api.ExecRequest]
    ) -> AsyncGenerator[api.ExecResponse, None]:
        async with aclosing(self._attachments.serve(messages)) as answers:
            async for answer in answers:
                yield answer

    async def list_execs(self, message: api.ListExecsRequest) -> api.ListExecsResponse:
        return await self._listing.list_execs(message)

    async def kill_exec(self, message: api.KillExecRequest) -> api.KillExecResponse:
        return await self._listing.kill_exec(message)

    async def forward(
        self, messages: AsyncIterator[api.ForwardRequest]
    ) -> AsyncGenerator[api.ForwardResponse, None]:
        async with aclosing(self._forwarder.serve(messages)) as answers:
            async for answer in answers:
                yield answer

    async def list_images(self, message: api.ListImagesRequest) -> api.ListImagesResponse:
        used = self._in_use()
        return api.ListImagesResponse(
            images=[
                api.Image(
                    reference=image.name,
                    digest=image.digest,
                    size_bytes=image.size_bytes,
                    in_use=image.digest in used or image.name in used,
                )
                for image in await self._runtime.images()
            ]
        )

    async def pull_image(self, message: api.PullImageRequest) -> AsyncGenerator[api.PullImageResponse, None]:
        if not message.reference:
            raise Invalid.field("reference", "is required, for example nginx:alpine")
        secret = None
        if message.secret is not None:
            given = message.secret
            secret = PullSecret(server=given.server, username=given.username, password=given.password)
        slot: LatestSlot[PullProgress | LocalImage | CloudlessError] = LatestSlot()

        async def pull() -> None:
            try:
                slot.put(await self._images.pull(message.reference, secret, slot.put))
            except CloudlessError as error:
                slot.put(error)

        async with Supervisor(f"pull for a caller {message.reference[:80]}") as tasks:
            tasks.start("pull", pull())
            while True:
                now = await slot.take()
                if isinstance(now, CloudlessError):
                    raise now
                if isinstance(now, LocalImage):
                    await compare_tags(self._node, self._runtime)
                    yield api.PullImageResponse(stage="done", image=_image(now))
                    return
                yield api.PullImageResponse(
                    stage=now.stage, offset_bytes=now.offset_bytes, total_bytes=now.total_bytes
                )

    async def remove_image(self, message: api.RemoveImageRequest) -> api.RemoveImageResponse:
        if not message.reference:
            raise Invalid.field("reference", "is required, for example nginx:alpine")
        # A replica that is started again would have to get it from a registry, if there is one.
        image, used = await self._runtime.resolve(message.reference), self._in_use()
        if image.name in used or (image.digest in used and await self._is_last(image)):
            raise PreconditionFailed(
                f"image {image.name} is in use", hint="remove the workloads that run it first"
            )
        await self._runtime.remove_image(message.reference)
        return api.RemoveImageResponse()

    async def _is_last(self, image: LocalImage) -> bool:
        """Whether no other name on this node stands for the same image."""
        same = [one for one in await self._runtime.images() if one.digest == image.digest]
        return len({one.name for one in same}) <= 1

    async def import_image(self, messages: AsyncIterator[api.ImportImageRequest]) -> api.ImportImageResponse:
        self._spool.mkdir(mode=0o700, parents=True, exist_ok=True)
        async with aiofiles.tempfile.NamedTemporaryFile(dir=self._spool, prefix="import-") as file:
            name, size = "", 0
            async for piece in messages:
                name = name or piece.reference
                size += len(piece.data)
                if len(piece.data) > MAX_IMPORT_PIECE_BYTES:
                    raise Invalid.field(
                        "data", f"must be at most {MAX_IMPORT_PIECE_BYTES} bytes in one piece"
                    )
                if size > MAX_IMPORT_BYTES:
                    raise Exhausted(f"an archive may have {MAX_IMPORT_BYTES} bytes at most")
                await file.write(piece.data)
            await file.flush()
            if not size:
                raise Invalid.field("data", "is required: an OCI or docker archive")
            images = await self._runtime.import_archive(str(file.name), name)
        await compare_tags(self._node, self._runtime)
        return api.ImportImageResponse(images=[_image(image) for image in images])

    async def get_node_info(self, message: api.GetNodeInfoRequest) -> api.GetNodeInfoResponse:
        return api.GetNodeInfoResponse(node=link.facts_to_wire(self._reports.facts))

    def _caller(self) -> str:
        """For whom the coordinator asks, as it knows its callers."""
        try:
            caller = current_call().metadata.get(CALLER_KEY, "")
        except LookupError:
            return ""
        return caller if isinstance(caller, str) else ""

    def _running(self, message: api.ExecCommandRequest) -> tuple[str, str]:
        """Ids of a replica and of its container that runs."""
        found = self._find(message.container_id, message.replica, message.name)
        replica = self._node.replicas.get(found.replica_id)
        container_id = replica.container_id if replica is not None else ""
        if found.attempt is not None and container_id != container_id_of(found.replica_id, found.attempt):
            container_id = ""
        if not container_id:
            raise NotFound(f"container {message.container_id or message.replica} does not run")
        return found.replica_id, container_id

    def _find(self, container_id: str, replica: str, name: str) -> Found:
        if name:
            raise Invalid.field(
                "name", "a node knows replicas and containers, not workloads: ask the coordinator"
            )
        containers = self._output.containers()
        replicas = {*self._node.assignments, *(split_id(one)[0] for one in containers)}
        return find(container_id=container_id, replica=replica, containers=containers, replicas=replicas)

    def _label(self, replica_id: str) -> str:
        assignment = self._node.assignments.get(replica_id)
        return f"{assignment.name}/{assignment.ordinal}" if assignment is not None else ""


class LocalAgentService(AgentService):
    """What anybody on this machine may ask: the life line is not theirs."""

    async def synchronize(
        self, messages: AsyncIterator[api.SynchronizeRequest]
    ) -> AsyncGenerator[api.SynchronizeResponse, None]:
        raise Denied("only the coordinator that this node dialled may synchronize with it")
        yield api.SynchronizeResponse()

    def _caller(self) -> str:
        return "this machine"  # whatever a caller says of itself


def _image(image: LocalImage) -> api.Image:
    return api.Image(reference=image.name, digest=image.digest, size_bytes=image.size_bytes)
