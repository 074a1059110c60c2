"""Blobs of the content store: read small ones, write any, see what is arriving.

Labels on blobs are what containerd's garbage collector follows from a manifest to its
config and layers; ``images`` and ``unpack`` set them.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, cast

from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError

from cloudless.api.containerd.services.content.v1 import (
    AbortRequest,
    ContentStub,
    DeleteContentRequest,
    Info,
    InfoRequest,
    ListStatusesRequest,
    ReadContentRequest,
    UpdateRequest,
    WriteAction,
    WriteContentRequest,
    WriteContentResponse,
)
from cloudless.containerd import limits
from cloudless.containerd.errors import InvalidImage, NotFound
from cloudless.containerd.rpc import Connection, sorting
from cloudless.containerd.untrusted import read_json

WRITE_ROUTE = "/containerd.services.content.v1.Content/Write"


@dataclass(frozen=True)
class Ingest:
    """A write under way; ``total_bytes`` is 0 while it is not known."""

    ref: str
    offset_bytes: int
    total_bytes: int


@dataclass(frozen=True)
class Blob:
    """A blob's size and labels."""

    digest: str
    size_bytes: int
    labels: Mapping[str, str]


class Content:
    """The content store, as this client's namespace sees it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stub = connection.stub(ContentStub)

    async def info(self, digest: str) -> Blob:
        """Raises ``NotFound``, ``Unavailable``."""
        answer = await self._connection.call(
            self._stub.info, InfoRequest(digest=digest), about=f"blob {digest}"
        )
        assert answer.info is not None
        return Blob(answer.info.digest, answer.info.size, dict(answer.info.labels))

    async def read(self, digest: str, *, limit_bytes: int = limits.MAX_MANIFEST_BYTES) -> bytes:
        """A whole blob. Raises ``NotFound``, ``InvalidImage`` when it is over the limit."""
        data = bytearray()
        with sorting(f"read blob {digest}"):
            stream = self._stub.read(
                ReadContentRequest(digest=digest),
                timeout=limits.CALL_TIMEOUT_S,
                metadata=self._connection.metadata,
            )
            async with aclosing(cast(Any, stream)) as answers:
                async for answer in answers:
                    data += answer.data
                    if len(data) > limit_bytes:
                        raise InvalidImage(f"blob {digest} is larger than {limit_bytes} bytes")
        return bytes(data)

    async def read_json(self, digest: str) -> dict[str, Any]:
        """A manifest, index or config. Raises ``NotFound``, ``InvalidImage``."""
        decoded = read_json(await self.read(digest), f"blob {digest}")
        if not isinstance(decoded, dict):
            raise InvalidImage(f"blob {digest} is not a JSON object")
        return decoded

    async def write(
        self,
        ref: str,
        digest: str,
        size_bytes: int,
        chunks: AsyncIterator[bytes],
        *,
        labels: Mapping[str, str],
        lease: str | None = None,
    ) -> None:
        """Store a blob that is not there yet; one that is keeps its own labels.

        ``ref`` names the write and must be unique among those under way. Raises
        ``InvalidImage`` when size or digest are wrong, ``NoSpace``, ``Unavailable``.
        """
        with sorting(f"write blob {digest}"):
            try:
                await self._write(ref, digest, size_bytes, chunks, labels, lease)
            except GRPCError as error:
                if error.status is Status.ALREADY_EXISTS:
                    return
                if error.status is Status.FAILED_PRECONDITION:
                    raise InvalidImage(f"blob {digest} is damaged: {error.message}") from error
                raise

    async def write_bytes(
        self, data: bytes, *, ref: str, labels: Mapping[str, str], lease: str | None = None
    ) -> str:
        """Store a small blob; returns its digest."""
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"

        async def chunks() -> AsyncIterator[bytes]:
            yield data

        await self.write(ref, digest, len(data), chunks(), labels=labels, lease=lease)
        return digest

    async def label(self, digest: str, labels: Mapping[str, str]) -> None:
        """Add labels to a blob. Raises ``NotFound``."""
        known = await self.info(digest)
        if all(known.labels.get(key) == value for key, value in labels.items()):
            return
        merged = {**known.labels, **labels}
        await self._connection.call(
            self._stub.update,
            UpdateRequest(info=Info(digest=digest, labels=merged)),
            about=f"label blob {digest}",
        )

    async def delete(self, digest: str) -> None:
        """Remove a blob; one that is gone is no error."""
        try:
            await self._connection.call(
                self._stub.delete, DeleteContentRequest(digest=digest), about=f"delete blob {digest}"
            )
        except NotFound:
            return

    async def abort(self, ref: str) -> None:
        """Give up a write; one that is gone is no error."""
        try:
            await self._connection.call(self._stub.abort, AbortRequest(ref=ref), about=f"abort write {ref}")
        except NotFound:
            return

    async def ingests(self) -> tuple[Ingest, ...]:
        """Writes under way: downloads of pulls, and imports."""
        answer = await self._connection.call(
            self._stub.list_statuses, ListStatusesRequest(), about="list writes"
        )
        return tuple(Ingest(status.ref, status.offset, status.total) for status in answer.statuses)

    async def _write(
        self,
        ref: str,
        digest: str,
        size_bytes: int,
        chunks: AsyncIterator[bytes],
        labels: Mapping[str, str],
        lease: str | None,
    ) -> None:
        # The generated stub would leave its half of the stream open when the server
        # ends first, so this stream is driven by hand: the commit is our last word.
        async with self._connection.channel.request(
            WRITE_ROUTE,
            Cardinality.STREAM_STREAM,
            WriteContentRequest,
            WriteContentResponse,
            timeout=limits.APPLY_TIMEOUT_S,
            metadata=self._connection.headers(lease),
        ) as stream:
            begin = WriteContentRequest(action=WriteAction.STAT, ref=ref, total=size_bytes, expected=digest)
            await stream.send_message(begin)
            answer = await stream.recv_message()
            offset = answer.offset if answer is not None else 0
            # A blob that another namespace of this daemon holds is complete from the start.
            shared = offset == size_bytes
            if offset and not shared:
                raise InvalidImage(f"the write {ref} is already under way")
            async for chunk in chunks:
                if shared:
                    break
                part = WriteContentRequest(action=WriteAction.WRITE, ref=ref, offset=offset, data=chunk)
                await stream.send_message(part)
                answer = await stream.recv_message()
                offset += len(chunk)
            last = WriteContentRequest(
                action=WriteAction.COMMIT,
                ref=ref,
                total=size_bytes,
                expected=digest,
                offset=offset,
                labels=dict(labels),
            )
            await stream.send_message(last, end=True)
            await stream.recv_message()
            await stream.recv_trailing_metadata()
