"""What the agent asks of a container runtime, in its own words.

Implemented by ``containerd.ContainerdRuntime`` and ``memory.MemoryRuntime``; both pass
one contract suite. Every call may be repeated, also after the process was killed in
the middle of one, and raises only what ``errors`` defines.
"""

from __future__ import annotations

import datetime
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from cloudless.domain.workload import PullSecret, WorkloadSpec
from cloudless.planning.node import ContainerFact


@dataclass(frozen=True, slots=True)
class LocalImage:
    """An image that can run here, with the defaults it brings.

    ``name`` is the full reference, ``digest`` what a registry calls the image's digest.
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
class ExecRequest:
    """A command to run in a container. ``output_limit_bytes`` is for each of stdout and stderr."""

    argv: tuple[str, ...]
    env: tuple[str, ...] = ()
    cwd: str = ""
    user: str = ""
    stdin: bytes = b""
    timeout_s: float = 60.0
    output_limit_bytes: int = 256 * 1024


@dataclass(frozen=True, slots=True)
class ExecResult:
    """How it ended: 127 and 126 as a shell says; 128 + n for signal n."""

    exit_code: int
    stdout: bytes = b""
    stderr: bytes = b""
    stdout_truncated: bool = False
    stderr_truncated: bool = False
    timed_out: bool = False


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

    async def exec(self, container_id: str, request: ExecRequest) -> ExecResult:
        """Run a command beside the first process and wait for it.

        When its time is up or the caller is cancelled, it and its descendants are killed.
        Raises ``ContainerGone``, ``NotEnforced`` (no such user), ``RuntimeAway``.
        """
        ...

    async def collect_execs(self) -> int:
        """End and remove commands that an earlier life of this agent left; returns how many."""
        ...

    async def resolve(self, reference: str) -> LocalImage:
        """The image of that name on this node. Raises ``ImageNotFound``, ``BadImage``, ``RuntimeAway``."""
        ...

    async def pull(self, reference: str, secret: PullSecret | None, on_progress: OnProgress) -> LocalImage:
        """Fetch from the registry. Cancelling stops it and leaves nothing.

        Raises ``ImageNotFound``, ``RegistryDenied``, ``RegistryAway``, ``BadImage``, ``DiskFull``,
        ``RuntimeAway``.
        """
        ...

    async def images(self) -> tuple[StoredImage, ...]:
        """Every name in the image store."""
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
