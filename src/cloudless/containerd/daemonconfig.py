"""The configuration of the private daemon: small, closed, in one folder (pure).

Plugins that nothing here uses are switched off; among them the restart plugin, which
acts on labels of containers. The CRI plugin stays, because it alone pulls images.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping
from dataclasses import dataclass

DISABLED_PLUGINS: tuple[str, ...] = (
    "io.containerd.internal.v1.opt",
    "io.containerd.internal.v1.restart",
    "io.containerd.internal.v1.tracing",
    "io.containerd.tracing.processor.v1.otlp",
    "io.containerd.snapshotter.v1.aufs",
    "io.containerd.snapshotter.v1.blockfile",
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.native",
    "io.containerd.snapshotter.v1.zfs",
    "io.containerd.nri.v1.nri",
)

#: A socket's path must fit into the kernel's sockaddr_un, with containerd's own ".ttrpc".
MAX_SOCKET_PATH = 107 - len(".ttrpc")

#: What of our environment the daemon may see: how to find programs, proxies, certificates.
PASSED_ENVIRONMENT: tuple[str, ...] = (
    "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "https_proxy", "http_proxy", "no_proxy",
    "SSL_CERT_DIR", "SSL_CERT_FILE", "TMPDIR",
)  # fmt: skip
DAEMON_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class DaemonLayout:
    """Where everything of the private daemon lies, below ``folder``."""

    folder: pathlib.Path

    @property
    def socket(self) -> pathlib.Path:
        """Where it listens."""
        return self.folder / "containerd.sock"

    @property
    def config(self) -> pathlib.Path:
        """Its configuration file."""
        return self.folder / "config.toml"

    @property
    def log(self) -> pathlib.Path:
        """What it says."""
        return self.folder / "containerd.log"

    @property
    def pid(self) -> pathlib.Path:
        """Who it is."""
        return self.folder / "containerd.pid"

    @property
    def registries(self) -> pathlib.Path:
        """Folder ``<host:port>/hosts.toml`` for each registry that needs settings."""
        return self.folder / "registries"


def render_config(layout: DaemonLayout, *, oom_score: int | None) -> str:
    """The configuration file. ``oom_score=None`` leaves the daemon's at ours."""
    folder = layout.folder
    lines = [
        "version = 2",
        f"root = {_text(folder / 'root')}",
        f"state = {_text(folder / 'state')}",
        f"disabled_plugins = {json.dumps(list(DISABLED_PLUGINS))}",
    ]
    if oom_score is not None:
        lines.append(f"oom_score = {oom_score}")
    lines += [
        "[grpc]",
        f"address = {_text(layout.socket)}",
        '[plugins."io.containerd.grpc.v1.cri"]',
        "disable_tcp_service = true",
        'stream_server_address = "127.0.0.1"',
        '[plugins."io.containerd.grpc.v1.cri".cni]',
        # An own empty folder: so the daemon neither reads nor watches the node's.
        f"bin_dir = {_text(folder / 'cni')}",
        f"conf_dir = {_text(folder / 'cni')}",
        '[plugins."io.containerd.grpc.v1.cri".registry]',
        f"config_path = {_text(layout.registries)}",
    ]
    return "\n".join(lines) + "\n"


def daemon_environment(ours: Mapping[str, str]) -> dict[str, str]:
    """What the daemon gets of our environment.

    >>> daemon_environment({"SECRET": "x", "NO_PROXY": "localhost"})["NO_PROXY"]
    'localhost'
    """
    passed = {name: ours[name] for name in PASSED_ENVIRONMENT if name in ours}
    path = ":".join(part for part in (ours.get("PATH", ""), DAEMON_PATH) if part)
    return {"PATH": path, **passed}


def _text(path: pathlib.Path) -> str:
    # TOML's basic strings are JSON's, for everything that can be in a path.
    return json.dumps(str(path))
