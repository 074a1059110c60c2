"""What the agent asks of a container runtime, in its own words.

Implemented by ``containerd.ContainerdRuntime`` and ``memory.MemoryRuntime``; both pass
one contract suite. Every call may be repeated, also after the process was killed in
the middle of one, and raises only what ``errors`` defines.
"""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from cloudless.agent.runtime.execport import (
    AttachedInput,
    ExecRequest,
    ExecResult,
    ExecWish,
    Room,
    RunningExec,
)
from cloudless.domain.workload import PullSecret, WorkloadSpec
from cloudless.planning.node import ContainerFact


@dataclass(frozen=True, slots=True)
class LocalImage:
    """An image that can run here, with the defaults it brings.

    ``name`` is the full reference, ``digest`` what a registry calls the image's digest.
    ``imported``: it came from an archive, so a registry need not know it.
    """

    name: str
    digest: str
    size_bytes: int = 0
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    user: str = ""
    working_dir: str = ""
    stop_signal: str = ""
    imported: bool = False


@dataclass(frozen=True, slots=True)
class PullProgress:
    """How far a pull is; ``total_bytes`` grows while layers are discovered."""

    stage: Literal["resolving", "downloading", "unpacking"]
    offset_bytes: int = 0
    total_bytes: int = 0


OnProgress = Callable[[PullProgress], None]


@dataclass(frozen=True, slots=True)
class ContainerMount:
    """A bind mount of ``source`` (a path on the node), or with ``source`` None a tmpfs."""

    destination: str
    source: str | None
    read_only: bool = False
    size_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class ContainerWish:
    """A container to be made, decided to the last detail that is not the runtime's business.

    ``netns_path`` None means the node's own network. ``seccomp`` is the profile of type
    LOCALHOST, already read. ``log_uri`` empty throws the output away.
    """

    id: str
    replica_id: str
    workload_id: str
    attempt: int
    restarts: int
    image: LocalImage
    spec: WorkloadSpec
    argv: tuple[str, ...]
    env: tuple[str, ...]
    cwd: str
    hostname: str
    netns_path: str | None
    mounts: tuple[ContainerMount, ...] = ()
    log_uri: str = ""
    seccomp: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Exited:
    """A container's process has ended. ``exit_code`` is 128 + n when signal n ended it."""

    container_id: str
    exit_code: int
    at: datetime.datetime


@dataclass(frozen=True, slots=True)
class OutOfMemory:
    """The kernel killed something in the container for want of memory; comes before ``Exited``."""

    container_id: str


@dataclass(frozen=True, slots=True)
class Back:
    """The runtime answers and events flow (again): what happened before must be listed."""


@dataclass(frozen=True, slots=True)
class Away:
    """The runtime does not answer; ``why`` is for people."""

    why: str


RuntimeEvent = Exited | OutOfMemory | Back | Away


@dataclass(frozen=True, slots=True)
class RuntimeInfo:
    """What the runtime and its kernel can do."""

    version: str = ""
    runtime_classes: tuple[str, ...] = ("runc",)
    seccomp: bool = True
    apparmor: bool = False


@dataclass(frozen=True, slots=True)
class StoredImage:
    """A name in the image store. Several names may mean one ``digest``."""

    name: str
    digest: str
    size_bytes: int = 0
    created_at: datetime.datetime | None = None


class Runtime(Protocol):
    """Containers and images of one node; other nodes' containers on the machine are invisible."""

    async def list(self) -> tuple[ContainerFact, ...]:
        """Every container of this node, in any state."""
        ...

    async def create(self, wish: ContainerWish) -> None:
        """Make the record and the root file system; nothing runs yet.

        Raises ``NotEnforced``, ``ImageNotFound``, ``DiskFull``, ``RuntimeAway``, ``StartFailed``.
        """
        ...

    async def start(self, container_id: str) -> int:
        """Run the process; returns its pid on the node.

        Raises ``CannotExecute``, ``ContainerGone``, ``RuntimeAway``, ``StartFailed``.
        """
        ...

    async def kill(self, container_id: str, signal: int, *, everyone: bool = False) -> None:
        """Send a signal to the first process, or to all of them. Raises ``ContainerGone``."""
        ...

    async def delete(self, container_id: str) -> None:
        """Remove all that is left: processes, task, record, file system. Gone is no error."""
        ...

    def events(self) -> AbstractAsyncContextManager[AsyncIterator[RuntimeEvent]]:
        """What happens from now on, for as long as the block runs; begins with ``Back`` or ``Away``."""
        ...

    async def exec(
        self,
        container_id: str,
        request: ExecRequest,
        *,
        starts: asyncio.Semaphore | None = None,
        began: Callable[[RunningExec], None] | None = None,
        room: Room | None = None,
    ) -> ExecResult:
        """Run a command beside the first process and wait for it; ``starts`` is held while it starts.

        ``began`` is given what runs then, to look at and to end: it is waited for here. Output that
        ``room`` does not take is thrown away, as what is over the limit is.
        When its time is up or the caller is cancelled, it and its descendants are killed.
        Raises ``ContainerGone``, ``NotEnforced`` (no such user), ``RuntimeAway``.
        """
        ...

    def open_exec(self, container_id: str, wish: ExecWish) -> AbstractAsyncContextManager[RunningExec]:
        """Run a program beside the first process for the length of the block.

        Leaving before it has ended ends it with all that it started: SIGTERM, a grace,
        SIGKILL; a detached one runs on. Raises ``ContainerGone``, ``CannotExecute``,
        ``NotEnforced`` (no such user), ``RuntimeAway``.
        """
        ...

    def attach(self, container_id: str) -> AbstractAsyncContextManager[AttachedInput]:
        """Join the input of a container whose specification asks for ``stdin`` or ``tty``.

        Raises ``ContainerGone`` when it does not read (any more).
        """
        ...

    async def collect_execs(self) -> tuple[int, tuple[RunningExec, ...]]:
        """End and remove commands that an earlier life of this agent left, or that could not be ended.

        Returns how many, and those that were detached: somebody must ``wait`` for each.
        """
        ...

    async def collect_strays(self) -> tuple[str, ...]:
        """End what runs of containers whose creation was cut off; their ids.

        Only what was found the last time as well. Raises ``RuntimeAway``.
        """
        ...

    async def resolve(self, reference: str) -> LocalImage:
        """The image of that name on this node.

        A digest is found under any name of its repository, also when the tag has moved on, and
        under any name at all when it was imported. Raises ``ImageNotFound``, ``BadImage``,
        ``RuntimeAway``.
        """
        ...

    async def pull(self, reference: str, secret: PullSecret | None, on_progress: OnProgress) -> LocalImage:
        """Fetch from the registry. Cancelling stops it and leaves nothing.

        Raises ``ImageNotFound``, ``RegistryDenied``, ``RegistryAway``, ``BadImage``, ``DiskFull``,
        ``RuntimeAway``.
        """
        ...

    async def images(self) -> tuple[StoredImage, ...]:
        """Every tag in the image store, and the digests that no tag means any more."""
        ...

    async def remove_image(self, reference: str) -> None:
        """Remove a name; space is free when this returns. Raises ``ImageNotFound``."""
        ...

    async def import_archive(self, path: str, name: str) -> tuple[LocalImage, ...]:
        """Take in an OCI or docker archive; ``name`` is for one that carries none. Raises ``BadImage``."""
        ...

    async def info(self) -> RuntimeInfo:
        """What is there. Raises ``RuntimeAway``."""
        ...

    async def close(self) -> None:
        """Let go of connections; containers stay."""
        ...
