"""The door of this room: one client for one containerd and one namespace.

The agent makes one at its start and closes it at its end. The client reconnects by
itself; while the daemon is away, calls raise ``errors.Unavailable``.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from grpclib.encoding.base import CodecBase

from cloudless.api.containerd.services.version.v1 import VersionStub
from cloudless.api.google.protobuf import Empty
from cloudless.containerd.containers import Containers
from cloudless.containerd.content import Content
from cloudless.containerd.images import Images
from cloudless.containerd.leases import Leases
from cloudless.containerd.rpc import Connection
from cloudless.containerd.snapshots import Snapshots
from cloudless.containerd.tasks import Tasks

#: Images are pulled by the CRI plugin, which puts them here; containers run here too.
DEFAULT_NAMESPACE = "k8s.io"
DEFAULT_SNAPSHOTTER = "overlayfs"


@dataclass(frozen=True)
class Version:
    """What answers at the socket."""

    version: str
    revision: str


class ContainerdClient:
    """Everything containerd does for us, by topic. Belongs to the event loop that made it."""

    def __init__(
        self,
        socket: str | os.PathLike[str],
        *,
        namespace: str = DEFAULT_NAMESPACE,
        codec: CodecBase | None = None,
        snapshotter: str = DEFAULT_SNAPSHOTTER,
    ) -> None:
        self.connection = Connection(os.fspath(socket), namespace=namespace, codec=codec)
        self.content = Content(self.connection)
        self.images = Images(self.connection, self.content)
        self.snapshots = Snapshots(self.connection, snapshotter=snapshotter)
        self.containers = Containers(self.connection, snapshotter=snapshotter)
        self.tasks = Tasks(self.connection)
        self.leases = Leases(self.connection)
        self._version = self.connection.stub(VersionStub)

    @property
    def socket(self) -> str:
        """Path of the daemon's socket."""
        return self.connection.socket

    async def version(self, *, timeout_s: float) -> Version:
        """Ask who is there. Raises ``Unavailable``."""
        answer = await self.connection.call(
            self._version.version, Empty(), about=f"containerd at {self.socket}", timeout_s=timeout_s
        )
        return Version(answer.version, answer.revision)

    def close(self) -> None:
        """Drop the connection; what is under way fails as ``Unavailable``."""
        self.connection.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
