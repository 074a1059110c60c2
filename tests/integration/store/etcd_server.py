"""A real etcd of our own: one member, its own folder, ports chosen by the kernel."""

from __future__ import annotations

import asyncio
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

START_TIMEOUT_S = 20


class EtcdServer:
    """Starts, kills and restarts one etcd on the same data and the same port."""

    def __init__(self, folder: Path, *extra: str, tls: Sequence[str] = ()) -> None:
        if shutil.which("etcd") is None:
            pytest.skip("needs etcd (Debian: etcd-server)")
        self.folder = folder
        self.client_port, self.peer_port = free_ports(2)
        self.scheme = "https" if tls else "http"
        self.extra = [*extra, *tls]
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.client_port}"

    def start(self) -> None:
        client = f"{self.scheme}://{self.address}"
        peer = f"http://127.0.0.1:{self.peer_port}"
        command = [
            *("etcd", "--name=one", f"--data-dir={self.folder / 'etcd'}"),
            *(f"--listen-client-urls={client}", f"--advertise-client-urls={client}"),
            *(f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}"),
            *(f"--initial-cluster=one={peer}", "--log-level=error", "--enable-pprof=false"),
            *("--heartbeat-interval=10", "--election-timeout=100"),
            *self.extra,
        ]
        with (self.folder / "etcd.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while not self._listens():
            assert self.process.poll() is None, (self.folder / "etcd.log").read_text()
            assert time.monotonic() < deadline_s, "etcd does not listen"
            time.sleep(0.005)

    def kill(self) -> None:
        """Power cut: nothing is flushed."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def pause(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

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

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.client_port)) == 0


def free_ports(count: int) -> list[int]:
    """Ports nobody uses at the moment, as different ones."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
