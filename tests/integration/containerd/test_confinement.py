"""What a container can and cannot do, as it sees it itself: /proc, cgroups, system calls."""

from __future__ import annotations

import asyncio
import pathlib
import sys

import pytest
from tests.integration.containerd.conftest import DEADLINE_S, Bench

from cloudless.containerd import capabilities, host, oci
from cloudless.containerd.plan import Limits, Seccomp, User, bind_mount, tmpfs_mount


def status(text: str) -> dict[str, str]:
    return {key: value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}


async def seen_status(bench: Bench, **changes: object) -> dict[str, str]:
    _, text = await bench.output("cat", "/proc/self/status", **changes)
    return status(text)


async def test_the_default_confinement(bench: Bench) -> None:
    seen = await seen_status(bench)
    assert capabilities.from_mask(int(seen["CapBnd"], 16)) == capabilities.choose([], [])
    assert "CAP_NET_RAW" not in capabilities.from_mask(int(seen["CapEff"], 16))
    assert seen["NoNewPrivs"] == "1"
    assert seen["Seccomp"] == "2"


async def test_a_user_other_than_root_holds_no_capabilities(bench: Bench) -> None:
    seen = await seen_status(bench, user=User(1001, 1002, (1005, 7)))
    assert seen["Uid"].split()[0] == "1001"
    assert seen["Gid"].split()[0] == "1002"
    assert sorted(seen["Groups"].split()) == ["1005", "7"]
    assert int(seen["CapEff"], 16) == int(seen["CapPrm"], 16) == 0


async def test_capabilities_can_be_dropped_and_added(bench: Bench) -> None:
    chosen = capabilities.choose(add=["NET_ADMIN"], drop=["ALL"])
    seen = await seen_status(bench, capabilities=chosen)
    assert capabilities.from_mask(int(seen["CapEff"], 16)) == ("CAP_NET_ADMIN",)


async def test_privileged_means_everything_the_node_can_give(bench: Bench) -> None:
    facts = host.probe()
    chosen = capabilities.choose([], [], privileged=True, available=facts.capabilities)
    seen = await seen_status(
        bench, privileged=True, capabilities=chosen, no_new_privileges=False, devices=host.host_devices()
    )
    assert capabilities.from_mask(int(seen["CapEff"], 16)) == facts.capabilities
    assert (seen["NoNewPrivs"], seen["Seccomp"]) == ("0", "0")


async def test_namespaces_can_be_refused_and_allowed(bench: Bench) -> None:
    denied, _ = await bench.output("unshare", "-U", "true")
    assert denied.exit_code != 0
    everything = host.probe().capabilities
    allowed, _ = await bench.output("unshare", "-m", "true", capabilities=everything)
    assert allowed.exit_code == 0


@pytest.mark.parametrize("mode", ["default", "unconfined", "own"])
async def test_the_filter_of_system_calls(bench: Bench, mode: str) -> None:
    """mkdir is refused by an own profile only."""
    own = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}],
    }
    chosen = {"default": Seccomp.DEFAULT, "unconfined": Seccomp.UNCONFINED, "own": own}[mode]
    ended, _ = await bench.output("mkdir", "/tmp/x", seccomp=chosen)
    assert (ended.exit_code == 0) is (mode != "own")


async def test_limits_are_seen_from_inside(bench: Bench) -> None:
    facts = host.probe()
    if facts.cgroup_version != 1:
        pytest.skip("reads the files of cgroup v1")
    files = ("memory/memory.limit_in_bytes", "cpu/cpu.cfs_quota_us", "cpu/cpu.shares", "pids/pids.max")
    paths = [f"/sys/fs/cgroup/{file}" for file in files]
    wanted = Limits(
        cpu_millicores=300,
        cpu_request_millicores=100,
        memory_bytes=64 << 20,
        pids=20,
        swap_limited=facts.swap_limited,
    )
    _, text = await bench.output("cat", *paths, limits=wanted)
    assert text.split() == [str(64 << 20), "30000", "102", "20"]


async def test_limits_can_be_changed_while_it_runs(bench: Bench) -> None:
    if host.probe().cgroup_version != 1:
        pytest.skip("reads the files of cgroup v1")
    container_id = await bench.start(limits=Limits(cpu_millicores=300, pids=20))
    await bench.client.tasks.update_resources(
        container_id, oci.resources(Limits(cpu_millicores=600, pids=30))
    )
    result = await bench.exec(
        container_id, "cat", "/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "/sys/fs/cgroup/pids/pids.max"
    )
    assert result.stdout.split() == [b"60000", b"30"]


async def test_processes_are_counted(bench: Bench) -> None:
    # Room enough for the threads that the runtime's own first process may still begin.
    ended, text = await bench.output(
        "sh", "-c", "for i in $(seq 40); do sleep 5 & done; echo all", limits=Limits(pids=20)
    )
    assert ended.exit_code != 0
    assert "all" not in text


async def test_metrics_tell_of_limits_and_use(bench: Bench) -> None:
    container_id = await bench.start("sh", "-c", "while :; do :; done", limits=Limits(memory_bytes=64 << 20))
    async with asyncio.timeout(DEADLINE_S):
        while True:
            first = (await bench.client.tasks.metrics(container_id))[0]
            if first.pids == 1:
                break
            # Until the runtime's first process becomes the shell, it has threads, which count.
            await asyncio.sleep(0.02)
    await bench.exec(container_id, "sh", "-c", "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done")
    second = (await bench.client.tasks.metrics(container_id))[0]
    assert first.container_id == container_id
    assert first.memory_limit_bytes == 64 << 20
    assert 0 < first.memory_bytes < 64 << 20
    assert second.cpu_ns > first.cpu_ns


async def test_files_of_the_kernel_are_hidden_or_fixed(bench: Bench) -> None:
    # Into one pipe: two would be copied into the log as they come, and cut each other's lines.
    script = """
        exec 2>&1
        cat /proc/interrupts | wc -c
        echo 1 > /proc/sys/kernel/panic || echo fixed
        echo 1 > /sys/kernel/mm/ksm/run || echo fixed
        ls /sys/firmware | wc -l
    """
    _, text = await bench.output("sh", "-c", script)
    lines = [line for line in text.splitlines() if "ead-only" not in line]
    assert lines == ["0", "fixed", "fixed", "0"]


async def test_a_read_only_root_leaves_its_mounts_writable(bench: Bench, tmp_path: pathlib.Path) -> None:
    shared = tmp_path / "shared"
    fixed = tmp_path / "fixed"
    shared.mkdir(0o777)
    fixed.mkdir(0o777)
    script = """
        touch /x 2>/dev/null || echo root fixed
        touch /data/x && echo data
        touch /fixed/x 2>/dev/null || echo volume fixed
        touch /scratch/x && df -k /scratch | tail -1 | awk '{print $2}'
        df -k /dev/shm | tail -1 | awk '{print $2}'
    """
    _, text = await bench.output(
        "sh",
        "-c",
        script,
        read_only_root=True,
        shm_bytes=1 << 20,
        mounts=(
            tmpfs_mount("/scratch", size_bytes=2 << 20),
            bind_mount(str(shared), "/data", read_only=False),
            bind_mount(str(fixed), "/fixed", read_only=True),
        ),
    )
    assert text.splitlines() == ["root fixed", "data", "volume fixed", "2048", "1024"]
    assert (shared / "x").exists()
    assert not list(fixed.iterdir())


async def test_names_namespaces_and_settings(bench: Bench) -> None:
    _, text = await bench.output(
        "sh",
        "-c",
        "hostname; cat /proc/sys/net/ipv4/ip_unprivileged_port_start; cat /proc/self/oom_score_adj; echo $$",
        hostname="renamed",
        sysctls={"net.ipv4.ip_unprivileged_port_start": "0"},
        oom_score_adj=500,
    )
    assert text.splitlines() == ["renamed", "0", "500", "1"]


async def test_the_network_is_private_or_the_hosts(bench: Bench) -> None:
    _, private = await bench.output("ls", "/sys/class/net")
    assert private.split() == ["lo"]
    _, shared = await bench.output("cat", "/proc/net/dev", network_namespace=None)
    on_host = {
        line.split(":")[0].strip() for line in pathlib.Path("/proc/net/dev").read_text().splitlines()[2:]
    }
    assert {line.split(":")[0].strip() for line in shared.splitlines()[2:]} >= on_host & {"lo", "eth0"}


async def test_host_pid_and_ipc(bench: Bench) -> None:
    _, text = await bench.output("sh", "-c", "echo $$; cat /proc/1/comm", host_pid=True, host_ipc=True)
    pid, first = text.split()
    assert int(pid) > 1
    assert first == pathlib.Path("/proc/1/comm").read_text().strip()


async def test_python_and_a_server_run_under_the_default_filter(bench: Bench) -> None:
    """The node's own Python, on a read-only view of the node's files."""
    script = (
        "import threading, subprocess, socket, ssl, asyncio, multiprocessing, tempfile, os\n"
        "t = threading.Thread(target=print, args=('thread',)); t.start(); t.join()\n"
        "p = subprocess.run(['/bin/busybox', 'echo', 'child'], capture_output=True, text=True)\n"
        "print(p.stdout.strip())\n"
        "async def main():\n"
        "    s = await asyncio.start_server(lambda r, w: w.close(), '127.0.0.1', 0)\n"
        "    r, w = await asyncio.open_connection(*s.sockets[0].getsockname())\n"
        "    print('server', await r.read())\n"
        "    w.close(); s.close()\n"
        "asyncio.run(main())\n"
    )
    mounts = tuple(
        bind_mount(folder, folder, read_only=True)
        for folder in dict.fromkeys(("/usr", "/lib", "/lib64", sys.base_prefix))
        if pathlib.Path(folder).exists()
    )
    python = f"{sys.base_prefix}/bin/python3"
    ended, text = await bench.output(python, "-c", script, mounts=mounts)
    if ended.exit_code == 126:
        pytest.skip("the node's Python does not run here")
    assert text.split() == ["thread", "child", "server", "b''"]
