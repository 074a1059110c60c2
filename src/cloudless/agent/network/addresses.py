"""Arithmetic of address ranges: which range, which address comes next. Pure.

The first address of a range is the gateway (the bridge), the last is the broadcast
address. Addresses are given in turn rather than lowest first, so that a freed one
rests for as long as possible before somebody else is reached under it.
"""

from __future__ import annotations

import ipaddress
import itertools
from collections.abc import Collection, Iterable

from cloudless.agent.network.limits import DEFAULT_RANGES, MAX_PREFIX_LENGTH, MIN_PREFIX_LENGTH
from cloudless.agent.network.port import NetworkRangeTaken, NetworkUnavailable
from cloudless.domain.errors import Invalid

#: A route of the host: destination and interface.
Route = tuple[ipaddress.IPv4Network, str]


def range_of(text: str) -> ipaddress.IPv4Network:
    """Read a range such as ``10.213.0.0/16``; raises ``Invalid``.

    >>> range_of("10.213.0.0/16").prefixlen
    16
    """
    try:
        network = ipaddress.IPv4Network(text)
    except ValueError as error:
        raise Invalid.field("network_range", f"{text!r} is not an IPv4 range: {error}") from None
    if not MIN_PREFIX_LENGTH <= network.prefixlen <= MAX_PREFIX_LENGTH:
        raise Invalid.field(
            "network_range", f"prefix must be /{MIN_PREFIX_LENGTH} to /{MAX_PREFIX_LENGTH}, not {text}"
        )
    return network


def next_address(network: ipaddress.IPv4Network, taken: Collection[int], last: int) -> int:
    """The first free address after ``last`` (0 or the one given last), going round.

    Raises ``NetworkUnavailable`` when all are taken.

    >>> small = ipaddress.IPv4Network("10.0.0.0/29")
    >>> [str(ipaddress.IPv4Address(next_address(small, taken, last)))
    ...  for taken, last in [((), 0), ((), int(small[2])), ({int(small[2])}, int(small[6]))]]
    ['10.0.0.2', '10.0.0.3', '10.0.0.3']
    """
    base: int = int(network.network_address)
    first, end = base + 2, base + network.num_addresses - 1  # base + 1 is the gateway
    start = last + 1 if first <= last < end - 1 else first
    for address in itertools.chain(range(start, end), range(first, start)):
        if address not in taken:
            return address
    raise NetworkUnavailable(f"all {end - first} addresses of {network} are taken")


def choose_range(
    wanted: ipaddress.IPv4Network | None, routes: Iterable[Route], own_interface: str
) -> ipaddress.IPv4Network:
    """``wanted`` if no foreign route overlaps it, or else the first free default range.

    Raises ``NetworkRangeTaken``, naming the route in the way.

    >>> choose_range(None, [(ipaddress.IPv4Network("10.213.0.0/16"), "eth0")], "br0")
    IPv4Network('10.214.0.0/16')
    """
    foreign = [
        (network, interface)
        for network, interface in routes
        if network.prefixlen > 0 and interface != own_interface
    ]
    candidates = DEFAULT_RANGES if wanted is None else (wanted,)
    for candidate in candidates:
        if not any(candidate.overlaps(network) for network, _ in foreign):
            return candidate
    network, interface = next(route for route in foreign if candidates[0].overlaps(route[0]))
    where = f"the route {network} of {interface}"
    raise NetworkRangeTaken(
        f"the range {wanted} for this node's replicas overlaps {where}"
        if wanted is not None
        else f"each range for a node's replicas, {candidates[0]} to {candidates[-1]}, overlaps some route; "
        f"the first one overlaps {where}",
        hint="choose a free range with --network-range",
    )


def parse_routes(text: str) -> tuple[Route, ...]:
    """Read ``/proc/net/route``: the IPv4 routes of the host's main table.

    >>> parse_routes("Iface Destination Gateway Flags RefCnt Use Metric Mask\\n"
    ...              "eth0 000200C0 00000000 0001 0 0 0 00FFFFFF\\n")
    ((IPv4Network('192.0.2.0/24'), 'eth0'),)
    """
    routes = []
    for line in text.splitlines()[1:]:
        fields = line.split()
        if len(fields) >= 8:
            # The kernel prints the bytes in network order as a little-endian number.
            address, mask = (int.from_bytes(bytes.fromhex(fields[i])[::-1], "big") for i in (1, 7))
            routes.append((ipaddress.IPv4Network((address, mask.bit_count())), fields[0]))
    return tuple(routes)
