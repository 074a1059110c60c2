from __future__ import annotations

from typing import Any

import pytest

from cloudless.containerd import capabilities
from cloudless.containerd.seccomp import NEW_NAMESPACE_FLAGS, default_profile


def rules(profile: dict[str, Any], name: str) -> list[dict[str, Any]]:
    return [rule for rule in profile["syscalls"] if name in rule["names"]]


DEFAULT = default_profile(capabilities.DEFAULT, "x86_64")
EVERYTHING = default_profile(capabilities.ALL, "x86_64")


@pytest.mark.parametrize(
    "name", ["read", "openat", "execve", "futex", "epoll_wait", "rseq", "statx", "chroot", "accept4", "fork"]
)
def test_what_every_program_needs_is_allowed(name: str) -> None:
    assert [rule["action"] for rule in rules(DEFAULT, name)] == ["SCMP_ACT_ALLOW"]


@pytest.mark.parametrize(
    "name",
    [
        "mount", "umount2", "setns", "unshare", "bpf", "keyctl", "add_key", "request_key", "init_module",
        "kexec_load", "reboot", "swapon", "open_by_handle_at", "perf_event_open", "userfaultfd", "pivot_root",
        "io_uring_setup", "iopl", "acct", "settimeofday", "move_mount", "fsopen", "quotactl", "syslog",
    ],
)  # fmt: skip
def test_what_changes_the_node_is_not(name: str) -> None:
    assert rules(DEFAULT, name) == []


@pytest.mark.parametrize(
    ("name", "capability"),
    [("mount", "CAP_SYS_ADMIN"), ("reboot", "CAP_SYS_BOOT"), ("init_module", "CAP_SYS_MODULE")],
)
def test_capabilities_open_their_calls_and_no_others(name: str, capability: str) -> None:
    assert rules(default_profile((capability,), "x86_64"), name)
    others = tuple(one for one in capabilities.ALL if one != capability)
    assert not rules(default_profile(others, "x86_64"), name)


@pytest.mark.parametrize("name", ["keyctl", "io_uring_setup", "userfaultfd"])
def test_some_calls_no_capability_opens(name: str) -> None:
    assert rules(EVERYTHING, name) == []


def test_clone_makes_no_namespaces() -> None:
    (rule,) = rules(DEFAULT, "clone")
    assert rule["args"] == [
        {"index": 0, "op": "SCMP_CMP_MASKED_EQ", "value": NEW_NAMESPACE_FLAGS, "valueTwo": 0}
    ]
    (clone3,) = rules(DEFAULT, "clone3")
    assert (clone3["action"], clone3["errnoRet"]) == ("SCMP_ACT_ERRNO", 38)
    assert "args" not in rules(EVERYTHING, "clone")[0]


def test_sockets_are_of_the_usual_families() -> None:
    families = {rule["args"][0]["value"] for rule in rules(DEFAULT, "socket")}
    assert families == {1, 2, 10, 16, 17}  # and so neither AF_ALG (38) nor AF_VSOCK (40)


def test_each_machine_has_its_own_table() -> None:
    assert DEFAULT["architectures"] == ["SCMP_ARCH_X86_64"]
    assert default_profile((), "aarch64")["architectures"] == ["SCMP_ARCH_AARCH64"]
    assert DEFAULT["defaultErrnoRet"] == 1
