"""``AgentService`` over the wire: decode, check, call, encode. No decisions.

Two faces of one service: over the link everything, on the node's own address everything
but the life line, which only the coordinator that this node dialled may hold.
"""

from __future__ import annotations

import datetime
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path

import aiofiles.tempfile

from cloudless import api
from cloudless.agent.exec import CommandRunner, check_request
from cloudless.agent.images import ImageKeeper
from cloudless.agent.limits import MAX_IMPORT_BYTES, MAX_IMPORT_PIECE_BYTES
from cloudless.agent.logs.lines import parse
from cloudless.agent.logs.reader import ReadOptions
from cloudless.agent.logs.store import LogStore
from cloudless.agent.lookup import Found, find
from cloudless.agent.node import Node
from cloudless.agent.output import ContainerLogs, split_id
from cloudless.agent.replica.start import container_id_of
from cloudless.agent.reports import Reports
from cloudless.agent.runtime.port import LocalImage, PullProgress, Runtime
from cloudless.agent.streaming import ContainerBatch, LogStreamer
from cloudless.agent.synchronize import LifeLine
from cloudless.aio.slot import LatestSlot
from cloudless.aio.supervise import Supervisor
from cloudless.domain.errors import CloudlessError, Denied, Exhausted, Invalid, NotFound, PreconditionFailed
from cloudless.domain.workload import PullSecret
from cloudless.wire import link

_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


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
        output: ContainerLogs,
        runner: CommandRunner,
        spool: Path,
        in_use: Callable[[], frozenset[str]],
    ) -> None:
        self._node = node
        self._reports = reports
        self._runtime = runtime
        self._images = images
        self._output = output
        self._streamer = LogStreamer(logs, node)
        self._runner = runner
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
        found = self._find(message.container_id, message.replica, message.name)
        if message.tail_lines is not None and message.tail_lines < 0:
            raise Invalid.field("tail_lines", "must not be negative")
        since_ns = None
        if message.since is not None:
            since_ns = (message.since - _EPOCH) // datetime.timedelta(microseconds=1) * 1000
        options = ReadOptions(message.follow, message.tail_lines, since_ns)
        label = self._label(found.replica_id)
        async with aclosing(self._streamer.stream(found, options)) as batches:
            async for batch in batches:
                for entry in _entries(batch, found.replica_id, label, timestamps=message.timestamps):
                    yield entry

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
        found = self._find(message.container_id, message.replica, message.name)
        replica = self._node.replicas.get(found.replica_id)
        container_id = replica.container_id if replica is not None else ""
        if found.attempt is not None and container_id != container_id_of(found.replica_id, found.attempt):
            container_id = ""
        if not container_id:
            raise NotFound(f"container {message.container_id or message.replica} does not run")
        result = await self._runner.run(container_id, request)
        return api.ExecCommandResponse(
            exit_code=result.exit_code,
            stdout=result.stdout,
            stderr=result.stderr,
            stdout_truncated=result.stdout_truncated,
            stderr_truncated=result.stderr_truncated,
            replica=self._label(found.replica_id),
            container_id=container_id,
            timed_out=result.timed_out,
        )

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
        return api.ImportImageResponse(images=[_image(image) for image in images])

    async def get_node_info(self, message: api.GetNodeInfoRequest) -> api.GetNodeInfoResponse:
        return api.GetNodeInfoResponse(node=link.facts_to_wire(self._reports.facts))

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


def _entries(found: ContainerBatch, replica_id: str, label: str, *, timestamps: bool) -> list[api.LogEntry]:
    entries = []
    if found.batch.gap_bytes:
        entries.append(
            api.LogEntry(
                replica=label,
                replica_id=replica_id,
                container_id=found.container_id,
                gap_bytes=found.batch.gap_bytes,
            )
        )
    for record in parse(found.batch.data):
        at = _EPOCH + datetime.timedelta(microseconds=record.timestamp_ns // 1000)
        line = record.data
        if timestamps:
            line = at.isoformat().replace("+00:00", "Z").encode() + b" " + line
        entries.append(
            api.LogEntry(
                at=at,
                stream=record.stream,
                line=line,
                replica=label,
                replica_id=replica_id,
                container_id=found.container_id,
                partial=record.partial,
            )
        )
    return entries


def _image(image: LocalImage) -> api.Image:
    return api.Image(reference=image.name, digest=image.digest, size_bytes=image.size_bytes)
