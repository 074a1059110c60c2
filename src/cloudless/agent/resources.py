"""What this machine has and can do, and whether it can start replicas now.

Read from /proc, the file system of the data directory and the container runtime; the
node reports it when it joins and whenever it changes.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cloudless.agent.addresses import local_addresses
from cloudless.agent.config import AgentConfig
from cloudless.agent.limits import DISK_FREE_AGAIN_PERCENT, DISK_FULL_PERCENT
from cloudless.agent.runtime.port import RuntimeInfo
from cloudless.domain.node import NodeCapabilities, NodeFacts
from cloudless.domain.ports import ANY_ADDRESS
from cloudless.domain.resources import ResourceList

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True, slots=True)
class DiskUse:
    """Percent of blocks and of inodes in use; inodes 0 where the file system counts none."""

    space_percent: int
    inodes_percent: int
    total_bytes: int = 0


def read_disk(path: Path) -> DiskUse:
    """How full the file system of ``path`` is, for somebody who is not root. Raises ``OSError``."""
    stat = os.statvfs(path)
    return DiskUse(
        _percent(stat.f_blocks - stat.f_bfree, stat.f_blocks - stat.f_bfree + stat.f_bavail),
        _percent(stat.f_files - stat.f_ffree, stat.f_files),
        stat.f_blocks * stat.f_frsize,
    )


def read_memory_bytes(meminfo: Path = Path("/proc/meminfo")) -> int:
    """The machine's memory; 0 when it is not told."""
    try:
        for line in meminfo.read_text().splitlines():
            name, _, value = line.partition(":")
            if name == "MemTotal":
                return int(value.split()[0]) * 1024
    except (OSError, ValueError):
        return 0
    return 0


def capacity(data_dir: Path) -> ResourceList:
    """CPU, memory and disk that replicas may use together."""
    return ResourceList(
        cpu_millicores=len(os.sched_getaffinity(0)) * 1000,
        memory_bytes=read_memory_bytes(),
        storage_bytes=read_disk(data_dir).total_bytes,
    )


def capabilities(config: AgentConfig, info: RuntimeInfo) -> NodeCapabilities:
    """What the node can enforce and what its operator allows."""
    folder = config.seccomp_folder
    profiles = sorted(path.name for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []
    machine, addresses = platform.machine(), local_addresses()
    return NodeCapabilities(
        architecture=ARCHITECTURES.get(machine, machine),
        kernel=platform.release(),
        containerd_version=info.version,
        runtime_classes=info.runtime_classes,
        seccomp=info.seccomp,
        apparmor=info.apparmor,
        host_paths=config.host_paths,
        allow_privileged=config.allow_privileged,
        allow_host_namespaces=config.allow_host_namespaces,
        seccomp_profiles=tuple(profiles),
        address=config.node_address,
        addresses=addresses,
        publish_addresses=tuple(
            one for one in config.publish_addresses if one in addresses or one == ANY_ADDRESS
        ),
    )


class Condition:
    """Whether replicas can be started now; tells ``changed`` with the reason, or "" for yes."""

    def __init__(self, changed: Callable[[str], None]) -> None:
        self._changed = changed
        self._disk = ""
        self._runtime = ""
        self._told: str | None = None

    def disk(self, use: DiskUse) -> None:
        """The disk's state; between the two thresholds the former verdict stands.

        >>> told = []
        >>> condition = Condition(told.append)
        >>> for percent in (50, 96, 92, 89):
        ...     condition.disk(DiskUse(percent, 0))
        >>> told
        ['', 'disk pressure: 96 % of the disk is used', '']
        """
        for percent, what in ((use.space_percent, "disk"), (use.inodes_percent, "inodes")):
            if percent >= DISK_FULL_PERCENT:
                of = "of the disk is used" if what == "disk" else "of the disk's inodes are used"
                if not self._disk:
                    self._disk = f"disk pressure: {percent} % {of}"
                self._tell()
                return
        if max(use.space_percent, use.inodes_percent) < DISK_FREE_AGAIN_PERCENT:
            self._disk = ""
        self._tell()

    def runtime(self, why: str) -> None:
        """Why the runtime does not answer; empty when it does."""
        self._runtime = f"containerd is away: {why}" if why else ""
        self._tell()

    def _tell(self) -> None:
        why = "; ".join(reason for reason in (self._runtime, self._disk) if reason)
        if why != self._told:
            self._told = why
            self._changed(why)


def facts(config: AgentConfig, node_id: str, info: RuntimeInfo, *, not_ready: str, version: str) -> NodeFacts:
    """Everything that the coordinator is told about this node."""
    return NodeFacts(
        id=node_id,
        name=config.node_name,
        region=config.region,
        zone=config.zone,
        labels=config.labels,
        taints=config.taints,
        capacity=capacity(config.data_dir),
        capabilities=capabilities(config, info),
        version=version,
        not_ready=not_ready,
    )


def _percent(part: int, whole: int) -> int:
    return 0 if whole <= 0 else -(-part * 100 // whole)
