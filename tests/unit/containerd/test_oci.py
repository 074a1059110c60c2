from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from cloudless.containerd import capabilities, oci
from cloudless.containerd.errors import InvalidRequest
from cloudless.containerd.plan import (
    DEFAULT_PATH,
    ContainerPlan,
    Device,
    Limits,
    Rlimit,
    Seccomp,
    User,
    bind_mount,
    tmpfs_mount,
)

PLAN = ContainerPlan(args=("run",), hostname="h", cgroup_path="/c/x", network_namespace="/run/netns/x")


def built(**changes: Any) -> dict[str, Any]:
    spec: dict[str, Any] = json.loads(oci.build_spec(dataclasses.replace(PLAN, **changes)))
    return spec


def kinds(spec: dict[str, Any]) -> set[str]:
    return {namespace["type"] for namespace in spec["linux"]["namespaces"]}


def mounts(spec: dict[str, Any]) -> dict[str, Any]:
    return {mount["destination"]: mount for mount in spec["mounts"]}


def test_the_defaults_are_closed() -> None:
    spec = built()
    process, linux = spec["process"], spec["linux"]
    assert process["noNewPrivileges"] is True
    assert "CAP_NET_RAW" not in process["capabilities"]["bounding"]
    assert linux["seccomp"]["defaultAction"] == "SCMP_ACT_ERRNO"
    assert "/proc/keys" in linux["maskedPaths"]
    assert "/proc/sys" in linux["readonlyPaths"]
    assert linux["resources"]["devices"] == [{"allow": False, "access": "rwm"}]
    assert kinds(spec) == {"pid", "ipc", "uts", "mount", "cgroup", "network"}
    assert {"type": "network", "path": "/run/netns/x"} in linux["namespaces"]
    assert "ro" in mounts(spec)["/sys"]["options"]
    assert process["env"] == [f"PATH={DEFAULT_PATH}"]


def test_the_same_plan_gives_the_same_bytes() -> None:
    assert oci.build_spec(PLAN) == oci.build_spec(dataclasses.replace(PLAN))


def test_host_namespaces() -> None:
    spec = built(host_pid=True, host_ipc=True, network_namespace=None)
    assert kinds(spec) == {"uts", "mount", "cgroup"}
    assert mounts(spec)["/dev/shm"]["source"] == "/dev/shm"


def test_a_network_namespace_of_its_own() -> None:
    assert {"type": "network"} in built(network_namespace="")["linux"]["namespaces"]


def test_privileged_opens_what_the_default_closes() -> None:
    device = Device("/dev/fuse", "c", 10, 229, 0o666)
    spec = built(privileged=True, devices=(device,), no_new_privileges=False)
    linux = spec["linux"]
    assert "seccomp" not in linux
    assert (linux["maskedPaths"], linux["readonlyPaths"]) == ([], [])
    assert linux["resources"]["devices"] == [{"allow": True, "access": "rwm"}]
    assert linux["devices"][0]["path"] == "/dev/fuse"
    assert "rw" in mounts(spec)["/sys"]["options"]


def test_a_device_alone_is_allowed_alone() -> None:
    rules = built(devices=(Device("/dev/fuse", "c", 10, 229, 0o666),))["linux"]["resources"]["devices"]
    assert rules[0]["allow"] is False
    assert rules[1] == {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "rwm"}


def test_users_and_capability_sets() -> None:
    spec = built(user=User(5, 6, (7,)))
    assert spec["process"]["user"] == {"uid": 5, "gid": 6, "additionalGids": [7]}
    sets = spec["process"]["capabilities"]
    assert sets["bounding"] == list(capabilities.DEFAULT)
    assert sets["effective"] == sets["permitted"] == []


def test_seccomp_choices() -> None:
    assert "seccomp" not in built(seccomp=Seccomp.UNCONFINED)["linux"]
    own = {"defaultAction": "SCMP_ACT_ALLOW"}
    assert built(seccomp=own)["linux"]["seccomp"] == own
    assert built(seccomp=own, privileged=True)["linux"]["seccomp"] == own


def test_small_settings() -> None:
    spec = built(
        apparmor_profile="p",
        sysctls={"a.b": "1"},
        oom_score_adj=-5,
        read_only_root=True,
        rlimits=(Rlimit("RLIMIT_NOFILE", 10, 20),),
        env=("PATH=/x", "A=1"),
    )
    process = spec["process"]
    assert process["apparmorProfile"] == "p"
    assert process["oomScoreAdj"] == -5
    assert process["rlimits"] == [{"type": "RLIMIT_NOFILE", "soft": 10, "hard": 20}]
    assert process["env"] == ["PATH=/x", "A=1"]
    assert spec["root"]["readonly"] is True
    assert spec["linux"]["sysctl"] == {"a.b": "1"}


def test_mounts_replace_defaults_and_come_after_their_parents() -> None:
    spec = built(
        mounts=(
            bind_mount("/h/deep", "/data/a/b", read_only=True),
            tmpfs_mount("/data", size_bytes=5),
            tmpfs_mount("/dev/shm", size_bytes=9),
        )
    )
    order = [mount["destination"] for mount in spec["mounts"]]
    assert order.index("/data") < order.index("/data/a/b")
    assert order.count("/dev/shm") == 1
    assert "size=9" in mounts(spec)["/dev/shm"]["options"]
    assert {"ro", "nosuid", "nodev"} <= set(mounts(spec)["/data/a/b"]["options"])


@pytest.mark.parametrize(
    ("limits", "found"),
    [
        (Limits(), {}),
        (Limits(cpu_millicores=250), {"cpu": {"quota": 25_000, "period": 100_000, "shares": 256}}),
        (Limits(cpu_millicores=1), {"cpu": {"quota": 1_000, "period": 100_000, "shares": 2}}),
        (Limits(cpu_request_millicores=1500), {"cpu": {"shares": 1536}}),
        (Limits(memory_bytes=100), {"memory": {"limit": 100, "swap": 100}}),
        (Limits(memory_bytes=100, swap_limited=False), {"memory": {"limit": 100}}),
        (Limits(pids=7, cpuset="0-1"), {"cpu": {"cpus": "0-1"}, "pids": {"limit": 7}}),
    ],
)
def test_limits(limits: Limits, found: dict[str, Any]) -> None:
    assert oci.resources(limits) == found


def test_an_executed_process_is_as_confined_as_the_first() -> None:
    spec = built(env=("A=1", "B=2"), cwd="/srv", user=User(5, 6))
    process = oci.exec_process(spec, ["sh"], env=["B=3"], terminal=True, console_size=(40, 100))
    assert process["args"] == ["sh"]
    assert process["env"][-2:] == ["A=1", "B=3"]
    assert (process["cwd"], process["user"]["uid"]) == ("/srv", 5)
    assert process["noNewPrivileges"] is True
    assert process["consoleSize"] == {"height": 40, "width": 100}
    root = oci.exec_process(spec, ["sh"], user=User(0, 0), cwd="/")
    assert root["capabilities"]["effective"] == root["capabilities"]["bounding"] == list(capabilities.DEFAULT)
    assert spec["process"]["args"] == ["run"]


def test_capabilities_that_the_node_or_the_kernel_lacks() -> None:
    with pytest.raises(InvalidRequest, match="CAP_SYS_TIME"):
        capabilities.choose(["sys_time"], [], available=capabilities.DEFAULT)
    with pytest.raises(InvalidRequest, match="nonsense"):
        capabilities.choose(["nonsense"], [])
    less = tuple(name for name in capabilities.ALL if name != "CAP_SYS_RESOURCE")
    assert capabilities.choose([], [], privileged=True, available=less) == less
    assert capabilities.choose(["ALL"], ["CAP_KILL"], available=less) == tuple(
        name for name in less if name != "CAP_KILL"
    )
    assert capabilities.choose([], ["ALL"]) == ()
