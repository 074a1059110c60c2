"""A real etcd of our own: one member, its own folder, ports that nobody has."""

from __future__ import annotations

import asyncio
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from tests.ports import free_ports

START_TIMEOUT_S = 20


class EtcdServer:
    """Starts, kills and restarts one etcd on the same data and the same port."""

    def __init__(self, folder: Path, *extra: str, tls: Sequence[str] = (), name: str = "one") -> None:
        if shutil.which("etcd") is None:
            pytest.skip("needs etcd (Debian: etcd-server)")
        self.folder = folder
        self.name = name
        self.client_port, self.peer_port = free_ports(2)
        self.scheme = "https" if tls else "http"
        self.extra = [*extra, *tls]
        self.members = f"{name}={self.peer}"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.client_port}"

    @property
    def peer(self) -> str:
        return f"http://127.0.0.1:{self.peer_port}"

    def start(self) -> None:
        client, peer = f"{self.scheme}://{self.address}", self.peer
        command = [
            *("etcd", f"--name={self.name}", f"--data-dir={self.folder / self.name}"),
            *(f"--listen-client-urls={client}", f"--advertise-client-urls={client}"),
            *(f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}"),
            *(f"--initial-cluster={self.members}", "--log-level=error", "--enable-pprof=false"),
            *("--heartbeat-interval=10", "--election-timeout=100"),
            *self.extra,
        ]
        with (self.folder / f"{self.name}.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while not self._listens():
            assert self.process.poll() is None, (self.folder / f"{self.name}.log").read_text()
            assert time.monotonic() < deadline_s, "etcd does not listen"
            time.sleep(0.005)

    def wipe(self) -> None:
        """Forget all data, as a restore from nothing would."""
        shutil.rmtree(self.folder / self.name)

    def kill(self) -> None:
        """Power cut: nothing is flushed."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def pause(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)
        # It stops a moment later; until then it answers.
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while {one.read_text().rpartition(")")[2].split()[0] for one in self._threads()} != {"T"}:
            assert time.monotonic() < deadline_s, "etcd does not stop"
            time.sleep(0.005)

    def resume(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    async def restart(self) -> None:
        await asyncio.to_thread(self.kill)
        await asyncio.to_thread(self.start)

    def _end(self, number: int) -> None:
        if self.process is not None:
            self.process.send_signal(number)
            self.process.send_signal(signal.SIGCONT)
            self.process.wait(START_TIMEOUT_S)
            self.process = None

    def _threads(self) -> Iterator[Path]:
        assert self.process is not None
        return Path(f"/proc/{self.process.pid}/task").glob("*/stat")

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.client_port)) == 0


def cluster(folder: Path, size: int) -> list[EtcdServer]:
    """Members of one cluster, not started yet."""
    servers = [EtcdServer(folder, name=f"member{number}") for number in range(size)]
    for server in servers:
        server.members = ",".join(f"{one.name}={one.peer}" for one in servers)
    return servers
