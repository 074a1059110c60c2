"""Snapshots: the layers of images, and the writable layer of each container.

``prepare`` makes a container's root file system on top of an image; call it after the
container record exists (see ``containers``).
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from cloudless.api.containerd.services.snapshots.v1 import (
    CommitSnapshotRequest,
    Info,
    ListSnapshotsRequest,
    MountsRequest,
    PrepareSnapshotRequest,
    RemoveSnapshotRequest,
    SnapshotsStub,
    StatSnapshotRequest,
    UsageRequest,
    ViewSnapshotRequest,
)
from cloudless.api.containerd.types import Mount as MountMessage
from cloudless.containerd.errors import NotFound
from cloudless.containerd.rpc import Connection


class SnapshotKind(Enum):
    """View: read-only; active: writable; committed: fixed, may be a parent."""

    UNKNOWN = 0
    VIEW = 1
    ACTIVE = 2
    COMMITTED = 3


@dataclass(frozen=True)
class Mount:
    """One file system of a snapshot, as mount(8) would take it."""

    type: str
    source: str
    options: tuple[str, ...]

    def message(self) -> MountMessage:
        """This mount as containerd wants it back."""
        return MountMessage(type=self.type, source=self.source, options=list(self.options))


@dataclass(frozen=True)
class Snapshot:
    """What the daemon knows of a snapshot; ``parent`` is empty for the lowest layer."""

    name: str
    parent: str
    kind: SnapshotKind
    labels: Mapping[str, str]
    created_at: datetime.datetime | None


@dataclass(frozen=True)
class Usage:
    """What one layer takes on the disk, without its parents."""

    size_bytes: int
    inodes: int


class Snapshots:
    """The snapshotter of this client."""

    def __init__(self, connection: Connection, *, snapshotter: str) -> None:
        self._connection = connection
        self._stub = connection.stub(SnapshotsStub)
        self.snapshotter = snapshotter

    async def prepare(
        self, key: str, parent: str, *, labels: Mapping[str, str] | None = None, lease: str | None = None
    ) -> tuple[Mount, ...]:
        """Make a writable layer over ``parent`` (a chain id; empty: over nothing).

        Raises ``AlreadyExists``, ``NotFound`` (the parent), ``Unavailable``.
        """
        answer = await self._connection.call(
            self._stub.prepare,
            PrepareSnapshotRequest(
                snapshotter=self.snapshotter, key=key, parent=parent, labels=dict(labels or {})
            ),
            about=f"prepare snapshot {key}",
            lease=lease,
        )
        return _mounts(answer.mounts)

    async def view(self, key: str, parent: str, *, lease: str | None = None) -> tuple[Mount, ...]:
        """Make a read-only view of ``parent``. Raises as ``prepare``."""
        answer = await self._connection.call(
            self._stub.view,
            ViewSnapshotRequest(snapshotter=self.snapshotter, key=key, parent=parent),
            about=f"view snapshot {parent}",
            lease=lease,
        )
        return _mounts(answer.mounts)

    async def mounts(self, key: str) -> tuple[Mount, ...]:
        """The mounts of an active snapshot or view. Raises ``NotFound``, ``Unavailable``."""
        answer = await self._connection.call(
            self._stub.mounts,
            MountsRequest(snapshotter=self.snapshotter, key=key),
            about=f"mounts of snapshot {key}",
        )
        return _mounts(answer.mounts)

    async def commit(
        self, key: str, name: str, *, labels: Mapping[str, str] | None = None, lease: str | None = None
    ) -> None:
        """Fix the active snapshot ``key`` as the layer ``name``. Raises ``AlreadyExists``, ``NotFound``."""
        await self._connection.call(
            self._stub.commit,
            CommitSnapshotRequest(
                snapshotter=self.snapshotter, name=name, key=key, labels=dict(labels or {})
            ),
            about=f"commit snapshot {name}",
            lease=lease,
        )

    async def remove(self, key: str) -> None:
        """Remove a snapshot. Raises ``NotFound``, ``PreconditionFailed`` (it has children)."""
        await self._connection.call(
            self._stub.remove,
            RemoveSnapshotRequest(snapshotter=self.snapshotter, key=key),
            about=f"remove snapshot {key}",
        )

    async def stat(self, key: str) -> Snapshot:
        """Raises ``NotFound``, ``Unavailable``."""
        answer = await self._connection.call(
            self._stub.stat,
            StatSnapshotRequest(snapshotter=self.snapshotter, key=key),
            about=f"stat snapshot {key}",
        )
        assert answer.info is not None
        return _read(answer.info)

    async def exists(self, key: str) -> bool:
        """Whether a snapshot of this name or key is there. Raises ``Unavailable``."""
        try:
            await self.stat(key)
        except NotFound:
            return False
        return True

    async def list(self, *filters: str) -> tuple[Snapshot, ...]:
        """Snapshots that match any of the filters; none given: all."""
        pages = await self._connection.collect(
            self._stub.list,
            ListSnapshotsRequest(snapshotter=self.snapshotter, filters=[*filters]),
            about="list snapshots",
        )
        return tuple(_read(info) for page in pages for info in page.info)

    async def usage(self, key: str) -> Usage:
        """What the layer ``key`` itself takes. Raises ``NotFound``, ``Unavailable``."""
        answer = await self._connection.call(
            self._stub.usage,
            UsageRequest(snapshotter=self.snapshotter, key=key),
            about=f"usage of snapshot {key}",
        )
        return Usage(answer.size, answer.inodes)


def _mounts(messages: list[MountMessage]) -> tuple[Mount, ...]:
    return tuple(Mount(message.type, message.source, tuple(message.options)) for message in messages)


def _read(info: Info) -> Snapshot:
    try:
        kind = SnapshotKind(int(info.kind))
    except ValueError:
        kind = SnapshotKind.UNKNOWN
    return Snapshot(info.name, info.parent, kind, dict(info.labels), info.created_at)
