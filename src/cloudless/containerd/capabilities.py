"""Linux capabilities of a container: the default set, what is added and dropped (pure)."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from cloudless.containerd.errors import InvalidRequest

#: Every capability the kernel knows, by its number (linux/capability.h).
ALL: tuple[str, ...] = (
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL",
    "CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST", "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER",
    "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE", "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
)  # fmt: skip

#: What images expect of root in a container. CAP_NET_RAW is left out: with it a
#: container can forge packets of its neighbours on the same bridge.
DEFAULT: tuple[str, ...] = (
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID", "CAP_SETUID",
    "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_MKNOD", "CAP_AUDIT_WRITE", "CAP_SETFCAP",
)  # fmt: skip

EVERYTHING = "ALL"


def choose(
    add: Iterable[str], drop: Iterable[str], *, privileged: bool = False, available: Collection[str] = ALL
) -> tuple[str, ...]:
    """The bounding set: the default set (privileged: everything), less ``drop``, plus ``add``.

    Names with or without "CAP_", in any case; "ALL" stands for every one. What is added
    by name must be ``available`` on the node; privileged gets what there is. Raises
    ``InvalidRequest``.

    >>> choose(add=["net_admin"], drop=["ALL"])
    ('CAP_NET_ADMIN',)
    """
    wanted = set(available if privileged else DEFAULT)
    dropped, added = normalise(drop), normalise(add)
    wanted = set() if EVERYTHING in dropped else wanted - set(dropped)
    for name in added:
        if name == EVERYTHING:
            wanted |= set(available) - set(dropped)
        elif name not in available:
            raise InvalidRequest(f"this node cannot give {name}")
        else:
            wanted.add(name)
    missing = wanted - set(available)
    if missing and not privileged:
        raise InvalidRequest(f"this node cannot give {', '.join(sorted(missing))}")
    return tuple(name for name in ALL if name in wanted)


def normalise(names: Iterable[str]) -> tuple[str, ...]:
    """Full names. Raises ``InvalidRequest`` for a name the kernel does not know.

    >>> normalise(["net_bind_service", "CAP_KILL", "all"])
    ('CAP_NET_BIND_SERVICE', 'CAP_KILL', 'ALL')
    """
    full = []
    for name in names:
        upper = name.upper()
        if upper != EVERYTHING:
            upper = f"CAP_{upper.removeprefix('CAP_')}"
            if upper not in ALL:
                raise InvalidRequest(f"unknown capability {name!r}")
        full.append(upper)
    return tuple(full)


def from_mask(mask: int) -> tuple[str, ...]:
    """The capabilities of a mask as /proc/PID/status shows it.

    >>> from_mask(0x21)
    ('CAP_CHOWN', 'CAP_KILL')
    """
    return tuple(name for number, name in enumerate(ALL) if mask >> number & 1)
