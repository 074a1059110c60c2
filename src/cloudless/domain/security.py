"""What a container may do, and what it needs permission for."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, StringConstraints, model_validator

from cloudless.domain.model import Choice, Model

#: Every capability that Linux knows, without "CAP_".
CAPABILITIES = frozenset(
    """AUDIT_CONTROL AUDIT_READ AUDIT_WRITE BLOCK_SUSPEND BPF CHECKPOINT_RESTORE CHOWN DAC_OVERRIDE
    DAC_READ_SEARCH FOWNER FSETID IPC_LOCK IPC_OWNER KILL LEASE LINUX_IMMUTABLE MAC_ADMIN MAC_OVERRIDE MKNOD
    NET_ADMIN NET_BIND_SERVICE NET_BROADCAST NET_RAW PERFMON SETFCAP SETGID SETPCAP SETUID SYS_ADMIN SYS_BOOT
    SYS_CHROOT SYS_MODULE SYS_NICE SYS_PACCT SYS_PTRACE SYS_RAWIO SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG SYSLOG
    WAKE_ALARM""".split()
)
#: Capabilities that images expect of root in a container; adding one of them needs nobody's
#: permission. Others reach the node (DAC_READ_SEARCH opens its files by handle) or neighbours
#: (NET_RAW forges their packets).
BASELINE_CAPABILITIES = frozenset(
    """AUDIT_WRITE CHOWN DAC_OVERRIDE FOWNER FSETID KILL MKNOD NET_BIND_SERVICE SETFCAP SETGID SETPCAP SETUID
    SYS_CHROOT""".split()
)
#: Sysctls that are private to a network or IPC namespace and so harm nobody else.
SAFE_SYSCTL_PREFIXES = ("net.", "fs.mqueue.", "kernel.shm", "kernel.msg", "kernel.sem")
#: User and group ids the kernel accepts.
MAX_ID = 2**31 - 1
Id = Annotated[int, Field(strict=True, ge=0, le=MAX_ID)]
SysctlName = Annotated[
    str, StringConstraints(strict=True, pattern=r"^[a-z0-9_]+(\.[a-z0-9_-]+)+$", max_length=256)
]
SysctlValue = Annotated[str, StringConstraints(strict=True, pattern=r"^[\x20-\x7e\t]*$", max_length=1024)]


class SeccompType(Choice):
    """Which filter of system calls applies."""

    RUNTIME_DEFAULT = "RUNTIME_DEFAULT"
    UNCONFINED = "UNCONFINED"
    LOCALHOST = "LOCALHOST"


class SeccompProfile(Model):
    """The filter of system calls; LOCALHOST names a file in the node's seccomp folder."""

    type: SeccompType = SeccompType.RUNTIME_DEFAULT
    localhost_profile: Annotated[str, StringConstraints(pattern=r"^([A-Za-z0-9_][A-Za-z0-9._-]*)?$")] = ""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.type is SeccompType.LOCALHOST) != bool(self.localhost_profile):
            raise ValueError("localhost_profile: goes with type LOCALHOST, and only with it")
        return self


class SecurityContext(Model):
    """Baseline by default: default seccomp, no new privileges, a small set of capabilities."""

    run_as_non_root: bool = False
    run_as_user: Id | None = None
    run_as_group: Id | None = None
    supplemental_groups: tuple[Id, ...] = Field(default=(), max_length=64)
    read_only_root_filesystem: bool = False
    capabilities_add: tuple[str, ...] = ()
    capabilities_drop: tuple[str, ...] = ()
    privileged: bool = False
    host_network: bool = False
    host_pid: bool = False
    host_ipc: bool = False
    seccomp_profile: SeccompProfile = SeccompProfile()
    apparmor_profile: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._/-]{0,128}$")] = ""
    no_new_privileges: bool = True
    sysctls: dict[SysctlName, SysctlValue] = Field(default={}, max_length=32)

    @model_validator(mode="after")
    def _whole(self) -> Self:
        for field in ("capabilities_add", "capabilities_drop"):
            for name in getattr(self, field):
                if name not in CAPABILITIES and name != "ALL":
                    raise ValueError(
                        f"{field}: {name[:40]!r} is not a capability; write for example NET_BIND_SERVICE"
                    )
        if self.run_as_non_root and self.run_as_user == 0:
            raise ValueError("run_as_user: 0 is root, which run_as_non_root forbids")
        for name in self.sysctls:
            if not name.startswith(SAFE_SYSCTL_PREFIXES):
                raise ValueError(
                    f"sysctls: {name} is not private to a container; allowed: net.*, fs.mqueue.*, ipc"
                )
            if name.startswith("net.") and self.host_network:
                raise ValueError(f"sysctls: {name} would change the node, because of host_network")
            if not name.startswith("net.") and self.host_ipc:
                raise ValueError(f"sysctls: {name} would change the node, because of host_ipc")
        return self

    @property
    def needs_permission(self) -> tuple[str, ...]:
        """Names of the fields that a node's operator must have allowed."""
        names = [
            name for name in ("privileged", "host_network", "host_pid", "host_ipc") if getattr(self, name)
        ]
        if not BASELINE_CAPABILITIES.issuperset(self.capabilities_add):
            names.append("capabilities_add")
        if self.seccomp_profile.type is SeccompType.UNCONFINED:
            names.append("seccomp_profile")
        return tuple(names)
