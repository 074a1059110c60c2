"""Is a port of the host free, and if not, who has it.

Rules in the kernel would take packets away from a process that listens on the same
port, silently; so this asks first. Binding is tried because it is exact and costs
microseconds; only a refusal is looked into.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterable
from pathlib import Path

from cloudless.agent.network.port import ANY_ADDRESS, HostPort

#: States in /proc/net/* that hold a port against us: TCP LISTEN, and any unconnected UDP.
_HOLDING = {"tcp": "0A", "udp": "07"}


def holder_of(port: HostPort) -> str | None:
    """Who holds ``port`` on this host, for a person; None when it is free.

    An address that the host does not have (yet) cannot be held by anybody.
    """
    kind = socket.SOCK_STREAM if port.protocol == "tcp" else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, kind) as probe:
        if port.protocol == "tcp":
            # Without it, connections that linger after a close would count.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((port.host_ip, port.host_port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                return None
        else:
            return None
    inodes = listening_inodes(
        port,
        *(
            (Path("/proc/net") / name).read_text()
            for name in (port.protocol, port.protocol + "6")
            if (Path("/proc/net") / name).exists()
        ),
    )
    if not inodes:
        return None  # only outgoing connections use the number
    return _process_of(inodes) or "another process"


def listening_inodes(port: HostPort, *tables: str) -> frozenset[str]:
    """Inodes of the sockets that hold ``port`` in tables like ``/proc/net/tcp`` and ``tcp6``. Pure.

    >>> row = "0: 0100007F:1F90 00000000:0000 0A 0:0 00:0 0 0 0 4711 1"
    >>> sorted(listening_inodes(HostPort(8080, 80), "header\\n" + row))
    ['4711']
    """
    found = set()
    for table in tables:
        for line in table.splitlines()[1:]:
            fields = line.split()
            address, number = fields[1].split(":")
            if int(number, 16) != port.host_port or fields[3] != _HOLDING[port.protocol]:
                continue
            if _covers(address, port.host_ip):
                found.add(fields[9])
    return frozenset(found)


def _covers(held: str, wanted: str) -> bool:
    """Whether a socket at ``held`` (hex, host byte order) takes packets for ``wanted``.

    >>> _covers("0100007F", "127.0.0.1"), _covers("0100007F", "192.0.2.1"), _covers("0" * 32, "192.0.2.1")
    (True, False, True)
    """
    if wanted == ANY_ADDRESS or not held.strip("0"):
        return True
    # An IPv4 address in the IPv6 table ends with its four bytes after 0000FFFF.
    return bytes.fromhex(held[-8:])[::-1] == socket.inet_aton(wanted) and len(held) in (8, 32)


def _process_of(inodes: Iterable[str]) -> str | None:
    wanted = {f"socket:[{inode}]" for inode in inodes}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and _holds(entry / "fd", wanted):
            try:
                return f"{(entry / 'comm').read_text().strip()} (pid {entry.name})"
            except OSError:
                return f"pid {entry.name}"
    return None


def _holds(descriptors: Path, wanted: set[str]) -> bool:
    try:
        names = os.listdir(descriptors)
    except OSError:
        return False  # it ended, or is not ours to look at
    for name in names:
        try:
            if os.readlink(descriptors / name) in wanted:
                return True
        except OSError:
            continue  # closed in the meantime
    return False
