"""What this node's kernel can enforce, read from /proc and /sys once at the start."""

from __future__ import annotations

import os
import pathlib
import resource
import stat
from dataclasses import dataclass

from cloudless.containerd import capabilities
from cloudless.containerd.plan import Device, Rlimit

#: Enough files for servers, and no more than a node can bear from each container.
WANTED_OPEN_FILES = 65_536


@dataclass(frozen=True)
class HostFacts:
    """``capabilities``: what we can pass on; ``cgroup_version``: 1 or 2."""

    capabilities: tuple[str, ...]
    cgroup_version: int
    swap_limited: bool
    seccomp: bool
    apparmor: bool
    open_files_hard: int

    @property
    def can_lower_oom_score(self) -> bool:
        """Whether ``oom_score_adj`` may go below our own."""
        return "CAP_SYS_RESOURCE" in self.capabilities

    def default_rlimits(self) -> tuple[Rlimit, ...]:
        """Open files, as many as wanted and allowed."""
        files = min(WANTED_OPEN_FILES, self.open_files_hard)
        return (Rlimit("RLIMIT_NOFILE", files, files),)


def probe(proc: pathlib.Path = pathlib.Path("/proc"), sys: pathlib.Path = pathlib.Path("/sys")) -> HostFacts:
    """Read the facts. Raises ``OSError`` when there is no /proc."""
    status = dict(
        line.split(":", 1) for line in (proc / "self/status").read_text().splitlines() if ":" in line
    )
    cgroup = sys / "fs/cgroup"
    version = 2 if (cgroup / "cgroup.controllers").exists() else 1
    apparmor = sys / "module/apparmor/parameters/enabled"
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return HostFacts(
        capabilities=capabilities.from_mask(int(status.get("CapBnd", "0"), 16)),
        cgroup_version=version,
        swap_limited=version == 2 or (cgroup / "memory/memory.memsw.limit_in_bytes").exists(),
        seccomp="Seccomp" in status,
        apparmor=apparmor.exists() and apparmor.read_text().strip() == "Y",
        open_files_hard=WANTED_OPEN_FILES if hard == resource.RLIM_INFINITY else hard,
    )


def host_devices(folder: pathlib.Path = pathlib.Path("/dev")) -> tuple[Device, ...]:
    """Every device node of the host, for privileged containers; terminals and shm are left out."""
    skipped = {"pts", "shm", "mqueue", "console", "fd", ".udev"}
    found: list[Device] = []
    for path in sorted(folder.rglob("*")):
        if path.relative_to(folder).parts[0] in skipped:
            continue
        info = os.lstat(path)
        kind = "c" if stat.S_ISCHR(info.st_mode) else "b" if stat.S_ISBLK(info.st_mode) else ""
        if kind:
            major, minor = os.major(info.st_rdev), os.minor(info.st_rdev)
            mode = stat.S_IMODE(info.st_mode)
            found.append(Device(str(path), kind, major, minor, mode, info.st_uid, info.st_gid))
    return tuple(found)
