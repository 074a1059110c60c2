"""The whole program as its own process, on real parts, used as a stranger would use it.

``Served`` starts and kills ``cloudless serve`` and runs ``cloudless`` verbs against it;
what runs is read from containerd and /proc, never from the program's own word alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from typing import Any

from tests.integration.conftest import open_client
from tests.ports import free_ports

import cloudless
from cloudless.containerd.tasks import TaskStatus

LIMIT_S = 30.0
POLL_S = 0.02
NODE_LABEL = "cloudless.io/node"
REPLICA_LABEL = "cloudless.io/replica"


@dataclasses.dataclass(frozen=True)
class Result:
    """What a command line said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def said(self) -> str:
        return self.out + self.err


@dataclasses.dataclass(frozen=True)
class Running:
    """A container as containerd lists it."""

    container_id: str
    replica_id: str
    workload_id: str
    attempt: int
    pid: int


def until(fits: Callable[[], Any], what: str, limit_s: float = LIMIT_S) -> Any:
    """Look again and again until something is so; returns it."""
    end_s = time.monotonic() + limit_s
    while not (found := fits()):
        assert time.monotonic() < end_s, f"not so after {limit_s:g} s: {what}"
        time.sleep(POLL_S)
    return found


def environment(**changes: str) -> dict[str, str]:
    """For our own programs: this source, no settings of whoever runs the tests."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CLOUDLESS_")}
    path = os.pathsep.join(path for path in sys.path if path)
    return {**kept, "PYTHONPATH": path, "HOME": "/nonexistent", **changes}


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "cloudless", *words]


class Served:
    """One ``cloudless serve``; ``start`` it again as often as needed."""

    def __init__(self, data_dir: pathlib.Path, *flags: str, address: str = "", containerd: str = "private"):
        self.data_dir = data_dir
        api, http, agent = free_ports(3)
        self.address = address or f"127.0.0.1:{api}"
        self.http_address = f"127.0.0.1:{http}"
        self.agent_address = f"127.0.0.1:{agent}"
        self.containerd = containerd
        self.flags = [
            *("--data-dir", str(data_dir), "--containerd", containerd),
            *("--api-address", self.address, "--http-address", self.http_address),
            *("--agent-address", self.agent_address, "--node-name", "node-1", "--log-format", "json"),
            *flags,
        ]
        self.log = data_dir.with_suffix(".log")
        self.process: subprocess.Popen[bytes] | None = None

    # The process.

    def start(self, *, ready: bool = True) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command("serve", *self.flags), stdout=log, stderr=log, env=environment()
            )
        if ready:
            self.until_ready()

    def until_ready(self) -> None:
        def is_ready() -> bool:
            assert self.process is None or self.process.poll() is None, self.log.read_text()[-4000:]
            return self.http("/readyz")[0] == 200 and listens(self.agent_address)

        until(is_ready, "the program is ready")

    def kill(self, number: int = signal.SIGKILL) -> None:
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(LIMIT_S)
            self.process = None

    def kill_containerd(self) -> None:
        pid = self.containerd_pid()
        os.kill(pid, signal.SIGKILL)
        until(lambda: not alive(pid), "containerd is dead")

    def containerd_pid(self) -> int:
        config = str(self.data_dir / "containerd")
        found = [
            pid for pid, words in processes() if words[0].endswith("containerd") and config in " ".join(words)
        ]
        assert found, "no containerd runs"
        return found[0]

    def http(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://{self.http_address}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    # Using it.

    def cli(self, *words: str, stdin: bytes | str | None = None, code: int | None = 0) -> Result:
        """Run a verb; ``code`` is the exit code that is expected (None: any)."""
        result = run_cli(*words, address=self.address, agent=self.agent_address, stdin=stdin)
        if code is not None:
            assert result.code == code, f"{words}: exit code {result.code}\n{result.said}"
        return result

    def client(self, **options: Any) -> cloudless.Client:
        return cloudless.connect(self.address, **options)

    def replicas(self, name: str, **fits: Any) -> list[dict[str, Any]]:
        """The replicas of a workload as the API tells of them."""
        found = self.cli("get", "replicas", name, "-o", "json").json
        items = found.get("items", [found])  # one is no list
        return [one for one in items if all(one[key] == value for key, value in fits.items())]

    def workload_id(self, name: str) -> str:
        return str(self.cli("get", "workload", name, "-o", "json").json["id"])

    # What is really there.

    @property
    def socket(self) -> pathlib.Path:
        return self.data_dir / "containerd" / "containerd.sock"

    @property
    def node_id(self) -> str:
        return str(json.loads((self.data_dir / "agent" / "node.json").read_text())["id"])

    def running(self, name: str = "") -> list[Running]:
        """Containers that run, asked of containerd itself; of one workload or of all."""
        wanted = self.workload_id(name) if name else ""
        return [one for one in asyncio.run(self.list_running()) if wanted in ("", one.workload_id)]

    async def list_running(self) -> list[Running]:
        async with open_client(self.socket) as client:
            records = await client.containers.list(f'labels."{NODE_LABEL}"=={self.node_id}')
            tasks = {task.container_id: task for task in await client.tasks.list()}
        found = []
        for record in records:
            task = tasks.get(record.id)
            if task is not None and task.status is TaskStatus.RUNNING:
                labels = record.labels
                attempt = int(labels["cloudless.io/attempt"])
                workload = labels["cloudless.io/workload"]
                found.append(Running(record.id, labels[REPLICA_LABEL], workload, attempt, task.pid))
        return sorted(found, key=lambda one: one.container_id)

    def until_running(self, name: str, count: int) -> list[Running]:
        found: list[Running] = []

        def fits() -> bool:
            found[:] = self.running(name)
            return len(found) == count

        try:
            until(fits, f"{count} of {name}")
        except AssertionError as error:
            told = self.cli("get", "replicas", name, code=None).said
            raise AssertionError(f"{error}: there are {found}, and the program says {told}") from None
        return found

    def reset(self) -> None:
        result = run_cli("reset", "--data-dir", str(self.data_dir), "--containerd", self.containerd, "--yes")
        assert result.code == 0, result.said

    def end(self) -> None:
        """Stop it as an operator would, and remove everything."""
        self.kill(signal.SIGTERM)
        self.reset()


def run_cli(
    *words: str,
    address: str = "",
    agent: str = "",
    stdin: bytes | str | None = None,
    limit_s: float = 60.0,
    prefix: Iterable[str] = (),
    **changes: str,
) -> Result:
    """``cloudless WORDS`` as a process of its own."""
    if address:
        changes["CLOUDLESS_ADDRESS"] = address
    if agent and words[0] in ("image",):
        words = (words[0], "--agent-address", agent, *words[1:])
    data = stdin.encode() if isinstance(stdin, str) else stdin
    done = subprocess.run(
        [*prefix, *command(*words)],
        input=data if data is not None else b"",
        capture_output=True,
        timeout=limit_s,
        env=environment(**changes),
    )
    result = Result(done.returncode, done.stdout.decode(), done.stderr.decode())
    assert "Traceback" not in result.said, result.said
    return result


def processes() -> Iterable[tuple[int, list[str]]]:
    """Pids and words of everything that runs here."""
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
            if words[0]:
                yield int(folder.name), words


def listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


def alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False
