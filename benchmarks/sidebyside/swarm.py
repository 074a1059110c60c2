"""Docker Swarm of one node, for comparison: a dockerd of our own, in a network namespace of its own.

So its rules, bridges and ports never touch the machine's. Everything lies in one folder
and is gone afterwards. ``find`` says whether there is a dockerd at all (BENCH_DOCKERD
names one that is not on the path). Services have the default bridge network.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from sidebyside import image
from sidebyside.dockerapi import DockerApi, filters
from sidebyside.machine import descendants

START_S = 60.0
DEADLINE_S = 300.0
#: How often its state is asked for: an answer takes less than a millisecond.
LOOK_S = 0.01
SERVICE_LABEL = "com.docker.swarm.service.name"
PROGRAMS = "/usr/sbin:/usr/bin:/sbin:/bin"


class Swarm:
    """What a user does with it, timed in seconds; blocking."""

    def __init__(self, api: DockerApi, pid: int, image_id: str, command: tuple[str, ...] | None) -> None:
        self._api = api
        self.path = api.path
        self._pid = pid
        self._image = image_id
        self.command = command
        self._number = 0

    def up(self, count: int, **changes: Any) -> tuple[str, float]:
        """Create a service; seconds until all its tasks run."""
        name = self._new_name()
        began = time.perf_counter()
        self._api.call("POST", "/services/create", self._service(name, count, **changes))
        _until(lambda: self._running(name) >= count)
        return name, time.perf_counter() - began

    def down(self, name: str) -> float:
        """Remove a service; seconds until its containers are gone."""
        began = time.perf_counter()
        self._api.call("DELETE", f"/services/{name}")
        _until(lambda: not self._containers(name))
        return time.perf_counter() - began

    def heal(self) -> float:
        """kill -9 of a container's process until another one runs; no delay between restarts."""
        name, _ = self.up(1, restart={"Condition": "any", "Delay": 1})
        time.sleep(1.0)
        old = self._tasks(name)[0]["Status"]["ContainerStatus"]
        began = time.perf_counter()
        os.kill(old["PID"], signal.SIGKILL)
        _until(
            lambda: any(
                task["Status"]["State"] == "running"
                and task["Status"]["ContainerStatus"]["ContainerID"] != old["ContainerID"]
                for task in self._tasks(name)
            )
        )
        took_s = time.perf_counter() - began
        self.down(name)
        return took_s

    def execute(self, count: int) -> list[float]:
        """``true`` in a container."""
        name, _ = self.up(1)
        container_id = self.container_of(name)
        found = []
        for _ in range(count):
            began = time.perf_counter()
            assert self._api.execute(container_id, ["true"]) == 0
            found.append(time.perf_counter() - began)
        self.down(name)
        return found

    def command_output_bytes_per_s(self, script: str, size_bytes: int) -> float | None:
        """What a program writes, by ``docker exec`` into a pipe; None without such a command."""
        if self.command is None:
            return None
        name, _ = self.up(1)
        began = time.perf_counter()
        words = [*self.command, "exec", self.container_of(name), "sh", "-c", script]
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            assert process.stdout is not None
            got = sum(map(len, iter(lambda: process.stdout.read1(1 << 20), b"")))  # type: ignore[union-attr]
        took_s = time.perf_counter() - began
        assert got == size_bytes, f"{got} of {size_bytes} bytes"
        self.down(name)
        return got / took_s

    def update(self, count: int, batch: int) -> float:
        """A rolling update, ``batch`` at a time, until all tasks of the new kind run."""
        name, _ = self.up(count)
        known = self._api.call("GET", f"/services/{name}")
        spec = known["Spec"]
        spec["TaskTemplate"]["ContainerSpec"]["Env"] = ["V=2"]
        spec["UpdateConfig"]["Parallelism"] = batch
        began = time.perf_counter()
        self._api.call("POST", f"/services/{known['ID']}/update?version={known['Version']['Index']}", spec)
        _until(lambda: self._running(name, ["V=2"]) >= count)
        took_s = time.perf_counter() - began
        self.down(name)
        return took_s

    def api(self, services: int, calls: int) -> dict[str, list[float]]:
        """Create, inspect, update and list services without tasks; by the figures' names."""
        base = self._new_name()
        call = self._api.call

        def change(number: int) -> None:
            known = call("GET", f"/services/{base}-{number}")
            known["Spec"]["Labels"] = {"a": "b"}
            target = f"/services/{known['ID']}/update?version={known['Version']['Index']}"
            call("POST", target, known["Spec"])

        found = {
            "Create": _timed(
                lambda n: call("POST", "/services/create", self._service(f"{base}-{n}", 0)), services
            ),
            "Get": _timed(lambda n: call("GET", f"/services/{base}-{n % services}"), calls),
            f"List of {services}": _timed(lambda _: call("GET", "/services"), 20),
            "Scale": _timed(change, calls),
        }
        for number in range(services):
            call("DELETE", f"/services/{base}-{number}")
        return found

    def daemons(self) -> list[int]:
        """dockerd and its containerd, without shims."""
        return [self._pid, *(pid for pid in descendants(self._pid) if _program(pid) == "containerd")]

    def _new_name(self) -> str:
        self._number += 1
        return f"bench-{os.getpid()}-{self._number}"

    def container_of(self, name: str) -> str:
        """The id of the container of a service's first task."""
        found: str = self._tasks(name)[0]["Status"]["ContainerStatus"]["ContainerID"]
        return found

    def _service(
        self,
        name: str,
        count: int,
        restart: dict[str, Any] | None = None,
        command: Sequence[str] = image.COMMAND,
    ) -> dict[str, Any]:
        template: dict[str, Any] = {"ContainerSpec": {"Image": self._image, "Command": list(command)}}
        if restart is not None:
            template["RestartPolicy"] = restart
        return {
            "Name": name,
            "TaskTemplate": template,
            "Mode": {"Replicated": {"Replicas": count}},
            "UpdateConfig": {"Parallelism": 2, "Delay": 0, "Order": "stop-first"},
        }

    def _tasks(self, name: str) -> list[dict[str, Any]]:
        wanted = {"service": name, "desired_state": "running"}
        found: list[dict[str, Any]] = self._api.call("GET", "/tasks" + filters(**wanted))
        return found

    def _running(self, name: str, env: list[str] | None = None) -> int:
        return sum(
            task["Status"]["State"] == "running"
            and (env is None or task["Spec"]["ContainerSpec"].get("Env") == env)
            for task in self._tasks(name)
        )

    def _containers(self, name: str) -> list[Any]:
        query = filters(label=f"{SERVICE_LABEL}={name}")
        found: list[Any] = self._api.call("GET", f"/containers/json{query}&all=1")
        return found


def find() -> Path | None:
    """A dockerd on this machine, if there is one."""
    named = os.environ.get("BENCH_DOCKERD") or shutil.which("dockerd", path=PROGRAMS)
    return Path(named) if named else None


@contextlib.contextmanager
def running(dockerd: Path, folder: Path, archive: Path) -> Iterator[Swarm]:
    """A swarm with the image; everything of it is gone afterwards."""
    namespace = f"bench-{os.getpid()}"
    inside = ("nsenter", f"--net=/run/netns/{namespace}")
    api_path = folder / "docker.sock"
    folder.mkdir()
    subprocess.run(["ip", "netns", "add", namespace], check=True)
    try:
        subprocess.run([*inside, "ip", "link", "set", "lo", "up"], check=True)
        # Debian's docker.io has docker-proxy and docker-init beside dockerd.
        environment = {**os.environ, "PATH": f"{dockerd.parent}:{dockerd.parents[1] / 'bin'}:{PROGRAMS}"}
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [
                    *(*inside, str(dockerd), "--host", f"unix://{api_path}", "--log-level", "error"),
                    *("--data-root", str(folder / "root"), "--exec-root", str(folder / "exec")),
                    *("--pidfile", str(folder / "pid"), "--storage-driver", "overlay2"),
                ],
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        try:
            api = DockerApi(api_path)
            _until(lambda: _answers(api, process, folder / "log"), START_S)
            api.call("POST", "/images/load?quiet=1", archive.read_bytes())
            image_id = api.call("GET", f"/images/{image.REFERENCE}/json")["Id"]
            wish = {"ListenAddr": "127.0.0.1:2377", "AdvertiseAddr": "127.0.0.1", "DataPathPort": 0}
            api.call("POST", "/swarm/init", wish)
            docker = shutil.which("docker", path=environment["PATH"])
            command = None if docker is None else (docker, "--host", f"unix://{api_path}")
            yield Swarm(api, process.pid, image_id, command)
            api.call("POST", "/swarm/leave?force=1")
            api.close()
        finally:
            process.terminate()
            process.wait(timeout=START_S)
    finally:
        _clean(namespace, folder)


def _clean(namespace: str, folder: Path) -> None:
    """Unmount and delete what dockerd leaves."""
    for _ in range(3):
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
        below = [line.split()[4] for line in mounts if line.split()[4].startswith(f"{folder}/")]
        for place in sorted(below, reverse=True):
            subprocess.run(["umount", place], check=False, capture_output=True)
    subprocess.run(["ip", "netns", "delete", namespace], check=False)
    shutil.rmtree(folder, ignore_errors=True)


def _answers(api: DockerApi, process: subprocess.Popen[bytes], log: Path) -> bool:
    if process.poll() is not None:
        raise RuntimeError(f"dockerd ended: {log.read_text()[-2000:]}")
    try:
        api.call("GET", "/version")
    except (OSError, RuntimeError):
        api.close()
        return False
    return True


def _until(accept: Callable[[], bool], timeout_s: float = DEADLINE_S) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not accept():
        if time.monotonic() > deadline_s:
            raise TimeoutError
        time.sleep(LOOK_S)


def _timed(call: Callable[[int], object], count: int) -> list[float]:
    found = []
    for number in range(count):
        began = time.perf_counter()
        call(number)
        found.append(time.perf_counter() - began)
    return found


def _program(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""
