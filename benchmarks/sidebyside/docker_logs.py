"""Docker's logs for comparison: of one container, and of a service, with its own default driver."""

from __future__ import annotations

import contextlib
import datetime
import subprocess
import time
from collections.abc import Generator
from http.client import HTTPResponse

from sidebyside.dockerapi import VERSION, UnixConnection
from sidebyside.swarm import Swarm

READ_BYTES = 1 << 18
#: Before each line of a container without a terminal: stream, length.
FRAME_BYTES = 8
WRITTEN_S = 120.0


class DockerLogs:
    """What a user does with logs, timed; blocking."""

    def __init__(self, swarm: Swarm) -> None:
        self._swarm = swarm

    def written(self, script: str) -> str:
        """A service that wrote what ``script`` says, DONE at last, and is quiet now; its name."""
        name, _ = self._swarm.up(1, command=("sh", "-c", script))
        deadline_s = time.monotonic() + WRITTEN_S
        container_id = self._swarm.container_of(name)
        while b"DONE" not in b"".join(self._read(f"/containers/{container_id}/logs?stdout=1&tail=1")):
            if time.monotonic() > deadline_s:
                raise RuntimeError("Docker's container does not write its lines")
            time.sleep(0.1)
        return name

    def container_lines_per_s(self, name: str) -> float:
        """All lines of the container, by the API."""
        return self._lines_per_s(f"/containers/{self._swarm.container_of(name)}/logs?stdout=1")

    def service_lines_per_s(self, name: str) -> float:
        """All lines of the service, by the API."""
        return self._lines_per_s(f"/services/{name}/logs?stdout=1")

    def command_lines_per_s(self, name: str, lines: int) -> float | None:
        """All lines of the container, by ``docker logs`` into /dev/null; None without such a command."""
        if self._swarm.command is None:
            return None
        began = time.perf_counter()
        container_id = self._swarm.container_of(name)
        subprocess.run([*self._swarm.command, "logs", container_id], stdout=subprocess.DEVNULL, check=True)
        return lines / (time.perf_counter() - began)

    def tail_ms(self, name: str, times: int) -> list[float]:
        """The last 100 lines of the container, by the API."""
        container_id, found = self._swarm.container_of(name), []
        for _ in range(times):
            began = time.perf_counter()
            got = b"".join(self._read(f"/containers/{container_id}/logs?stdout=1&tail=100"))
            found.append((time.perf_counter() - began) * 1000)
            assert got.count(b"\n") == 100, got.count(b"\n")
        return found

    def delays_ms(self, talk: str, times: int) -> list[float]:
        """From a line's time stamp until it is in a client's hands."""
        name, _ = self._swarm.up(1, command=("sh", "-c", talk))
        found: list[float] = []
        query = f"/containers/{self._swarm.container_of(name)}/logs?stdout=1&follow=1&timestamps=1&tail=0"
        with contextlib.closing(self._read(query)) as pieces:
            for piece in pieces:
                now = time.time()
                stamp = piece[FRAME_BYTES:].split(b" ", 1)[0].decode()
                at = datetime.datetime.fromisoformat(stamp[:26].rstrip("Z") + "+00:00")
                found.append((now - at.timestamp()) * 1000)
                if len(found) > times:
                    break
        self._swarm.down(name)
        return found

    def down(self, name: str) -> None:
        self._swarm.down(name)

    def _lines_per_s(self, target: str) -> float:
        began, count = time.perf_counter(), 0
        for piece in self._read(target):
            count += piece.count(b"\n")
        return count / (time.perf_counter() - began)

    def _read(self, target: str) -> Generator[bytes, None, None]:
        connection = UnixConnection(self._swarm.path)
        try:
            connection.request("GET", f"/{VERSION}{target}")
            answer: HTTPResponse = connection.getresponse()
            if answer.status != 200:
                raise RuntimeError(f"{target}: {answer.status} {answer.read()[:300]!r}")
            while piece := answer.read1(READ_BYTES):
                yield piece
        finally:
            connection.close()
