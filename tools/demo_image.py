"""Make the demo's image from the machine's own busybox: nothing is pulled.

Run as ``python tools/demo_image.py OUT.tar NAME:TAG``: writes a docker archive whose
program answers HTTP on port 8080 with the name of its replica and its revision. The tag
``broken`` makes an image whose program ends at once, for ``./demo --break``.
"""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path

BUSYBOX = Path("/bin/busybox")
GOOD = """#!/bin/sh
mkdir -p /tmp/www
echo "hello from $CLOUDLESS_REPLICA, revision $CLOUDLESS_REVISION: ${GREETING:-good day}" >/tmp/www/index.html
# The first process of a container gets no default action for a signal: it must ask for SIGTERM.
# No new connections then; those that run are finished before it ends.
stop() {
  kill "$server"
  while pidof httpd >/dev/null; do sleep 0.02; done
  exit 0
}
trap stop TERM INT
httpd -f -v -p 8080 -h /tmp/www &
server=$!
echo "serving on port 8080"
wait "$server"
"""
BROKEN = """#!/bin/sh
echo "reading /etc/hello.conf"
echo "error: /etc/hello.conf: no such file" >&2
exit 3
"""


def layer(program: str) -> bytes:
    """One layer with busybox, a link per applet, and the program as /bin/hello."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for folder, mode in (("bin", 0o755), ("etc", 0o755), ("root", 0o700), ("tmp", 0o1777)):
            _add(archive, folder, mode, kind=tarfile.DIRTYPE)
        _add(archive, "bin/busybox", 0o755, BUSYBOX.read_bytes())
        applets = subprocess.run(
            [BUSYBOX, "--list"], capture_output=True, text=True, check=True
        ).stdout.split()
        for applet in applets:
            if applet != "busybox":
                _add(archive, f"bin/{applet}", 0o777, kind=tarfile.SYMTYPE, target="busybox")
        _add(archive, "etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1000::/tmp:/bin/sh\n")
        _add(archive, "etc/group", 0o644, b"root:x:0:\nweb:x:1000:\n")
        _add(archive, "bin/hello", 0o755, program.encode())
    return buffer.getvalue()


def write_archive(out: Path, reference: str, program: str) -> None:
    """Write a docker archive of one layer that holds ``program``."""
    content = layer(program)
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Env": ["PATH=/bin"], "Cmd": ["/bin/hello"], "ExposedPorts": {"8080/tcp": {}}},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(content).hexdigest()]},
        "history": [{"created_by": "tools/demo_image.py"}],
    }
    config_bytes = json.dumps(config).encode()
    config_name = hashlib.sha256(config_bytes).hexdigest() + ".json"
    manifest = [{"Config": config_name, "RepoTags": [reference], "Layers": ["layer.tar"]}]
    with tarfile.open(out, "w") as archive:
        _add(archive, "layer.tar", 0o644, content)
        _add(archive, config_name, 0o644, config_bytes)
        _add(archive, "manifest.json", 0o644, json.dumps(manifest).encode())


def _add(
    archive: tarfile.TarFile,
    name: str,
    mode: int,
    data: bytes = b"",
    kind: bytes = tarfile.REGTYPE,
    target: str = "",
) -> None:
    info = tarfile.TarInfo(name)
    info.mode, info.size, info.type, info.linkname, info.mtime = mode, len(data), kind, target, 0
    archive.addfile(info, io.BytesIO(data))


if __name__ == "__main__":
    reference = sys.argv[2]
    write_archive(Path(sys.argv[1]), reference, BROKEN if reference.endswith(":broken") else GOOD)
