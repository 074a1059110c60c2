"""Writes a plan down as an OCI runtime spec (pure; opencontainers/runtime-spec 1.0.2).

``build_spec`` is for new containers, ``exec_process`` for a further process in one that
runs, ``resources`` for changing limits. The same plan gives the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from cloudless.containerd.plan import (
    DEFAULT_PATH,
    ContainerPlan,
    Device,
    Limits,
    MountPlan,
    Seccomp,
    User,
)
from cloudless.containerd.seccomp import default_profile

OCI_VERSION = "1.0.2"
CPU_PERIOD_US = 100_000
#: The kernel takes no smaller quota per period, and no smaller share.
MIN_CPU_QUOTA_US = 1_000
MIN_CPU_SHARES = 2
CPU_SHARES_PER_CORE = 1024
#: Of a container's own terminal, until somebody attaches to it.
CONSOLE_ROWS = 24
CONSOLE_COLUMNS = 80

_PRIVATE_FILES = ("nosuid", "noexec", "nodev")


def build_spec(plan: ContainerPlan) -> bytes:
    """The runtime spec as JSON, ready for a container record."""
    spec: dict[str, Any] = {
        "ociVersion": OCI_VERSION,
        "process": _process(plan),
        "root": {"path": "rootfs", "readonly": plan.read_only_root},
        "hostname": plan.hostname,
        "mounts": [_mount(mount) for mount in _mounts(plan)],
        "linux": _linux(plan),
    }
    return json.dumps(spec, separators=(",", ":")).encode()


def exec_process(
    spec: Mapping[str, Any],
    args: Sequence[str],
    *,
    env: Sequence[str] = (),
    cwd: str | None = None,
    user: User | None = None,
    terminal: bool = False,
    console_size: tuple[int, int] | None = None,
) -> dict[str, Any]:
    """A further process in the container of ``spec``: confined as its first one is.

    ``env`` is laid over the container's; ``console_size`` is (rows, columns).
    """
    first = spec["process"]
    process = {**first, "args": list(args), "terminal": terminal}
    process.pop("consoleSize", None)
    process["env"] = list(merge_environment(first.get("env", ()), env))
    if cwd:
        process["cwd"] = cwd
    if user is not None:
        process["user"] = _user(user)
        bounding = first.get("capabilities", {}).get("bounding", [])
        process["capabilities"] = _capability_sets(bounding, user.uid)
    if terminal and console_size is not None:
        process["consoleSize"] = {"height": console_size[0], "width": console_size[1]}
    return process


def resources(limits: Limits) -> dict[str, Any]:
    """Limits in the words of the spec.

    >>> resources(Limits(cpu_millicores=500))["cpu"]["quota"]
    50000
    """
    wanted: dict[str, Any] = {}
    cpu: dict[str, Any] = {}
    if limits.cpu_millicores is not None:
        cpu["quota"] = max(limits.cpu_millicores * CPU_PERIOD_US // 1000, MIN_CPU_QUOTA_US)
        cpu["period"] = CPU_PERIOD_US
    request = limits.cpu_request_millicores
    if request is None:
        request = limits.cpu_millicores
    if request is not None:
        cpu["shares"] = max(request * CPU_SHARES_PER_CORE // 1000, MIN_CPU_SHARES)
    if limits.cpuset:
        cpu["cpus"] = limits.cpuset
    if cpu:
        wanted["cpu"] = cpu
    if limits.memory_bytes is not None:
        wanted["memory"] = {"limit": limits.memory_bytes}
        if limits.swap_limited:
            # Memory and swap together: so the container gets no swap beyond its memory.
            wanted["memory"]["swap"] = limits.memory_bytes
    if limits.pids is not None:
        wanted["pids"] = {"limit": limits.pids}
    return wanted


def merge_environment(*layers: Sequence[str]) -> tuple[str, ...]:
    """Lists of "K=V" laid over each other: the last value wins, the first place stays.

    >>> merge_environment(["A=1", "B=2"], ["A=3"])
    ('A=3', 'B=2')
    """
    merged: dict[str, str] = {}
    for layer in layers:
        for entry in layer:
            key, _, value = entry.partition("=")
            merged[key] = value
    return tuple(f"{key}={value}" for key, value in merged.items())


def _process(plan: ContainerPlan) -> dict[str, Any]:
    env = plan.env
    if not any(entry.startswith("PATH=") for entry in env):
        env = (f"PATH={DEFAULT_PATH}", *env)
    process: dict[str, Any] = {
        "user": _user(plan.user),
        "args": list(plan.args),
        "env": list(env),
        "cwd": plan.cwd,
        "capabilities": _capability_sets(plan.capabilities, plan.user.uid),
        "noNewPrivileges": plan.no_new_privileges,
        "rlimits": [
            {"type": rlimit.name, "soft": rlimit.soft, "hard": rlimit.hard} for rlimit in plan.rlimits
        ],
    }
    if plan.terminal:
        process["terminal"] = True
        process["consoleSize"] = {"height": CONSOLE_ROWS, "width": CONSOLE_COLUMNS}
    if plan.oom_score_adj is not None:
        process["oomScoreAdj"] = plan.oom_score_adj
    if plan.apparmor_profile:
        process["apparmorProfile"] = plan.apparmor_profile
    return process


def _user(user: User) -> dict[str, Any]:
    return {"uid": user.uid, "gid": user.gid, "additionalGids": list(user.groups)}


def _capability_sets(bounding: Sequence[str], uid: int) -> dict[str, list[str]]:
    # What execve would leave of them: root keeps them, others only what files grant.
    held = list(bounding) if uid == 0 else []
    return {"bounding": list(bounding), "effective": held, "permitted": held}


def _mounts(plan: ContainerPlan) -> list[MountPlan]:
    """Defaults, with those of the plan in their places; parents before children."""
    access = "rw" if plan.privileged else "ro"
    pseudo = (*_PRIVATE_FILES, access)
    mounts = [
        MountPlan("/proc", "proc", "proc", _PRIVATE_FILES),
        MountPlan("/dev", "tmpfs", "tmpfs", ("nosuid", "strictatime", "mode=755", "size=65536k")),
        MountPlan(
            "/dev/pts",
            "devpts",
            "devpts",
            ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
        ),
        _shared_memory(plan),
        # Of the same IPC namespace as the process, so also the host's where that is wanted.
        MountPlan("/dev/mqueue", "mqueue", "mqueue", _PRIVATE_FILES),
        MountPlan("/sys", "sysfs", "sysfs", pseudo),
        MountPlan("/sys/fs/cgroup", "cgroup", "cgroup", (*pseudo, "relatime")),
    ]
    own = {mount.destination for mount in plan.mounts}
    kept = [mount for mount in mounts if mount.destination not in own]
    return [*kept, *sorted(plan.mounts, key=lambda mount: mount.destination.rstrip("/").count("/"))]


def _shared_memory(plan: ContainerPlan) -> MountPlan:
    if plan.host_ipc:
        return MountPlan("/dev/shm", "bind", "/dev/shm", ("rbind", *_PRIVATE_FILES))
    return MountPlan("/dev/shm", "tmpfs", "shm", (*_PRIVATE_FILES, "mode=1777", f"size={plan.shm_bytes}"))


def _mount(mount: MountPlan) -> dict[str, Any]:
    return {
        "destination": mount.destination,
        "type": mount.type,
        "source": mount.source,
        "options": list(mount.options),
    }


def _linux(plan: ContainerPlan) -> dict[str, Any]:
    wanted = resources(plan.limits)
    wanted["devices"] = _device_rules(plan)
    linux: dict[str, Any] = {
        "cgroupsPath": plan.cgroup_path,
        "namespaces": _namespaces(plan),
        "resources": wanted,
        "maskedPaths": [] if plan.privileged else list(plan.masked_paths),
        "readonlyPaths": [] if plan.privileged else list(plan.readonly_paths),
    }
    if plan.sysctls:
        linux["sysctl"] = dict(plan.sysctls)
    if plan.devices:
        linux["devices"] = [_device(device) for device in plan.devices]
    profile = _seccomp(plan)
    if profile is not None:
        linux["seccomp"] = profile
    return linux


def _namespaces(plan: ContainerPlan) -> list[dict[str, str]]:
    namespaces = [{"type": kind} for kind in ("uts", "mount", "cgroup")]
    if not plan.host_pid:
        namespaces.append({"type": "pid"})
    if not plan.host_ipc:
        namespaces.append({"type": "ipc"})
    if plan.network_namespace:
        namespaces.append({"type": "network", "path": plan.network_namespace})
    elif plan.network_namespace is not None:
        namespaces.append({"type": "network"})
    return namespaces


def _device_rules(plan: ContainerPlan) -> list[dict[str, Any]]:
    if plan.privileged:
        return [{"allow": True, "access": "rwm"}]
    # The OCI runtime itself adds the harmless ones (null, zero, random, tty, ...).
    rules: list[dict[str, Any]] = [{"allow": False, "access": "rwm"}]
    for device in plan.devices:
        rules.append(
            {
                "allow": True,
                "type": device.type,
                "major": device.major,
                "minor": device.minor,
                "access": "rwm",
            }
        )
    return rules


def _device(device: Device) -> dict[str, Any]:
    return {
        "path": device.path,
        "type": device.type,
        "major": device.major,
        "minor": device.minor,
        "fileMode": device.mode,
        "uid": device.uid,
        "gid": device.gid,
    }


def _seccomp(plan: ContainerPlan) -> dict[str, Any] | None:
    if plan.seccomp is Seccomp.UNCONFINED:
        return None
    if plan.seccomp is Seccomp.DEFAULT:
        # Privileged means: as root of the node. A filter would only pretend otherwise.
        return None if plan.privileged else default_profile(plan.capabilities)
    return dict(plan.seccomp)
