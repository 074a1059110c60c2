"""As much of Docker's API as the comparison needs, over its unix socket, one kept connection."""

from __future__ import annotations

import http.client
import json
import socket
import urllib.parse
from pathlib import Path
from typing import Any

VERSION = "v1.41"
TIMEOUT_S = 300.0


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("docker", timeout=TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(TIMEOUT_S)
        self.sock.connect(str(self._path))


class DockerApi:
    """Blocking calls; use it from one thread at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection = UnixConnection(path)

    def call(self, method: str, target: str, body: Any = None) -> Any:
        """The decoded answer, or its bytes; raises ``RuntimeError`` for a refusal."""
        if isinstance(body, bytes):
            data, kind = body, "application/x-tar"
        else:
            data, kind = (b"" if body is None else json.dumps(body).encode()), "application/json"
        self._connection.request(method, f"/{VERSION}{target}", data or None, {"Content-Type": kind})
        answer = self._connection.getresponse()
        content = answer.read()
        if answer.status >= 400:
            raise RuntimeError(f"{method} {target}: {answer.status} {content[:300]!r}")
        return json.loads(content) if content[:1] in (b"{", b"[") else content

    def execute(self, container_id: str, command: list[str]) -> int:
        """Run a command in a container, read its output to the end; its exit code."""
        wish = {"AttachStdout": True, "AttachStderr": True, "Cmd": command}
        exec_id = self.call("POST", f"/containers/{container_id}/exec", wish)["Id"]
        body = b'{"Detach":false,"Tty":false}'
        head = (
            f"POST /{VERSION}/exec/{exec_id}/start HTTP/1.1\r\nHost: docker\r\nUpgrade: tcp\r\n"
            f"Connection: Upgrade\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream:
            stream.settimeout(TIMEOUT_S)
            stream.connect(str(self.path))
            stream.sendall(head.encode() + body)
            while stream.recv(65536):
                pass
        while (state := self.call("GET", f"/exec/{exec_id}/json"))["Running"]:
            pass
        code: int = state["ExitCode"]
        return code

    def close(self) -> None:
        self._connection.close()


def filters(**wanted: str) -> str:
    """The query of a list that is filtered.

    >>> filters(service="web")
    '?filters=%7B%22service%22%3A%20%5B%22web%22%5D%7D'
    """
    given = {key.replace("_", "-"): [value] for key, value in wanted.items()}
    return "?filters=" + urllib.parse.quote(json.dumps(given))
