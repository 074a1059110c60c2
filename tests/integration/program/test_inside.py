"""What a container sees of its limits, rights and volumes; what a node refuses to give."""

from __future__ import annotations

import pathlib
import socket
import urllib.request
from typing import Any

import pytest
from tests.integration.program.conftest import IMAGE
from tests.integration.program.served import Served, alive, until
from tests.integration.program.test_lifecycle import manifest
from tests.ports import free_ports

NET_RAW = 1 << 13
MIB = 1024 * 1024


def start(served: Served, **fields: Any) -> None:
    served.cli("apply", "-f", "-", "-q", stdin=manifest(name="web", **fields))


def sh(served: Served, line: str, *words: str, code: int | None = 0) -> str:
    return served.cli("exec", "web", *words, "--", "sh", "-c", line, code=code).out


def status(served: Served) -> dict[str, str]:
    lines = sh(served, "cat /proc/1/status").splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def test_rights_by_default(tidy: Served) -> None:
    start(tidy)
    seen = status(tidy)
    assert not int(seen["CapBnd"], 16) & NET_RAW
    assert not int(seen["CapEff"], 16) & NET_RAW
    assert (seen["Seccomp"], seen["NoNewPrivs"]) == ("2", "1")
    assert (
        "permission denied"
        in tidy.cli("exec", "web", "--", "mount", "-t", "tmpfs", "x", "/tmp", code=None).err
    )
    assert sh(tidy, "cat /proc/kcore 2>/dev/null | head -c 1 | wc -c") == "0\n"
    assert sh(tidy, "hostname; ps | wc -l").splitlines()[0] != socket.gethostname()


def test_rights_as_told(tidy: Served) -> None:
    start(
        tidy,
        security_context={
            "run_as_user": 1001,
            "run_as_group": 1002,
            "supplemental_groups": [1005],
            "run_as_non_root": True,
            "read_only_root_filesystem": True,
            "capabilities_drop": ["ALL"],
        },
    )
    assert sh(tidy, "id -u; id -g; id -G").split() == ["1001", "1002", "1002", "1005"]
    assert int(status(tidy)["CapBnd"], 16) == 0
    assert sh(tidy, "touch /x 2>&1 || echo refused").endswith("refused\n")


def test_limits(tidy: Served) -> None:
    start(tidy, resources={"limits": {"cpu": "500m", "memory": "32Mi"}})
    (running,) = tidy.running("web")
    group = pathlib.Path(f"/proc/{running.pid}/cgroup").read_text()
    values = []
    for line in group.splitlines():
        _, kinds, path = line.split(":", 2)
        folder = pathlib.Path("/sys/fs/cgroup", kinds.removeprefix("name="), path.lstrip("/"))
        for name in ("memory.limit_in_bytes", "memory.max", "cpu.cfs_quota_us", "cpu.max", "pids.max"):
            if (folder / name).exists():
                values.append(((folder / name).read_text().split()[0], name))
    numbers = {value for value, _ in values}
    assert str(32 * MIB) in numbers
    assert "50000" in numbers
    assert any(name == "pids.max" and value != "max" for value, name in values)


def test_running_out_of_memory(tidy: Served) -> None:
    start(
        tidy,
        command=["sh", "-c", "until [ -e /go ]; do sleep 0.1; done; tail /dev/zero"],
        resources={"limits": {"memory": "16Mi"}},
        restart_policy={"backoff": {"base": "60s"}},
    )
    # Not by the clock: whoever applied it looks for a while whether it stays.
    (running,) = tidy.running("web")
    pathlib.Path(f"/proc/{running.pid}/root/go").touch()
    (seen,) = until(lambda: tidy.replicas("web", phase="BACKING_OFF"), "it is killed")
    assert (seen["last_exit"]["oom_killed"], seen["last_exit"]["code"]) == (True, 137)
    assert "OOMKilled" in tidy.cli("events").out


def test_volumes(tidy: Served, allowed_folder: pathlib.Path) -> None:
    (allowed_folder / "data").mkdir(exist_ok=True)
    (allowed_folder / "data" / "here").write_text("from the node\n")
    start(
        tidy,
        volumes=[
            {"name": "node", "mount_path": "/node", "host_path": {"path": str(allowed_folder / "data")}},
            {
                "name": "ro",
                "mount_path": "/ro",
                "host_path": {"path": str(allowed_folder / "data")},
                "read_only": True,
            },
            {"name": "scratch", "mount_path": "/scratch", "empty_dir": {"size_bytes": MIB}},
            {"name": "memory", "mount_path": "/memory", "tmpfs": {"size_bytes": MIB}},
        ],
    )
    assert sh(tidy, "cat /node/here; echo back > /node/there") == "from the node\n"
    assert (allowed_folder / "data" / "there").read_text() == "back\n"
    assert sh(tidy, "echo x > /ro/y 2>/dev/null || echo refused") == "refused\n"
    assert sh(tidy, "echo x > /scratch/a && cat /scratch/a") == "x\n"
    assert sh(tidy, "grep ' /memory ' /proc/mounts").split()[2] == "tmpfs"
    full = "dd if=/dev/zero of=/memory/big bs=64k count=64 2>/dev/null; wc -c < /memory/big"
    assert int(sh(tidy, full)) <= MIB


@pytest.mark.parametrize("where", ["/etc", "ESCAPE", "ESCAPE/shadow", "ALLOWED/../x"])
def test_folders_that_are_not_allowed(tidy: Served, allowed_folder: pathlib.Path, where: str) -> None:
    escape = allowed_folder / "escape"
    if not escape.is_symlink():
        escape.symlink_to("/etc")
    path = where.replace("ESCAPE", str(escape)).replace("ALLOWED", str(allowed_folder))
    volume = {"name": "v", "mount_path": "/v", "host_path": {"path": path}}
    result = tidy.cli("apply", "-f", "-", stdin=manifest(name="web", volumes=[volume]), code=None)
    assert result.code in (1, 3, 4), result
    assert "host_path" in result.err or "host path" in result.err or "not allow" in result.err, result.err
    assert not tidy.running()


@pytest.mark.parametrize(
    ("security", "why"),
    [
        ({"apparmor_profile": "mine"}, "pparmor"),
        ({"privileged": True}, "rivileged"),
        ({"host_network": True}, "host_network"),
        ({"host_pid": True}, "host_pid"),
    ],
)
def test_what_this_node_does_not_give(tidy: Served, security: dict[str, Any], why: str) -> None:
    result = tidy.cli("apply", "-f", "-", stdin=manifest(name="web", security_context=security), code=4)
    assert why in result.err.replace("AppArmor", "apparmor")
    assert "node-1" in result.err
    assert not tidy.running()


def test_root_where_none_may_be(tidy: Served) -> None:
    text = manifest(name="web", security_context={"run_as_non_root": True})
    assert "run_as_non_root" in tidy.cli("apply", "-f", "-", stdin=text, code=3).err
    assert not tidy.running()


def serving(port: int, **more: Any) -> dict[str, Any]:
    return {
        "command": ["sh", "-c", "mkdir -p /www; hostname > /www/index.html; exec httpd -f -p 80 -h /www"],
        "ports": [{"container_port": 80, "host_port": port}],
        **more,
    }


def fetch(port: int) -> str:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=2) as answer:
            return str(answer.read().decode())
    except OSError:
        return ""


def test_host_ports(tidy: Served) -> None:
    (port,) = free_ports(1)
    start(tidy, **serving(port, readiness_probe={"http": {"port": 80}, "period": "1s"}))
    assert until(lambda: fetch(port), "it answers")
    text = manifest(name="other", **serving(port))
    refused = tidy.cli("apply", "-f", "-", stdin=text, code=4)
    assert str(port) in refused.err
    tidy.cli("delete", "web", "--wait", "-q")
    until(lambda: fetch(port), "the port is the other's now")
    tidy.cli("delete", "other", "--wait", "-q")
    assert not fetch(port)


def test_a_host_port_that_somebody_else_has(tidy: Served) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        text = manifest(name="web", **serving(port))
        result = tidy.cli("apply", "-f", "-", stdin=text, code=None)
        assert result.code in (3, 4), result
        assert str(port) in result.err


@pytest.mark.parametrize(
    "probe",
    [
        {"http": {"port": 80, "path": "/ready"}},
        {"tcp": {"port": 80}},
        {"exec": {"command": ["test", "-e", "/www/ready"]}},
    ],
    ids=["http", "tcp", "exec"],
)
def test_readiness(tidy: Served, probe: dict[str, Any]) -> None:
    web = (
        "mkdir -p /www; while [ ! -e /go ]; do sleep 0.1; done; touch /www/ready; exec httpd -f -p 80 -h /www"
    )
    text = manifest(name="web", command=["sh", "-c", web], readiness_probe={**probe, "period": "1s"})
    tidy.cli("apply", "-f", "-", "--no-wait", stdin=text)
    until(lambda: tidy.replicas("web", phase="RUNNING"), "it runs")
    (running,) = tidy.running("web")
    assert not tidy.replicas("web", ready=True)
    pathlib.Path(f"/proc/{running.pid}/root/go").touch()
    until(lambda: tidy.replicas("web", ready=True), "it is ready")


def test_liveness_restarts(tidy: Served) -> None:
    # One failure counts, so that on a busy machine no attempt may fail for being slow.
    probe = {"exec": {"command": ["test", "!", "-e", "/sick"]}, "timeout": "20s"}
    probe |= {"period": "1s", "failure_threshold": 1}
    start(tidy, liveness_probe=probe, restart_policy={"backoff": {"base": "0s"}})
    (first,) = tidy.running("web")
    pathlib.Path(f"/proc/{first.pid}/root/sick").touch()
    until(lambda: tidy.replicas("web", restarts=1, ready=True), "it is started again")
    (second,) = tidy.running("web")
    assert (second.replica_id, second.attempt) == (first.replica_id, 2)


@pytest.mark.parametrize(
    ("number", "grace", "told"), [("TERM", "20s", "TERM\n"), ("USR1", "20s", "USR1\n"), ("KILL", "1s", "")]
)
def test_stopping(tidy: Served, allowed_folder: pathlib.Path, number: str, grace: str, told: str) -> None:
    """Asked first, killed when the grace is over; another signal where one is named."""
    wanted = "TERM" if number == "KILL" else number
    trap = "trap '' TERM" if number == "KILL" else f"trap 'echo {number} > /node/told; exit 0' {number}"
    (allowed_folder / "told").write_text("")
    start(
        tidy,
        command=["sh", "-c", f"{trap}; while true; do sleep 0.1; done"],
        stop_grace_period=grace,
        stop_signal=f"SIG{wanted}",
        volumes=[{"name": "node", "mount_path": "/node", "host_path": {"path": str(allowed_folder)}}],
    )
    (running,) = tidy.running("web")
    tidy.cli("scale", "web", "0", "-q")
    until(lambda: not alive(running.pid), "it has stopped", 10)
    assert (allowed_folder / "told").read_text() == told


def test_image_is_what_runs(tidy: Served) -> None:
    start(tidy)
    (seen,) = tidy.replicas("web")
    assert seen["image_digest"].startswith("sha256:")
    assert seen["image_digest"] in tidy.cli("image", "ls").out
    assert "in use" in tidy.cli("image", "rm", IMAGE, code=None).err
