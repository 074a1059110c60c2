"""The machine's IPv4 addresses, asked of the kernel: what ports of the node can be bound to.

For the node's description. Loopback and the bridges of nodes are left out: nobody reaches
a port from elsewhere by these.
"""

from __future__ import annotations

import array
import fcntl
import re
import socket
import struct

#: netdevice(7): all addresses of all interfaces, 40 bytes each.
_SIOCGIFCONF = 0x8912
_ENTRY_BYTES = 40
#: Most addresses that are looked at.
MAX_ADDRESSES = 256
#: ``network.names.Names.bridge`` of any node on this machine.
_BRIDGE = re.compile(r"cl-[0-9a-f]{8}")


def local_addresses() -> tuple[str, ...]:
    """Every address once, in the kernel's order; empty when it does not tell."""
    room = array.array("B", bytes(MAX_ADDRESSES * _ENTRY_BYTES))
    place, size = room.buffer_info()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        try:
            answer = fcntl.ioctl(asking, _SIOCGIFCONF, struct.pack("iL", size, place))
        except OSError:
            return ()
    used = struct.unpack("iL", answer)[0]
    return addresses_in(room.tobytes()[:used])


def addresses_in(entries: bytes) -> tuple[str, ...]:
    """The addresses of a kernel's answer: name (16 bytes), family, port, address, padding.

    >>> one = b"eth0".ljust(16, bytes(1)) + bytes([2, 0, 0, 0, 10, 0, 0, 5]) + bytes(16)
    >>> bridge = b"cl-00c0ffee".ljust(16, bytes(1)) + bytes([2, 0, 0, 0, 10, 88, 0, 1]) + bytes(16)
    >>> addresses_in(one + bridge + one)
    ('10.0.0.5',)
    """
    found: dict[str, None] = {}
    for start in range(0, len(entries) - _ENTRY_BYTES + 1, _ENTRY_BYTES):
        name = entries[start : start + 16].partition(b"\0")[0].decode(errors="replace")
        address = socket.inet_ntoa(entries[start + 20 : start + 24])
        if not address.startswith("127.") and not _BRIDGE.fullmatch(name.partition(":")[0]):
            found[address] = None
    return tuple(found)
