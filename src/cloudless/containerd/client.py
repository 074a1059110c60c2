"""The door of this room: one client for one containerd and one namespace.

The agent makes one at its start and closes it at its end. The client reconnects by
itself; while the daemon is away, calls raise ``errors.Unavailable``.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from grpclib.encoding.base import CodecBase

from cloudless.aio.clock import Clock
from cloudless.api.containerd.services.version.v1 import VersionStub
from cloudless.api.google.protobuf import Empty
from cloudless.containerd.accounts import Accounts
from cloudless.containerd.containers import Containers
from cloudless.containerd.content import Content
from cloudless.containerd.events import Events
from cloudless.containerd.imageowners import ImageOwners
from cloudless.containerd.images import Images
from cloudless.containerd.importing import Importer
from cloudless.containerd.leases import Leases
from cloudless.containerd.process import Processes
from cloudless.containerd.pull import Puller
from cloudless.containerd.rpc import Connection
from cloudless.containerd.shims import Strays
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
    """Everything containerd does for us, by topic. Belongs to the event loop that made it.

    ``new_id`` names leases, views and writes: it must never give the same twice.
    """

    def __init__(
        self,
        socket: str | os.PathLike[str],
        *,
        namespace: str = DEFAULT_NAMESPACE,
        codec: CodecBase | None = None,
        clock: Clock,
        new_id: Callable[[], str],
        snapshotter: str = DEFAULT_SNAPSHOTTER,
    ) -> None:
        self.connection = Connection(os.fspath(socket), namespace=namespace, codec=codec)
        self.content = Content(self.connection)
        self.images = Images(self.connection, self.content)
        self.snapshots = Snapshots(self.connection, snapshotter=snapshotter)
        self.containers = Containers(self.connection, snapshotter=snapshotter)
        self.image_owners = ImageOwners(self.connection, self.images, self.containers)
        self.tasks = Tasks(self.connection)
        self.leases = Leases(self.connection)
        self.accounts = Accounts(self.snapshots, self.leases, clock=clock, new_id=new_id)
        self.puller = Puller(self.connection, self.images, self.content, clock=clock)
        self.importer = Importer(
            self.connection,
            content=self.content,
            images=self.images,
            snapshots=self.snapshots,
            leases=self.leases,
            clock=clock,
            new_id=new_id,
        )
        self.processes = Processes(self.connection, self.tasks, clock=clock)
        self.strays = Strays(self.connection, self.containers)
        self.events = Events(self.connection, clock=clock, new_id=new_id)

    @property
    def socket(self) -> str:
        """Path of the daemon's socket."""
        return self.connection.socket

    async def version(self, *, timeout_s: float) -> Version:
        """Ask who is there. Raises ``Unavailable``."""
        return await ask_version(self.connection, timeout_s=timeout_s)

    def close(self) -> None:
        """Drop the connection; what is under way fails as ``Unavailable``."""
        self.connection.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


async def ask_version(connection: Connection, *, timeout_s: float) -> Version:
    """Ask who is there. Raises ``Unavailable``."""
    answer = await connection.call(
        connection.stub(VersionStub).version,
        Empty(),
        about=f"containerd at {connection.socket}",
        timeout_s=timeout_s,
    )
    return Version(answer.version, answer.revision)
