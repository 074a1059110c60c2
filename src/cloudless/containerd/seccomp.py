"""The default filter of system calls, as a seccomp profile of the OCI spec (pure).

The names live in ``seccomp.json``, sorted by theme; some are open only to containers
whose bounding set has a certain capability. Three calls depend on their arguments:
``clone`` may make no namespaces, ``socket`` opens only the usual families, and
``personality`` stays close to normal. What is not named fails with EPERM.
"""

from __future__ import annotations

import functools
import importlib.resources
import json
import platform
from collections.abc import Mapping, Sequence
from typing import Any

DATA_FILE = "seccomp.json"

EPERM = 1
ENOSYS = 38

#: Machine -> its own table of system calls. The 32-bit tables are left out: they are the
#: less tested half of the kernel, and each costs every start some milliseconds. Programs
#: that need one must bring their own profile.
ARCHITECTURES: Mapping[str, tuple[str, ...]] = {
    "x86_64": ("SCMP_ARCH_X86_64",),
    "aarch64": ("SCMP_ARCH_AARCH64",),
    "riscv64": ("SCMP_ARCH_RISCV64",),
}

#: CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET (linux/sched.h).
NEW_NAMESPACE_FLAGS = 0x7E020000
#: AF_UNIX, AF_INET, AF_INET6, AF_NETLINK, AF_PACKET (which needs CAP_NET_RAW besides).
SOCKET_FAMILIES: tuple[int, ...] = (1, 2, 10, 16, 17)
#: PER_LINUX and PER_LINUX32, each also with UNAME26, and the query for the current one.
PERSONALITIES: tuple[int, ...] = (0x0, 0x0008, 0x20000, 0x20008, 0xFFFFFFFF)


def default_profile(capabilities: Sequence[str], machine: str = platform.machine()) -> dict[str, Any]:
    """The profile for a container with this bounding set. The answer must not be changed.

    >>> profile = default_profile(("CAP_CHOWN",), "x86_64")
    >>> profile["defaultAction"], any("mount" in rule["names"] for rule in profile["syscalls"])
    ('SCMP_ACT_ERRNO', False)
    """
    return _profile(tuple(capabilities), machine)


@functools.lru_cache(maxsize=64)
def _profile(capabilities: tuple[str, ...], machine: str) -> dict[str, Any]:
    table = _table()
    names = {name for group in table["allowed"].values() for name in group}
    for capability in capabilities:
        names.update(table["with_capability"].get(capability, ()))
    rules = [_allow(sorted(names))]
    if "CAP_SYS_ADMIN" in capabilities:
        rules.append(_allow(["clone"]))
    else:
        rules.append(_allow(["clone"], {"index": 0, "op": "SCMP_CMP_MASKED_EQ"}, NEW_NAMESPACE_FLAGS, 0))
        # Its flags lie in memory, where a filter cannot look. ENOSYS makes C libraries
        # fall back to clone.
        rules.append({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS})
    rules += [_allow(["socket"], {"index": 0, "op": "SCMP_CMP_EQ"}, family) for family in SOCKET_FAMILIES]
    rules += [_allow(["personality"], {"index": 0, "op": "SCMP_CMP_EQ"}, kind) for kind in PERSONALITIES]
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": EPERM,
        "architectures": list(ARCHITECTURES.get(machine, ())),
        "syscalls": rules,
    }


def _allow(
    names: list[str], argument: Mapping[str, Any] | None = None, value: int = 0, value_two: int = 0
) -> dict[str, Any]:
    rule: dict[str, Any] = {"names": names, "action": "SCMP_ACT_ALLOW"}
    if argument is not None:
        rule["args"] = [{**argument, "value": value, "valueTwo": value_two}]
    return rule


@functools.cache
def _table() -> dict[str, dict[str, list[str]]]:
    text = importlib.resources.files(__package__).joinpath(DATA_FILE).read_text()
    table: dict[str, dict[str, list[str]]] = json.loads(text)
    return table
