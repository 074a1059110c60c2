"""The three files that give a replica its names: resolv.conf, hosts, hostname.

Written into a directory of the replica and bind-mounted into its container. The
texts are pure; only ``write`` touches the disk.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cloudless.agent.network.limits import FALLBACK_NAMESERVERS, MAX_NAMESERVERS, MAX_RESOLV_CONF_BYTES

HOST_RESOLV_CONF = Path("/etc/resolv.conf")
#: Where systemd-resolved keeps the real resolvers when /etc/resolv.conf names its loopback stub.
SYSTEMD_RESOLV_CONF = Path("/run/systemd/resolve/resolv.conf")


@dataclass(frozen=True, slots=True)
class NameFiles:
    """Paths on the host; each is mounted under ``/etc`` of the container by its own name."""

    resolv_conf: Path
    hosts: Path
    hostname: Path


def resolv_conf(host_text: str, *, host_network: bool = False) -> str:
    """The host's resolv.conf for a replica: loopback resolvers mean nothing in its namespace.

    >>> print(resolv_conf("nameserver 127.0.0.53\\nnameserver 10.0.0.1\\nsearch lan\\n"), end="")
    search lan
    nameserver 10.0.0.1
    """
    kept, servers = [], []
    for line in host_text.splitlines():
        words = line.split()
        if len(words) > 1 and words[0] == "nameserver":
            if host_network or _reachable(words[1]):
                servers.append(words[1])
        elif words and words[0] in ("search", "domain", "options", "sortlist"):
            kept.append(" ".join(words))
    chosen = servers[:MAX_NAMESERVERS] or list(FALLBACK_NAMESERVERS)
    return "\n".join([*kept, *(f"nameserver {server}" for server in chosen)]) + "\n"


def hosts(hostname: str, address: str) -> str:
    """A hosts file with loopback and the replica itself.

    >>> hosts("web-0", "10.213.0.2").splitlines()[-1]
    '10.213.0.2\\tweb-0'
    """
    return (
        "127.0.0.1\tlocalhost\n"
        "::1\tlocalhost ip6-localhost ip6-loopback\n"
        "fe00::0\tip6-localnet\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n"
        f"{address}\t{hostname}\n"
    )


def write(directory: Path, *, hostname: str, address: str, host_network: bool = False) -> NameFiles:
    """Write the files into ``directory`` (made if absent); writing again is fine. Raises ``OSError``.

    Files are written in place: a running container keeps seeing the same inode.
    """
    directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    files = NameFiles(directory / "resolv.conf", directory / "hosts", directory / "hostname")
    texts = {
        files.resolv_conf: resolv_conf(_host_resolv_conf(), host_network=host_network),
        files.hosts: hosts(hostname, address),
        files.hostname: hostname + "\n",
    }
    for path, text in texts.items():
        path.write_text(text)
        path.chmod(0o644)
    return files


def _host_resolv_conf() -> str:
    text = _read(HOST_RESOLV_CONF)
    servers = [
        words[1] for words in map(str.split, text.splitlines()) if words[:1] == ["nameserver"] and words[1:]
    ]
    if servers and not any(_reachable(server) for server in servers):
        return _read(SYSTEMD_RESOLV_CONF) or text
    return text


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(MAX_RESOLV_CONF_BYTES).decode(errors="replace")
    except OSError:
        return ""


def _reachable(server: str) -> bool:
    """Whether a replica gets there from its namespace, which has IPv4 only."""
    try:
        address = ipaddress.IPv4Address(server)
    except ValueError:
        return False
    return not (address.is_loopback or address.is_unspecified or address.is_link_local)
