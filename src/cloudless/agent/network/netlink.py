"""Requests to the kernel's routing socket: interfaces, addresses, routes.

The messages are encoded by pyroute2's definitions. Its package as a whole costs 12 MiB
and 70 ms in every agent; the definitions alone cost 2 MiB and 10 ms, so only those are
imported, when the first request is made. Runs on a worker thread; several messages
travel in one datagram.
"""

from __future__ import annotations

import errno
import fcntl
import functools
import importlib
import importlib.util
import os
import socket
import struct
import sys
import types
from collections.abc import Iterable
from typing import Any

from cloudless.agent.network.limits import KERNEL_ANSWER_S, KERNEL_READ_BYTES

_NEW_LINK, _DELETE_LINK, _SET_LINK, _NEW_ADDRESS, _NEW_ROUTE = 16, 17, 19, 20, 24
_REQUEST, _ACKNOWLEDGE, _EXCLUSIVE, _CREATE = 0x1, 0x4, 0x200, 0x400
_ERROR_MESSAGE = 2
_UP = 1
_GET_INDEX = 0x8933  # SIOCGIFINDEX
_GET_ADDRESS = 0x8915  # SIOCGIFADDR
_HEADER = struct.Struct("=IHHII")

#: A request: kind of message, extra flags, class of the message, fields, attributes.
Request = tuple[int, int, str, dict[str, Any], list[tuple[str, Any]]]


class Refused(OSError):
    """The kernel's answer to one request, with its errno and what was asked."""


@functools.cache
def _messages() -> dict[str, Any]:
    """The three message classes of pyroute2 that this room needs."""
    if "pyroute2" not in sys.modules:
        spec = importlib.util.find_spec("pyroute2")
        if spec is None or spec.submodule_search_locations is None:
            raise ModuleNotFoundError("pyroute2 is not installed")
        # An empty package in place of one whose __init__ imports everything.
        package = types.ModuleType("pyroute2")
        package.__path__ = list(spec.submodule_search_locations)
        package.__spec__ = spec
        sys.modules["pyroute2"] = package
    return {
        name: getattr(importlib.import_module(f"pyroute2.netlink.rtnl.{name}"), name)
        for name in ("ifinfmsg", "ifaddrmsg", "rtmsg")
    }


def add_bridge(name: str, mac: str, mtu_bytes: int) -> Request:
    """A bridge that forwards at once, up."""
    info = {
        "attrs": [("IFLA_INFO_KIND", "bridge"), ("IFLA_INFO_DATA", {"attrs": [("IFLA_BR_FORWARD_DELAY", 0)]})]
    }
    attributes = [
        ("IFLA_IFNAME", name),
        ("IFLA_ADDRESS", mac),
        ("IFLA_MTU", mtu_bytes),
        ("IFLA_LINKINFO", info),
    ]
    return (_NEW_LINK, _CREATE | _EXCLUSIVE, "ifinfmsg", {"flags": _UP, "change": _UP}, attributes)


def add_pair(
    name: str, bridge_index: int, mtu_bytes: int, *, peer: str, peer_mac: str, netns_fd: int
) -> Request:
    """A veth pair: ``name`` on the bridge and up, ``peer`` in the namespace of ``netns_fd``.

    The peer cannot be up from the start: the kernel joins the ends after configuring it.
    """
    inner = {
        "attrs": [
            ("IFLA_IFNAME", peer),
            ("IFLA_ADDRESS", peer_mac),
            ("IFLA_MTU", mtu_bytes),
            ("IFLA_NET_NS_FD", netns_fd),
        ],
    }
    info = {"attrs": [("IFLA_INFO_KIND", "veth"), ("IFLA_INFO_DATA", {"attrs": [("VETH_INFO_PEER", inner)]})]}
    attributes = [
        ("IFLA_IFNAME", name),
        ("IFLA_MTU", mtu_bytes),
        ("IFLA_MASTER", bridge_index),
        ("IFLA_LINKINFO", info),
    ]
    return (_NEW_LINK, _CREATE | _EXCLUSIVE, "ifinfmsg", {"flags": _UP, "change": _UP}, attributes)


def set_up(index: int) -> Request:
    """Bring an interface up."""
    return (_SET_LINK, 0, "ifinfmsg", {"index": index, "flags": _UP, "change": _UP}, [])


def set_link(name: str, **attributes: int) -> Request:
    """Change an interface by name, e.g. ``set_link("v0", IFLA_GROUP=7)``."""
    return (_SET_LINK, 0, "ifinfmsg", {}, [("IFLA_IFNAME", name), *attributes.items()])


def set_hairpin(name: str) -> Request:
    """Let a bridge port send a packet back where it came from (a replica that calls itself)."""
    info = {
        "attrs": [
            ("IFLA_INFO_SLAVE_KIND", "bridge"),
            ("IFLA_INFO_SLAVE_DATA", {"attrs": [("IFLA_BRPORT_MODE", 1)]}),
        ]
    }
    return (_NEW_LINK, 0, "ifinfmsg", {}, [("IFLA_IFNAME", name), ("IFLA_LINKINFO", info)])


def delete_link(name: str) -> Request:
    """Delete an interface (of a pair: both ends)."""
    return (_DELETE_LINK, 0, "ifinfmsg", {}, [("IFLA_IFNAME", name)])


def delete_group(group: int) -> Request:
    """Delete all interfaces of a group; costs hardly more than deleting one."""
    return (_DELETE_LINK, 0, "ifinfmsg", {}, [("IFLA_GROUP", group)])


def add_address(index: int, address: str, prefix_length: int, broadcast: str) -> Request:
    """Give an interface an IPv4 address."""
    fields = {"family": socket.AF_INET, "prefixlen": prefix_length, "index": index}
    attributes = [("IFA_LOCAL", address), ("IFA_ADDRESS", address), ("IFA_BROADCAST", broadcast)]
    return (_NEW_ADDRESS, _CREATE | _EXCLUSIVE, "ifaddrmsg", fields, attributes)


def add_default_route(gateway: str) -> Request:
    """Send everything else to ``gateway``."""
    fields = {"family": socket.AF_INET, "table": 254, "proto": 4, "scope": 0, "type": 1}
    return (_NEW_ROUTE, _CREATE | _EXCLUSIVE, "rtmsg", fields, [("RTA_GATEWAY", gateway)])


def routing_socket() -> socket.socket:
    """A routing socket in the calling thread's namespace."""
    made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
    made.settimeout(KERNEL_ANSWER_S)
    return made


def send(
    routing: socket.socket, requests: Iterable[Request], *, ignore: frozenset[int] = frozenset()
) -> None:
    """Send all requests in order and wait for each answer.

    The kernel goes on after a refusal, so every request is tried. Raises ``Refused`` for
    the first answer whose errno is not in ``ignore``.
    """
    asked = list(requests)
    routing.send(b"".join(_encode(request, number) for number, request in enumerate(asked, 1)))
    refusal: Refused | None = None
    open_answers = len(asked)
    while open_answers:
        data = routing.recv(KERNEL_READ_BYTES)
        while len(data) >= _HEADER.size:
            length, kind, _, sequence, _ = _HEADER.unpack_from(data)
            if kind == _ERROR_MESSAGE:
                open_answers -= 1
                number = -struct.unpack_from("=i", data, _HEADER.size)[0]
                if number and number not in ignore and refusal is None:
                    refusal = Refused(number, f"{os.strerror(number)}: {_describe(asked[sequence - 1])}")
            data = data[(length + 3) & ~3 :]
    if refusal is not None:
        raise refusal


def index_of(routing: socket.socket, name: str) -> int:
    """Index of an interface in the socket's own namespace; raises ``Refused`` (ENODEV) when absent."""
    try:
        answer = fcntl.ioctl(routing, _GET_INDEX, struct.pack("16si20x", name.encode(), 0))
    except OSError as error:
        raise Refused(error.errno or errno.EIO, f"{error.strerror}: interface {name}") from None
    return int(struct.unpack_from("i", answer, 16)[0])


def address_of(name: str) -> str | None:
    """IPv4 address of an interface in the calling thread's namespace; None when it has none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as asking:
        try:
            answer = fcntl.ioctl(asking, _GET_ADDRESS, struct.pack("16s24x", name.encode()))
        except OSError:
            return None
    return socket.inet_ntoa(answer[20:24])


def _encode(request: Request, sequence: int) -> bytes:
    kind, flags, name, fields, attributes = request
    message = _messages()[name]()
    for key, value in fields.items():
        message[key] = value
    message["attrs"] = attributes
    message["header"]["type"] = kind
    message["header"]["flags"] = _REQUEST | _ACKNOWLEDGE | flags
    message["header"]["sequence_number"] = sequence
    message.encode()
    data = bytes(message.data)
    return data + bytes(-len(data) % 4)


def _describe(request: Request) -> str:
    kind, _, _, fields, attributes = request
    what = {_NEW_LINK: "add link", _DELETE_LINK: "delete link", _SET_LINK: "set link"}.get(
        kind, "add address/route"
    )
    return f"{what} {fields} {[value for _, value in attributes[:1]]}"
