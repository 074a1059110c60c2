"""A registry of our own for tests of pulls: Debian's docker-registry on loopback."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import pathlib
import socket
import subprocess
import time
from collections.abc import Iterator
from typing import Any

from tests.integration.containerd.imagebuild import OCI_MANIFEST, OciImage, sha256
from tests.ports import free_port

START_DEADLINE_S = 20.0
USER, PASSWORD = "someone", "secret"
HASH = "$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a"


class Registry:
    """Answers at ``127.0.0.1:port``; with ``protected`` only to ``USER``."""

    def __init__(self, port: int, *, protected: bool) -> None:
        self.host = f"127.0.0.1:{port}"
        self._port = port
        self._headers = {}
        if protected:
            token = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
            self._headers["Authorization"] = f"Basic {token}"

    def push(self, repository: str, tag: str, image: OciImage) -> str:
        """Upload by the distribution API; returns the full reference."""
        for digest, data in image.blobs.items():
            begun = self._ask("POST", f"/v2/{repository}/blobs/uploads/")
            place = begun.headers["Location"].partition(self.host)[2]
            join = "&" if "?" in place else "?"
            self._ask("PUT", f"{place}{join}digest={digest}", data, "application/octet-stream")
        self._ask("PUT", f"/v2/{repository}/manifests/{tag}", image.manifest, OCI_MANIFEST)
        assert image.digest == sha256(image.manifest)
        return f"{self.host}/{repository}:{tag}"

    def push_index(self, repository: str, tag: str, index: dict[str, Any]) -> str:
        """Upload a list of manifests, which must be there; returns the full reference."""
        kind = str(index["mediaType"])
        self._ask("PUT", f"/v2/{repository}/manifests/{tag}", json.dumps(index).encode(), kind)
        return f"{self.host}/{repository}:{tag}"

    def _ask(self, method: str, path: str, body: bytes = b"", kind: str = "") -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
        with contextlib.closing(connection):
            headers = {**self._headers, **({"Content-Type": kind} if kind else {})}
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            text = answer.read()
        if answer.status >= 300:
            raise AssertionError(f"{method} {path}: {answer.status} {text!r}")
        return answer


@contextlib.contextmanager
def running_registry(folder: pathlib.Path, *, protected: bool) -> Iterator[Registry]:
    port = free_port()
    lines = [
        "version: 0.1",
        "log: {level: error}",
        f"storage: {{filesystem: {{rootdirectory: {folder}/data}}}}",
        f"http: {{addr: '127.0.0.1:{port}'}}",
    ]
    if protected:
        # htpasswd wants bcrypt; the hash is of PASSWORD.
        (folder / "users").write_text(f"{USER}:{HASH}\n")
        lines.append(f"auth: {{htpasswd: {{realm: test, path: {folder}/users}}}}")
    config = folder / "registry.yml"
    config.write_text("\n".join(lines) + "\n")
    with (folder / "registry.log").open("wb") as log:
        process = subprocess.Popen(["docker-registry", "serve", str(config)], stdout=log, stderr=log)
    try:
        deadline_s = time.monotonic() + START_DEADLINE_S
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert process.poll() is None, (folder / "registry.log").read_text()
            assert time.monotonic() < deadline_s, "the registry did not start"
            time.sleep(0.02)
        yield Registry(port, protected=protected)
    finally:
        process.kill()
        process.wait()
