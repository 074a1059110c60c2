"""The kernel's part of attachments: bridge, namespaces, veth pairs. Blocking.

Every step may find that it was done already, or half, by a process that was killed.
Used by ``kernel.KernelNetwork`` on its worker thread only. What it removes carries the
node's mark in its name or lies in the node's own directory.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import logging
import os
import socket
from collections.abc import Iterable
from pathlib import Path

from cloudless.agent.network import namespace, netlink
from cloudless.agent.network.limits import MTU_BYTES
from cloudless.agent.network.names import REPLICA_INTERFACE, Names, replica_mac

log = logging.getLogger(__name__)

_THERE = frozenset({errno.EEXIST})
_GONE = frozenset({errno.ENODEV})
_SYSCTL = Path("/proc/sys/net/ipv4")
#: Written in each new namespace: let a replica without capabilities send pings and listen on
#: low ports, which are its own.
_REPLICA_SETTINGS = {"ping_group_range": "0 2147483647", "ip_unprivileged_port_start": "0"}


class Plumbing:
    """Interfaces and namespaces of one node. All methods raise ``OSError`` when the kernel refuses."""

    def __init__(self, names: Names, netns_directory: Path, network: ipaddress.IPv4Network) -> None:
        self._names = names
        self._directory = netns_directory
        self._network = network
        self._routing: socket.socket | None = None
        self._bridge_index: int | None = None

    @property
    def gateway(self) -> str:
        """The bridge's address."""
        return str(self._network.network_address + 1)

    def path(self, attachment_id: str) -> str:
        """Where an attachment's namespace lies."""
        return str(self._directory / attachment_id)

    def open_bridge(self) -> None:
        """Make the bridge, or complete the one that is there; replicas hang on it again."""
        index = self._find_bridge()
        if index is None:
            self._send(netlink.add_bridge(self._names.bridge, self._names.bridge_mac, MTU_BYTES))
            index = netlink.index_of(self._socket(), self._names.bridge)
            for name in self._pairs().values():
                self._send(netlink.set_link(name, IFLA_MASTER=index), netlink.set_hairpin(name))
        prefix, broadcast = self._network.prefixlen, str(self._network.broadcast_address)
        address = netlink.add_address(index, self.gateway, prefix, broadcast)
        self._send(address, netlink.set_up(index), ignore=_THERE)
        # Answers to packets from 127.0.0.1 come back over the bridge to 127.0.0.1.
        _set(_SYSCTL / "conf" / self._names.bridge / "route_localnet", "1")
        if _set(_SYSCTL / "ip_forward", "1"):
            log.warning("switched on net.ipv4.ip_forward of this host; it stays on")
        self._bridge_index = index

    def remove_bridge(self) -> None:
        """Remove the bridge, if there is one."""
        self._bridge_index = None
        self._send(netlink.delete_link(self._names.bridge), ignore=_GONE)

    def connect(self, attachment_id: str, address: ipaddress.IPv4Address) -> None:
        """Give an attachment its namespace and its connected pair, or what is missing of them."""
        path = self.path(attachment_id)
        self._directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        if namespace.exists(path):
            with namespace.inside(path):
                inner = netlink.routing_socket()
        else:
            with namespace.created(path):
                inner = netlink.routing_socket()
                for name, value in _REPLICA_SETTINGS.items():
                    _set(_SYSCTL / name, value)
        with inner:
            self._plug(path, address)
            index = netlink.index_of(inner, REPLICA_INTERFACE)
            prefix, broadcast = self._network.prefixlen, str(self._network.broadcast_address)
            requests = (
                netlink.set_up(netlink.index_of(inner, "lo")),
                netlink.set_up(index),
                netlink.add_address(index, str(address), prefix, broadcast),
                netlink.add_default_route(self.gateway),
            )
            netlink.send(inner, requests, ignore=_THERE)

    def is_whole(self, attachment_id: str, address: ipaddress.IPv4Address) -> bool:
        """Whether nothing of an attachment is missing.

        What is inside comes with one request, which a kill cannot split: there is an address
        exactly if there is all of it.
        """
        return self._has_pair(address) and self.address_inside(attachment_id) == address

    def disconnect(self, attachments: Iterable[tuple[str, ipaddress.IPv4Address]]) -> None:
        """Remove pairs and namespaces, in one go; what is gone already is no error."""
        gone = list(attachments)
        pairs = self._pairs()
        self.remove_pairs(pairs[offset] for _, at in gone if (offset := self._offset(at)) in pairs)
        for attachment_id, _ in gone:
            namespace.remove(self.path(attachment_id))

    def remove_pairs(self, interfaces: Iterable[str]) -> None:
        """Delete interfaces together: one takes the kernel 15 ms, twenty of them 25 ms."""
        names = list(interfaces)
        if len(names) == 1:
            self._send(netlink.delete_link(names[0]), ignore=_GONE)
        elif names:
            group = self._names.doomed_group
            self._send(*(netlink.set_link(name, IFLA_GROUP=group) for name in names), ignore=_GONE)
            self._send(netlink.delete_group(group), ignore=_GONE)

    def unknown_pairs(self, known: Iterable[ipaddress.IPv4Address]) -> tuple[str, ...]:
        """Interfaces of this node that belong to none of the ``known`` addresses."""
        offsets = {self._offset(address) for address in known}
        return tuple(name for offset, name in sorted(self._pairs().items()) if offset not in offsets)

    def namespaces(self) -> tuple[str, ...]:
        """Ids for which something lies in the node's directory of namespaces."""
        with contextlib.suppress(FileNotFoundError):
            return tuple(sorted(os.listdir(self._directory)))
        return ()

    def address_inside(self, attachment_id: str) -> ipaddress.IPv4Address | None:
        """The address of this node's range that a namespace has, found by looking inside."""
        path = self.path(attachment_id)
        if not namespace.exists(path):
            return None
        with namespace.inside(path):
            found = netlink.address_of(REPLICA_INTERFACE)
        address = None if found is None else ipaddress.IPv4Address(found)
        return address if address is not None and address in self._network else None

    def remove_namespace(self, attachment_id: str) -> None:
        """Let go of a namespace or of the file left of it."""
        namespace.remove(self.path(attachment_id))

    def close(self) -> None:
        """Close the socket; a later call opens another."""
        if self._routing is not None:
            self._routing.close()
            self._routing = None

    def _plug(self, path: str, address: ipaddress.IPv4Address) -> None:
        if self._has_pair(address):
            return
        name = self._names.veth(self._offset(address))
        target = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            for last_try in (False, True):
                if self._bridge_index is None:
                    self.open_bridge()
                assert self._bridge_index is not None
                mac = replica_mac(int(address))
                pair = netlink.add_pair(
                    name, self._bridge_index, MTU_BYTES, peer=REPLICA_INTERFACE, peer_mac=mac, netns_fd=target
                )
                try:
                    self._send(pair, netlink.set_hairpin(name))
                    return
                except netlink.Refused:
                    # Somebody may have removed the bridge under us, or a half-made pair is in the way.
                    self._send(netlink.delete_link(name), ignore=_GONE)
                    self._bridge_index = None
                    if last_try:
                        raise
        finally:
            os.close(target)

    def _find_bridge(self) -> int | None:
        try:
            return netlink.index_of(self._socket(), self._names.bridge)
        except netlink.Refused:
            return None

    def _has_pair(self, address: ipaddress.IPv4Address) -> bool:
        try:
            socket.if_nametoindex(self._names.veth(self._offset(address)))
        except OSError:
            return False
        return True

    def _pairs(self) -> dict[int, str]:
        """The host's ends of this node's pairs, by address number."""
        found = ((self._names.offset_of(name), name) for _, name in socket.if_nameindex())
        return {offset: name for offset, name in found if offset is not None}

    def _offset(self, address: ipaddress.IPv4Address) -> int:
        return int(address) - int(self._network.network_address)

    def _socket(self) -> socket.socket:
        if self._routing is None:
            self._routing = netlink.routing_socket()
        return self._routing

    def _send(self, *requests: netlink.Request, ignore: frozenset[int] = frozenset()) -> None:
        try:
            netlink.send(self._socket(), requests, ignore=ignore)
        except TimeoutError:
            # Late answers must not be taken for those of the next request.
            if self._routing is not None:
                self._routing.close()
                self._routing = None
            raise


def _set(path: Path, value: str) -> bool:
    """Write a kernel setting unless it has the value; whether it was changed."""
    if path.read_text().split() == value.split():
        return False
    path.write_text(value)
    return True
