"""Makes the kernel forget the flows of a UDP host port when the port changes hands.

The kernel decides once per flow where it goes; a UDP client that keeps sending from one
port would be led to a replica that is gone for ever. TCP needs nothing: a connection to
the dead ends by itself. Blocking; used on the network's worker thread.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterable

from cloudless.agent.network.limits import KERNEL_ANSWER_S

_NETFILTER = 12  # NETLINK_NETFILTER
_DELETE_FLOWS = 1 << 8 | 2
_REQUEST_ACKNOWLEDGE = 0x1 | 0x4
_NESTED = 0x8000
_TUPLE, _FILTER, _PROTOCOL = 1 | _NESTED, 25 | _NESTED, 2 | _NESTED
_NUMBER, _DESTINATION_PORT = 1, 3
#: Compare the protocol and the destination port, and nothing else.
_COMPARE = 1 << 3 | 1 << 5


def forget_udp(ports: Iterable[int]) -> None:
    """Drop every flow to these UDP ports of the host. Raises ``OSError`` (kernels before 5.19)."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETFILTER) as netfilter:
        netfilter.settimeout(KERNEL_ANSWER_S)
        for port in ports:
            netfilter.send(request(port))
            number = -struct.unpack_from("=i", netfilter.recv(4096), 16)[0]
            if number:
                raise OSError(number, f"forget flows of UDP port {port}: {os.strerror(number)}")


def request(port: int) -> bytes:
    """The message that deletes all flows to a UDP port."""
    ends = _attribute(_NUMBER, bytes([socket.IPPROTO_UDP])) + _attribute(
        _DESTINATION_PORT, struct.pack(">H", port)
    )
    compare = _attribute(1, struct.pack("=I", _COMPARE)) + _attribute(2, struct.pack("=I", 0))
    body = struct.pack("=BBH", socket.AF_INET, 0, 0)
    body += _attribute(_TUPLE, _attribute(_PROTOCOL, ends)) + _attribute(_FILTER, compare)
    return struct.pack("=IHHII", 16 + len(body), _DELETE_FLOWS, _REQUEST_ACKNOWLEDGE, 1, 0) + body


def _attribute(kind: int, data: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)
