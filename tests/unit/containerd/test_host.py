from __future__ import annotations

import os
import pathlib

import pytest

from cloudless.containerd.host import WANTED_OPEN_FILES, host_devices, probe


def make(tmp_path: pathlib.Path, *, status: str, files: dict[str, str]) -> tuple[pathlib.Path, pathlib.Path]:
    proc, sys = tmp_path / "proc", tmp_path / "sys"
    (proc / "self").mkdir(parents=True)
    (proc / "self/status").write_text(status)
    sys.mkdir()
    for name, content in files.items():
        path = sys / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return proc, sys


def test_an_old_node_in_a_virtual_machine(tmp_path: pathlib.Path) -> None:
    facts = probe(*make(tmp_path, status="CapBnd:\t000001fffeffffff\nSeccomp:\t0\n", files={}))
    assert facts.cgroup_version == 1
    assert "CAP_SYS_RESOURCE" not in facts.capabilities
    assert not facts.can_lower_oom_score
    assert facts.seccomp
    assert not facts.apparmor
    assert not facts.swap_limited


def test_a_new_node(tmp_path: pathlib.Path) -> None:
    files = {"fs/cgroup/cgroup.controllers": "cpu memory", "module/apparmor/parameters/enabled": "Y\n"}
    facts = probe(*make(tmp_path, status="CapBnd:\t000001ffffffffff\n", files=files))
    assert (facts.cgroup_version, facts.swap_limited, facts.apparmor, facts.seccomp) == (2, True, True, False)
    assert facts.can_lower_oom_score
    (rlimit,) = facts.default_rlimits()
    assert rlimit.soft == rlimit.hard <= WANTED_OPEN_FILES


def test_devices_without_terminals(tmp_path: pathlib.Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to make devices")
    (tmp_path / "pts").mkdir()
    (tmp_path / "dri").mkdir()
    (tmp_path / "file").write_text("")
    for name in ("null", "pts/0", "dri/card0"):
        os.mknod(tmp_path / name, 0o20666, os.makedev(1, 3))
    assert [device.path.removeprefix(f"{tmp_path}/") for device in host_devices(tmp_path)] == [
        "dri/card0",
        "null",
    ]
