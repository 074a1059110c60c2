"""Container records: what shall run. A record starts nothing and holds no process.

The record must exist before the snapshot that it names is prepared: a snapshot that
nobody refers to is garbage, and containerd's collector may take it in between.
Labels are ours alone; labels of an image must never be copied into them, because
containerd's own plugins act on labels.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cloudless.api.containerd.services.containers.v1 import (
    Container as ContainerMessage,
)
from cloudless.api.containerd.services.containers.v1 import (
    ContainerRuntime,
    ContainersStub,
    CreateContainerRequest,
    DeleteContainerRequest,
    GetContainerRequest,
    ListContainersRequest,
)
from cloudless.api.google.protobuf import Any as AnyMessage
from cloudless.containerd.rpc import Connection
from cloudless.containerd.runtimes import RUNC, Runtime

SPEC_TYPE = "types.containerd.io/opencontainers/runtime-spec/1/Spec"


@dataclass(frozen=True)
class Container:
    """A record as the daemon holds it; ``spec`` is the OCI runtime spec as JSON."""

    id: str
    image: str
    labels: Mapping[str, str]
    spec: bytes
    snapshotter: str
    snapshot_key: str
    runtime: str
    created_at: datetime.datetime | None = None

    def spec_dict(self) -> dict[str, Any]:
        """The OCI runtime spec, decoded."""
        decoded = json.loads(self.spec)
        assert isinstance(decoded, dict)
        return decoded


class Containers:
    """Create, read and delete records."""

    def __init__(self, connection: Connection, *, snapshotter: str) -> None:
        self._connection = connection
        self._stub = connection.stub(ContainersStub)
        self._snapshotter = snapshotter

    async def create(
        self,
        container_id: str,
        *,
        image: str,
        spec: bytes,
        snapshot_key: str,
        labels: Mapping[str, str],
        runtime: Runtime = RUNC,
    ) -> None:
        """Write a record. Raises ``AlreadyExists``, ``InvalidRequest`` (the id), ``Unavailable``."""
        record = ContainerMessage(
            id=container_id,
            image=image,
            labels=dict(labels),
            runtime=ContainerRuntime(name=runtime.shim, options=runtime.options()),
            spec=AnyMessage(type_url=SPEC_TYPE, value=spec),
            snapshotter=self._snapshotter,
            snapshot_key=snapshot_key,
        )
        await self._connection.call(
            self._stub.create,
            CreateContainerRequest(container=record),
            about=f"create container {container_id}",
        )

    async def get(self, container_id: str) -> Container:
        """Read one record. Raises ``NotFound``, ``Unavailable``."""
        answer = await self._connection.call(
            self._stub.get, GetContainerRequest(id=container_id), about=f"get container {container_id}"
        )
        assert answer.container is not None
        return _read(answer.container)

    async def list(self, *filters: str) -> tuple[Container, ...]:
        """Records that match any of the filters (``labels."name"==value``); none given: all."""
        answer = await self._connection.call(
            self._stub.list, ListContainersRequest(filters=[*filters]), about="list containers"
        )
        return tuple(_read(message) for message in answer.containers)

    async def delete(self, container_id: str) -> None:
        """Delete a record; its snapshot becomes garbage. Raises ``NotFound``, ``Unavailable``."""
        await self._connection.call(
            self._stub.delete,
            DeleteContainerRequest(id=container_id),
            about=f"delete container {container_id}",
        )


def _read(message: ContainerMessage) -> Container:
    return Container(
        id=message.id,
        image=message.image,
        labels=dict(message.labels),
        spec=message.spec.value if message.spec is not None else b"",
        snapshotter=message.snapshotter,
        snapshot_key=message.snapshot_key,
        runtime=message.runtime.name if message.runtime is not None else "",
        created_at=message.created_at,
    )
