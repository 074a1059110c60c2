"""A whole agent as a process, a stage for its coordinator, a real containerd and kernel."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from tests.integration.agent.conftest import AgentProcess
from tests.integration.agent.stage import LIMIT_S, Stage, assignment
from tests.integration.conftest import RunningContainerd
from tests.ports import free_port

from cloudless import api
from cloudless.aio.clock import SystemClock
from cloudless.containerd.client import ContainerdClient
from cloudless.containerd.daemon import PrivateDaemon
from cloudless.domain.errors import CloudlessError, Denied, Invalid, NotFound
from cloudless.domain.replica import ReplicaPhase
from cloudless.transport.channel import connect

P = ReplicaPhase
FAST = {"backoff": {"base": "0s"}}


async def pid_of(client: ContainerdClient, container_id: str) -> int:
    return (await client.tasks.get(container_id)).pid


async def first_lines(stub: api.AgentServiceStub, count: int, **request: Any) -> list[bytes]:
    """So many lines of a log, once they are there."""
    lines: list[bytes] = []
    async with asyncio.timeout(LIMIT_S):
        async for entry in stub.stream_logs(api.StreamLogsRequest(follow=True, **request)):
            lines.append(entry.line)
            if len(lines) == count:
                break
    return lines


async def test_lifecycle(
    stage: Stage, agent_process: AgentProcess, containerd_client: ContainerdClient
) -> None:
    stage.tell(assignment("r1", "sh", "-c", "echo hello; hostname; cat /etc/hosts; exec sleep 1000"))
    seen = await stage.until_running("r1")
    assert (seen.ready, seen.restarts, seen.container_id) == (True, 0, "cl-r1-1")
    assert seen.image_digest.startswith("sha256:")
    stub = await stage.stub()
    lines = await first_lines(stub, 8, container_id="cl-r1")
    assert lines[:2] == [b"hello", b"web-0"]
    assert lines[-1] == f"{seen.address}\tweb-0".encode()
    stage.tell(assignment("r1", run=False))
    await stage.until_gone("r1")
    assert [one.id for one in await containerd_client.containers.list() if one.id.startswith("cl-")] == []
    assert not await containerd_client.snapshots.exists("cl-r1-1")
    data = agent_process.config.folder
    assert list((data / "replicas").iterdir()) == []
    assert "Started" in stage.reasons


@pytest.mark.parametrize(
    ("script", "code", "number", "phase"),
    [
        ("exit 0", 0, 0, P.SUCCEEDED),
        ("echo last words; exit 9", 9, 0, P.FAILED),
        ("kill -9 $$; sleep 1", 137, 9, P.FAILED),
    ],
)
async def test_exit_codes(
    stage: Stage, agent_process: AgentProcess, script: str, code: int, number: int, phase: ReplicaPhase
) -> None:
    # The shell is not the first process: that one cannot kill itself.
    command = ("sh", "-c", f"sh -c '{script}'; exit $?")
    stage.tell(assignment("r1", *command, restart_policy={"policy": "NEVER"}))
    seen = await stage.until_phase("r1", phase)
    assert seen.last_exit is not None
    assert (seen.last_exit.code, seen.last_exit.signal) == (code, number)
    assert seen.last_exit.log_tail == ("last words" if "last" in script else seen.last_exit.log_tail)


async def test_a_command_that_is_not_there(stage: Stage, agent_process: AgentProcess) -> None:
    stage.tell(assignment("r1", "no-such-program", restart_policy={"policy": "NEVER"}))
    seen = await stage.until_phase("r1", P.FAILED)
    assert seen.last_exit is not None
    assert (seen.last_exit.code, seen.last_exit.reason) == (127, "CannotExecute")


async def test_an_image_that_is_not_there(stage: Stage, agent_process: AgentProcess) -> None:
    stage.tell(assignment("r1", image="127.0.0.1:1/no/such:1", image_pull_policy="ALWAYS"))
    seen = await stage.until_phase("r1", P.BACKING_OFF)
    assert seen.message.startswith("RegistryUnavailable: ")


async def test_out_of_memory(stage: Stage, agent_process: AgentProcess) -> None:
    hungry = ("sh", "-c", "head -c 64m /dev/zero | tail")
    limits = {"limits": {"memory": "16Mi"}}
    stage.tell(assignment("r1", *hungry, resources=limits, restart_policy={"policy": "NEVER"}))
    seen = await stage.until(
        lambda: one if (one := stage.seen.get("r1")) is not None and one.last_exit is not None else None
    )
    assert seen.last_exit.oom_killed


async def test_killed_and_running_again(
    stage: Stage, agent_process: AgentProcess, containerd_client: ContainerdClient
) -> None:
    stage.tell(assignment("r1", restart_policy=FAST))
    first = await stage.until_running("r1")
    for restart in range(1, 4):
        os.kill(await pid_of(containerd_client, f"cl-r1-{restart}"), signal.SIGKILL)
        seen = await stage.until_running("r1", restarts=restart)
        assert seen.last_exit is not None
        assert (seen.last_exit.signal, seen.address) == (9, first.address)


async def test_the_agent_killed_adopts_with_no_restart_and_the_same_process(
    stage: Stage, agent_process: AgentProcess, containerd_client: ContainerdClient
) -> None:
    counting = "n=0; while sleep 0.05; do n=$((n+1)); echo $n; done"
    stage.tell(assignment("r1", "sh", "-c", counting))
    await stage.until_running("r1")
    pid = await pid_of(containerd_client, "cl-r1-1")
    for _ in range(3):
        await agent_process.kill()
        stage.seen.clear()
        await agent_process.start()
        seen = await stage.until_running("r1")
        assert (seen.restarts, seen.ready) == (0, True)
    assert await pid_of(containerd_client, "cl-r1-1") == pid
    stub = await stage.stub()
    lines = [int(entry.line) async for entry in stub.stream_logs(api.StreamLogsRequest(replica="r1"))]
    assert lines == list(range(1, len(lines) + 1))


async def test_leftovers_of_a_killed_agent_go(
    stage: Stage, agent_process: AgentProcess, containerd_client: ContainerdClient
) -> None:
    stage.tell(assignment("r1"), assignment("r2"))
    await stage.until_running("r1")
    await stage.until_running("r2")
    await agent_process.kill()
    del stage.wanted["r2"]
    await agent_process.start()
    await stage.until_gone("r2")
    ids = {one.id for one in await containerd_client.containers.list() if one.id.startswith("cl-")}
    assert ids == {"cl-r1-1"}
    assert (await stage.until_running("r1")).restarts == 0


async def test_containerd_killed_changes_nothing(
    stage: Stage,
    agent_process: AgentProcess,
    containerd_daemon: RunningContainerd,
    containerd_client: ContainerdClient,
) -> None:
    stage.tell(assignment("r1", restart_policy=FAST), assignment("r2", restart_policy=FAST))
    await stage.until_running("r1")
    await stage.until_running("r2")
    pids = [await pid_of(containerd_client, f"cl-r{number}-1") for number in (1, 2)]
    daemon = containerd_daemon.daemon
    assert daemon.pid is not None
    os.kill(daemon.pid, signal.SIGKILL)
    await daemon.wait()
    await stage.until(lambda: stage.facts is not None and "containerd is away" in stage.facts.not_ready)
    os.kill(pids[1], signal.SIGKILL)
    await daemon.start()
    seen = await stage.until_running("r2", restarts=1)
    assert seen.last_exit is not None
    assert seen.last_exit.signal == 9
    await stage.until(lambda: stage.facts is not None and not stage.facts.not_ready)
    assert (await stage.until_running("r1")).restarts == 0
    assert await pid_of(containerd_client, "cl-r1-1") == pids[0]


async def test_a_killed_shim_is_a_restart(stage: Stage, agent_process: AgentProcess) -> None:
    stage.tell(assignment("r1", restart_policy=FAST))
    await stage.until_running("r1")
    found = subprocess.run(
        ["pgrep", "-f", "containerd-shim-runc-v2 .*-id cl-r1-1 "], check=True, capture_output=True, text=True
    )
    os.kill(int(found.stdout.split()[0]), signal.SIGKILL)
    await stage.until_running("r1", restarts=1)


async def test_probes_and_a_host_port(stage: Stage, agent_process: AgentProcess) -> None:
    port = free_port()
    script = "mkdir /w; sleep 0.3; echo fine > /w/index.html; exec httpd -f -p 8000 -h /w"
    stage.tell(
        assignment(
            "r1",
            "sh",
            "-c",
            script,
            ports=[{"container_port": 8000, "host_port": port}],
            readiness_probe={"http": {"port": 8000, "path": "/index.html"}, "period": "100ms"},
        )
    )
    seen = await stage.until_running("r1", ready=True)

    def fetch(url: str) -> bytes:
        with urllib.request.urlopen(url, timeout=5) as answer:
            found: bytes = answer.read()
            return found

    for url in (f"http://{seen.address}:8000/index.html", f"http://127.0.0.1:{port}/index.html"):
        assert await asyncio.to_thread(fetch, url) == b"fine\n"


async def test_a_failing_liveness_probe_restarts(stage: Stage, agent_process: AgentProcess) -> None:
    script = "touch /ok; sleep 0.5; rm /ok; sleep 1000"
    probe = {"exec": {"command": ["test", "-e", "/ok"]}, "period": "100ms", "failure_threshold": 2}
    stage.tell(assignment("r1", "sh", "-c", script, liveness_probe=probe, restart_policy=FAST))
    seen = await stage.until_running("r1", restarts=1)
    assert seen.last_exit is not None
    assert seen.last_exit.reason == "Unhealthy"


async def test_commands(stage: Stage, agent_process: AgentProcess) -> None:
    stage.tell(assignment("r1"))
    await stage.until_running("r1")
    stub = await stage.stub()
    answer = await stub.exec_command(
        api.ExecCommandRequest(
            container_id="cl-r1", command=["sh", "-c", "echo $X; cat; exit 4"], env={"X": "1"}, stdin=b"in"
        )
    )
    assert (answer.exit_code, answer.stdout, answer.replica) == (4, b"1\nin", "web/0")
    with pytest.raises(NotFound):
        await stub.exec_command(api.ExecCommandRequest(container_id="cl-none", command=["true"]))
    with pytest.raises(Invalid, match="command"):
        await stub.exec_command(api.ExecCommandRequest(container_id="cl-r1"))


async def test_the_local_address_serves_all_but_the_life_line(
    stage: Stage, agent_process: AgentProcess
) -> None:
    stage.tell(assignment("r1", "sh", "-c", "echo hello; sleep 1000"))
    await stage.until_running("r1")
    async with connect(f"127.0.0.1:{agent_process.port}") as channel:
        stub = api.AgentServiceStub(channel)
        info = await stub.get_node_info(api.GetNodeInfoRequest())
        assert info.node is not None
        assert info.node.name == "node-1"
        assert await first_lines(stub, 1, container_id="cl-r1-1") == [b"hello"]
        with pytest.raises(Denied):
            async for _ in stub.synchronize([api.SynchronizeRequest(epoch=99, whole=True)]):
                pass
    assert (await stage.until_running("r1")).restarts == 0


async def test_logs_follow_over_a_restart(
    stage: Stage, agent_process: AgentProcess, containerd_client: ContainerdClient
) -> None:
    stage.tell(assignment("r1", "sh", "-c", "echo begin; sleep 1000", restart_policy=FAST))
    await stage.until_running("r1")
    stub = await stage.stub()
    seen: list[tuple[str, bytes]] = []
    async with asyncio.timeout(LIMIT_S):
        async for entry in stub.stream_logs(api.StreamLogsRequest(replica="r1", follow=True)):
            seen.append((entry.container_id, entry.line))
            if len(seen) == 3:
                break
            os.kill(await pid_of(containerd_client, entry.container_id), signal.SIGKILL)
    assert seen == [(f"cl-r1-{number}", b"begin") for number in (1, 2, 3)]


async def test_volumes(
    stage: Stage, agent_process: AgentProcess, containerd_client: ContainerdClient
) -> None:
    volumes = [
        {"name": "scratch", "mount_path": "/scratch", "empty_dir": {}},
        {"name": "small", "mount_path": "/small", "empty_dir": {"size_bytes": "64Ki"}},
        {"name": "memory", "mount_path": "/memory", "tmpfs": {"size_bytes": "1Mi"}},
    ]
    script = "echo x >> /scratch/f; echo x >> /small/f; echo x >> /memory/f; cat /*/f | wc -l; sleep 1000"
    stage.tell(assignment("r1", "sh", "-c", script, volumes=volumes, restart_policy=FAST))
    await stage.until_running("r1")
    stub = await stage.stub()
    # Two of three live as long as the replica, the third as long as its container.
    async with asyncio.timeout(LIMIT_S):
        lines = []
        async for entry in stub.stream_logs(api.StreamLogsRequest(replica="r1", follow=True)):
            lines.append(entry.line)
            if len(lines) == 2:
                break
            os.kill(await pid_of(containerd_client, "cl-r1-1"), signal.SIGKILL)
    assert lines == [b"3", b"5"]
    fill = ["sh", "-c", "head -c 1000000 /dev/zero > /small/g; wc -c < /small/g"]
    answer = await stub.exec_command(api.ExecCommandRequest(container_id="cl-r1-2", command=fill))
    assert 0 < int(answer.stdout) < 65536
    stage.tell(assignment("r1", run=False))
    await stage.until_gone("r1")
    assert str(agent_process.config.folder) not in pathlib.Path("/proc/mounts").read_text()


class TestHostPaths:
    @pytest.fixture
    def settings(self, settings: dict[str, Any], tmp_path: pathlib.Path) -> dict[str, Any]:
        (tmp_path / "shared" / "inner").mkdir(parents=True)
        (tmp_path / "shared" / "link").symlink_to("/etc")
        return {**settings, "host_paths": [str(tmp_path / "shared")]}

    async def test_allowed_ones_are_mounted_and_links_are_not_followed(
        self, stage: Stage, agent_process: AgentProcess, tmp_path: pathlib.Path
    ) -> None:
        def volume(path: str, **fields: Any) -> list[dict[str, Any]]:
            return [{"name": "v", "mount_path": "/v", "host_path": {"path": path}, **fields}]

        shared = tmp_path / "shared"
        script = "echo from inside > /v/note; sleep 1000"
        stage.tell(assignment("r1", "sh", "-c", script, volumes=volume(f"{shared}/inner")))
        read_only = volume(f"{shared}/inner", read_only=True)
        stage.tell(assignment("r2", "sh", "-c", "touch /v/x || exec sleep 1000", volumes=read_only))
        stage.tell(assignment("r3", volumes=volume(f"{shared}/link")))
        stage.tell(assignment("r4", volumes=volume("/etc")))
        await stage.until_running("r1")
        await stage.until_running("r2")
        for name, why in (("r3", "symbolic link"), ("r4", "is not allowed")):
            assert why in (await stage.until_phase(name, P.FAILED)).message
        # That it runs is known before it has written.
        note = shared / "inner" / "note"
        await until(lambda: note.exists() and note.read_text() == "from inside\n")
        assert not (shared / "inner" / "x").exists()


async def test_a_stop_signal_is_heard_within_the_grace(stage: Stage, agent_process: AgentProcess) -> None:
    script = "trap 'echo heard; exit 0' QUIT; echo ready; while true; do sleep 0.05; done"
    wanted = assignment("r1", "sh", "-c", script, stop_signal="SIGQUIT", stop_grace_period="20s")
    stage.tell(wanted)
    await stage.until_running("r1")
    stub = await stage.stub()
    lines: list[bytes] = []
    async with asyncio.timeout(LIMIT_S):
        async for entry in stub.stream_logs(api.StreamLogsRequest(replica="r1", follow=True)):
            lines.append(entry.line)
            if entry.line == b"ready":
                stage.tell(wanted.replaced(run=False))
    assert lines == [b"ready", b"heard"]
    await stage.until_gone("r1")


async def test_commands_of_a_killed_agent_end(stage: Stage, agent_process: AgentProcess) -> None:
    stage.tell(assignment("r1"))
    await stage.until_running("r1")
    stub = await stage.stub()
    request = api.ExecCommandRequest(container_id="cl-r1", command=["sh", "-c", "echo here; exec sleep 787"])
    async with asyncio.TaskGroup() as group:
        running = group.create_task(refused(stub.exec_command(request)))
        folder = agent_process.config.folder / "execs"
        await until(lambda: folder.is_dir() and any(folder.iterdir()) and count_processes("sleep 787") == 1)
        await agent_process.kill()
        await running
    assert count_processes("sleep 787") == 1
    await agent_process.start()
    await until(lambda: count_processes("sleep 787") == 0)
    await until(lambda: not any(folder.iterdir()))
    assert (await stage.until_running("r1")).restarts == 0


class TestPrivateContainerd:
    @pytest.fixture
    def settings(self, settings: dict[str, Any]) -> Iterator[dict[str, Any]]:
        # Not below pytest's folders: the path of a socket must be short.
        folder = pathlib.Path(tempfile.mkdtemp(prefix="agt-"))
        yield {**settings, "data_dir": folder / "d", "containerd": "private"}
        shutil.rmtree(folder)

    async def test_it_outlives_the_agent_and_is_started_again_when_it_dies(
        self, stage: Stage, agent_process: AgentProcess
    ) -> None:
        daemon = PrivateDaemon(agent_process.config.data_dir / "containerd", clock=SystemClock())
        try:
            assert await daemon.start()
            first = daemon.pid
            assert first is not None
            await agent_process.kill()
            stage.facts = None
            await agent_process.start()
            await stage.until(lambda: stage.facts is not None and not stage.facts.not_ready)
            assert await daemon.start()
            assert daemon.pid == first
            stage.troubles.clear()
            os.kill(first, signal.SIGKILL)
            # It may be back before anybody looks.
            await stage.until(lambda: any("away" in trouble for trouble in stage.troubles))
            await stage.until(lambda: stage.facts is not None and not stage.facts.not_ready)
            assert await daemon.start()
            assert daemon.pid != first
        finally:
            await agent_process.kill(signal.SIGTERM)
            await daemon.stop()


def count_processes(command: str) -> int:
    """Processes of the machine with this command line."""
    wanted = command.replace(" ", "\0").encode() + b"\0"
    count = 0
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            count += path.read_bytes() == wanted
    return count


async def until(fits: Callable[[], Any]) -> None:
    """Look at the machine until something is so."""
    async with asyncio.timeout(LIMIT_S):
        while not fits():
            await asyncio.sleep(0.02)


async def refused(call: Awaitable[object]) -> None:
    with pytest.raises(CloudlessError):
        await call
