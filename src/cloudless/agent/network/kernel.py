"""The real network: leases on disk, namespaces and rules in the kernel.

``KernelNetwork`` keeps the two in step: the lease first, then the kernel; away in the
opposite order. All work runs in turn on one worker thread, so that the event loop never
waits for the kernel and no two changes ever cross; a batch of removals is one change.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
import os
import socket
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from cloudless.agent.network import rules
from cloudless.agent.network.addresses import choose_range, next_address, parse_routes, range_of
from cloudless.agent.network.conntrack import forget_udp
from cloudless.agent.network.hostports import holder_of
from cloudless.agent.network.leases import Lease, Leases
from cloudless.agent.network.limits import DEFAULT_RANGES
from cloudless.agent.network.names import REPLICA_INTERFACE, Names
from cloudless.agent.network.neighbours import NAMESPACES, abandoned, claim, forget, in_turn
from cloudless.agent.network.nft import Nft, NftError
from cloudless.agent.network.plumbing import Plumbing
from cloudless.agent.network.port import (
    Attachment,
    HostPort,
    HostPortTaken,
    NetworkUnavailable,
    check_attachment,
)

log = logging.getLogger(__name__)
T = TypeVar("T")

RUN_DIRECTORY = Path("/run/cloudless")


class KernelNetwork:
    """``Network`` of this machine's kernel; needs root.

    ``node_key`` is unique to the agent on this machine (its data directory), ``state_directory``
    is kept over restarts, ``network_range`` is like "10.213.0.0/16" (None: a free one is chosen
    and kept). Raises ``Invalid`` for a range that is none.
    """

    def __init__(
        self,
        node_key: str,
        state_directory: Path,
        *,
        network_range: str | None = None,
        run_directory: Path = RUN_DIRECTORY,
    ) -> None:
        self.names = Names.of(node_key)
        self._wanted = None if network_range is None else range_of(network_range)
        self._run_directory = run_directory
        self._leases = Leases(state_directory)
        self._nft = Nft()
        self._plumbing: Plumbing | None = None
        self._network: ipaddress.IPv4Network | None = None
        self._forwarded: set[str] = set()  # ids whose host ports are in the table
        self._unleased: dict[str, ipaddress.IPv4Address] = {}  # namespaces whose lease was lost
        self._claim: int | None = None
        self._last = 0
        self._leaving: set[str] = set()
        self._left: dict[str, Exception] = {}
        self._guard = threading.Lock()
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="network")

    async def attach(
        self,
        attachment_id: str,
        *,
        hostname: str,
        host_ports: tuple[HostPort, ...] = (),
        host_network: bool = False,
    ) -> Attachment:
        check_attachment(attachment_id, hostname, host_ports)
        ports = () if host_network else tuple(sorted(host_ports))
        return await self._run(lambda: self._attach(attachment_id, hostname, ports, host_network))

    async def detach(self, attachment_id: str) -> None:
        check_attachment(attachment_id, "any", ())
        with self._guard:
            self._leaving.add(attachment_id)
        # The first of several calls takes all that wait; the others find their work done.
        await self._run(self._detach_leaving)
        with self._guard:
            error = self._left.pop(attachment_id, None)
        if error is not None:
            raise error

    async def list(self) -> tuple[Attachment, ...]:
        return await self._run(self._list)

    async def collect(self, keep: Iterable[str]) -> tuple[str, ...]:
        kept = frozenset(keep)
        return await self._run(lambda: self._collect(kept))

    async def close(self) -> None:
        try:
            await self._run(self._close)
        finally:
            self._worker.shutdown(wait=False)

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._worker, _explained, work)

    # What follows runs on the worker thread.

    def _is_idle(self) -> bool:
        """Whether nothing of this node exists that counts; then nothing needs to be made either."""
        if self._plumbing is None:
            self._leases.open()
            return not self._leases.all() and not self._new_plumbing(DEFAULT_RANGES[0]).namespaces()
        return False

    def _new_plumbing(self, network: ipaddress.IPv4Network) -> Plumbing:
        return Plumbing(self.names, self._run_directory / self.names.mark / NAMESPACES, network)

    def _open(self) -> Plumbing:
        if self._plumbing is not None:
            return self._plumbing
        self._leases.open()
        with in_turn(self._run_directory):
            if self._claim is None:
                self._claim = claim(self._run_directory, self.names.mark)
            self._bury_the_dead()
            network = self._choose_range()
            plumbing = self._new_plumbing(network)
            if not self._leases.all() and not plumbing.namespaces():
                plumbing.remove_bridge()  # of an earlier run, perhaps with another range
            plumbing.open_bridge()
        self._network, self._plumbing = network, plumbing
        for attachment_id in plumbing.namespaces():
            address = plumbing.address_inside(attachment_id)
            if address is not None and self._leases.get(attachment_id) is None:
                self._unleased[attachment_id] = address
        self._last = max((int(address) for address in self._addresses()), default=0)
        self._write_table()
        return plumbing

    def _bury_the_dead(self) -> None:
        """Remove empty bridges of agents that were killed and perhaps never come back."""
        for mark in abandoned(self._run_directory, self.names.mark):
            names = Names(mark)
            theirs = Plumbing(names, self._run_directory / mark / NAMESPACES, DEFAULT_RANGES[0])
            if not theirs.unknown_pairs(()):
                log.info("removed the empty network of an agent that is gone", extra={"bridge": names.bridge})
                self._nft.run(rules.no_table(names))
                theirs.remove_bridge()
                theirs.close()
                forget(self._run_directory, mark)

    def _choose_range(self) -> ipaddress.IPv4Network:
        saved = self._leases.saved_range()
        if saved is not None and self._leases.all():
            if self._wanted not in (None, saved):
                log.warning("replicas still use the former range", extra={"range": str(saved)})
            return saved
        routes = parse_routes(Path("/proc/net/route").read_text())
        if self._wanted is None and saved is not None:
            kept = [route for route in routes if route[1] != self.names.bridge and route[0].prefixlen]
            if not any(saved.overlaps(network) for network, _ in kept):
                return saved
        network = choose_range(self._wanted, routes, self.names.bridge)
        self._leases.save_range(network)
        return network

    def _attach(
        self, attachment_id: str, hostname: str, host_ports: tuple[HostPort, ...], host_network: bool
    ) -> Attachment:
        plumbing = self._open()
        lease = self._leases.get(attachment_id)
        if lease is None:
            self._check_free(host_ports)
            address = None if host_network else str(self._next_address(attachment_id))
            lease = Lease(attachment_id, hostname, address, host_ports)
            self._leases.put(lease)
            self._unleased.pop(attachment_id, None)
        if lease.address is not None:
            address_given = ipaddress.IPv4Address(lease.address)
            if not plumbing.is_whole(attachment_id, address_given):
                plumbing.connect(attachment_id, address_given)
            self._forward(lease)
        return self._attachment(lease)

    def _next_address(self, attachment_id: str) -> ipaddress.IPv4Address:
        assert self._network is not None
        if attachment_id in self._unleased:
            return self._unleased[attachment_id]
        self._last = next_address(self._network, {int(address) for address in self._addresses()}, self._last)
        return ipaddress.IPv4Address(self._last)

    def _addresses(self) -> set[ipaddress.IPv4Address]:
        leased = {ipaddress.IPv4Address(lease.address) for lease in self._leases.all() if lease.address}
        return leased | set(self._unleased.values())

    def _check_free(self, host_ports: tuple[HostPort, ...]) -> None:
        for port in host_ports:
            for lease in self._leases.all():
                if any(port.collides(other) for other in lease.host_ports):
                    raise HostPortTaken(port, f"attachment {lease.id}")
            holder = holder_of(port)
            if holder is not None:
                raise HostPortTaken(port, holder)

    def _forward(self, lease: Lease) -> None:
        if lease.id in self._forwarded or not lease.host_ports or lease.address is None:
            return
        try:
            self._nft.run(
                rules.add_forwards(self.names, [(port, lease.address) for port in lease.host_ports])
            )
            self._forwarded.add(lease.id)
        except NftError:
            self._write_table()  # somebody emptied or changed it; it is ours to restore
        _forget_flows(lease.host_ports)

    def _write_table(self) -> None:
        assert self._network is not None
        leases = [lease for lease in self._leases.all() if lease.address and lease.host_ports]
        forwards = [(port, lease.address) for lease in leases for port in lease.host_ports if lease.address]
        self._nft.run(rules.whole_table(self.names, self._network, forwards))
        self._forwarded = {lease.id for lease in leases}

    def _detach_leaving(self) -> None:
        with self._guard:
            leaving, self._leaving = self._leaving, set()
        if not leaving:
            return
        try:
            self._remove(leaving)
        except Exception as error:
            with self._guard:
                self._left.update(dict.fromkeys(leaving, _explanation(error)))

    def _remove(self, ids: Iterable[str]) -> None:
        if self._is_idle():
            return
        plumbing = self._open()
        leases = [lease for attachment_id in ids if (lease := self._leases.get(attachment_id)) is not None]
        ports = [port for lease in leases if lease.id in self._forwarded for port in lease.host_ports]
        self._forwarded.difference_update(lease.id for lease in leases)
        stale = False
        if ports:
            try:
                self._nft.run(rules.delete_forwards(self.names, ports))
            except NftError:
                stale = True
        addresses = {lease.id: ipaddress.IPv4Address(lease.address) for lease in leases if lease.address}
        addresses |= {one: self._unleased.pop(one) for one in ids if one in self._unleased}
        plumbing.disconnect(addresses.items())
        for attachment_id in ids:
            plumbing.remove_namespace(attachment_id)
            self._leases.drop(attachment_id)
        if stale:
            self._write_table()
        _forget_flows(ports)

    def _list(self) -> tuple[Attachment, ...]:
        if self._is_idle():
            return ()
        plumbing = self._open()
        return tuple(
            self._attachment(lease)
            for lease in self._leases.all()
            if lease.address is None or plumbing.is_whole(lease.id, ipaddress.IPv4Address(lease.address))
        )

    def _collect(self, keep: frozenset[str]) -> tuple[str, ...]:
        plumbing = self._new_plumbing(DEFAULT_RANGES[0]) if self._is_idle() else self._open()
        known = {lease.id for lease in self._leases.all()} | set(plumbing.namespaces())
        removed = sorted(known - keep)
        if removed:
            self._remove(removed)
        strangers = plumbing.unknown_pairs(self._addresses())
        plumbing.remove_pairs(strangers)
        if self._leases.all() or self._unleased:
            plumbing.open_bridge()
            self._write_table()
        else:
            self._clear(plumbing)
        return (*removed, *strangers)

    def _clear(self, plumbing: Plumbing) -> None:
        """Remove what all replicas share; the next attachment makes it again."""
        self._nft.run(rules.no_table(self.names))
        plumbing.remove_bridge()
        plumbing.close()
        self._plumbing = None
        forget(self._run_directory, self.names.mark)
        self._release()

    def _close(self) -> None:
        if self._plumbing is not None:
            if self._leases.all() or self._plumbing.namespaces():
                self._plumbing.close()
            else:
                self._clear(self._plumbing)
        self._plumbing = None
        self._release()
        self._nft.close()

    def _release(self) -> None:
        if self._claim is not None:
            os.close(self._claim)
            self._claim = None

    def _attachment(self, lease: Lease) -> Attachment:
        assert self._plumbing is not None
        if lease.address is None:
            return Attachment(lease.id, lease.hostname, _host_address(), None, None, None)
        return Attachment(
            lease.id,
            lease.hostname,
            lease.address,
            self._plumbing.path(lease.id),
            self._plumbing.gateway,
            REPLICA_INTERFACE,
            lease.host_ports,
        )


def _explained(work: Callable[[], T]) -> T:
    try:
        return work()
    except (OSError, NftError) as error:
        raise _explanation(error) from error


def _explanation(error: Exception) -> Exception:
    if not isinstance(error, (OSError, NftError)):
        return error
    denied = isinstance(error, OSError) and error.errno in (errno.EPERM, errno.EACCES, errno.EROFS)
    hint = "networks of their own need root (CAP_NET_ADMIN and CAP_SYS_ADMIN)" if denied else ""
    return NetworkUnavailable(f"the kernel refused a step of the network: {error}", hint=hint)


def _forget_flows(host_ports: Iterable[HostPort]) -> None:
    """A port has another replica now, or none; without this only some UDP clients notice late."""
    ports = {port.host_port for port in host_ports if port.protocol == "udp"}
    try:
        forget_udp(sorted(ports))
    except OSError as error:
        log.warning("flows of UDP host ports are kept", extra={"ports": sorted(ports), "error": str(error)})


def _host_address() -> str:
    """The address that this host uses towards the world; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.254", 9))
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])
