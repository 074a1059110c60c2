"""What a container shall be, decided to the last detail (pure data).

The agent fills a ``ContainerPlan`` from a workload's spec, the image's config and the
node's facts; ``oci.build_spec`` writes it down as an OCI runtime spec. All quantities
are in the units their names say.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from cloudless.containerd import capabilities

#: Unless the image says otherwise.
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEFAULT_SHM_BYTES = 64 * 1024 * 1024

#: Files of the kernel that tell of the node or of other containers.
MASKED_PATHS: tuple[str, ...] = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
#: Files of the kernel that change the node.
READONLY_PATHS: tuple[str, ...] = (
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
)


class Seccomp(Enum):
    """Which filter of system calls: our own one, or none."""

    DEFAULT = "default"
    UNCONFINED = "unconfined"


@dataclass(frozen=True)
class User:
    """Ids inside the container; ``groups`` are supplementary; ``home`` may be empty."""

    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    home: str = ""


@dataclass(frozen=True)
class MountPlan:
    """One mount besides those that every container has; replaces the one at the same place."""

    destination: str
    type: str
    source: str
    options: tuple[str, ...]


@dataclass(frozen=True)
class Limits:
    """``None``: no limit. ``swap_limited`` says whether this kernel can count swap."""

    cpu_millicores: int | None = None
    cpu_request_millicores: int | None = None
    memory_bytes: int | None = None
    pids: int | None = None
    cpuset: str = ""
    swap_limited: bool = True


@dataclass(frozen=True)
class Rlimit:
    """For example ``Rlimit("RLIMIT_NOFILE", 1024, 65536)``."""

    name: str
    soft: int
    hard: int


@dataclass(frozen=True)
class Device:
    """A device node of the host; ``type`` is "c" or "b"."""

    path: str
    type: str
    major: int
    minor: int
    mode: int
    uid: int = 0
    gid: int = 0


@dataclass(frozen=True, kw_only=True)
class ContainerPlan:
    """Everything about one container.

    ``network_namespace`` is the path of a namespace, or empty for a new one that goes with
    the container; ``None`` means the host's own.
    ``capabilities`` is the bounding set (``capabilities.choose``); ``env`` holds "K=V".
    ``seccomp`` may also be a profile in the form of the OCI spec.
    """

    args: tuple[str, ...]
    env: tuple[str, ...] = ()
    cwd: str = "/"
    user: User = User()
    terminal: bool = False
    hostname: str
    cgroup_path: str
    network_namespace: str | None
    host_pid: bool = False
    host_ipc: bool = False
    mounts: tuple[MountPlan, ...] = ()
    shm_bytes: int = DEFAULT_SHM_BYTES
    limits: Limits = Limits()
    rlimits: tuple[Rlimit, ...] = ()
    oom_score_adj: int | None = None
    read_only_root: bool = False
    capabilities: tuple[str, ...] = capabilities.DEFAULT
    privileged: bool = False
    devices: tuple[Device, ...] = ()
    no_new_privileges: bool = True
    seccomp: Seccomp | Mapping[str, Any] = Seccomp.DEFAULT
    apparmor_profile: str = ""
    sysctls: Mapping[str, str] = field(default_factory=dict)
    masked_paths: tuple[str, ...] = MASKED_PATHS
    readonly_paths: tuple[str, ...] = READONLY_PATHS


def bind_mount(source: str, destination: str, *, read_only: bool) -> MountPlan:
    """A file or folder of the node, without what is mounted below it."""
    # Not recursive: the kernel makes only the top of a recursive mount read-only.
    access = "ro" if read_only else "rw"
    return MountPlan(destination, "bind", source, ("bind", "rprivate", access, "nosuid", "nodev"))


def tmpfs_mount(
    destination: str, *, size_bytes: int | None, mode: int = 0o1777, read_only: bool = False
) -> MountPlan:
    """Memory that counts towards the container's limit; gone with the container."""
    options = ["nosuid", "nodev", f"mode={mode:o}"]
    if size_bytes is not None:
        options.append(f"size={size_bytes}")
    if read_only:
        options.append("ro")
    return MountPlan(destination, "tmpfs", "tmpfs", tuple(options))
