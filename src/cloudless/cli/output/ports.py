"""Published ports in words: where they are, and who can reach them."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from cloudless.domain.ports import ANY_ADDRESS, LOOPBACK, Port
from cloudless.domain.workload import WorkloadSpec


class Place(NamedTuple):
    """A node that runs replicas, with its addresses and those it publishes at by itself."""

    node: str
    addresses: tuple[str, ...] = ()
    publish_addresses: tuple[str, ...] = ()


def published_lines(spec: WorkloadSpec, places: Sequence[Place] = ()) -> list[str]:
    """One line for each address of each published port; ``places`` are the workload's nodes.

    >>> ports = (Port(container_port=80, publish=8088),
    ...          Port(container_port=53, protocol="UDP", publish=53, publish_address="0.0.0.0"))
    >>> web = WorkloadSpec(image="web", ports=ports)
    >>> for line in published_lines(web, [Place("n1", ("10.0.0.5",), ("10.0.0.5",))]): print(line)
    tcp://127.0.0.1:8088 -> 80, this machine only
    tcp://10.0.0.5:8088 -> 80, anyone who reaches this address of n1
    udp://127.0.0.1:53 -> 53, this machine only
    udp://10.0.0.5:53 -> 53, anyone who reaches this address of n1 (0.0.0.0: all of its addresses)
    """
    return list(dict.fromkeys(_lines(spec, places)))


def _lines(spec: WorkloadSpec, places: Sequence[Place]) -> Iterator[str]:
    local = "this machine only" if len(places) < 2 else "from the same node only"
    for port in spec.ports:
        for host, who in _reached(port, places, local):
            yield f"{_scheme(spec, port)}://{host}:{port.publish} -> {port.container_port}, {who}"


def _reached(port: Port, places: Sequence[Place], local: str) -> Iterator[tuple[str, str]]:
    """Each address that a port is bound to, and who can reach it."""
    for place in places or (Place(""),):
        node = place.node or "a node that runs a replica"
        for address in port.publish_addresses(place.publish_addresses):
            if address == ANY_ADDRESS:
                yield LOOPBACK, local
                every = f"{ANY_ADDRESS}: all of its addresses"
                for one in place.addresses:
                    yield one, f"anyone who reaches this address of {node} ({every})"
                if not place.addresses:
                    yield ANY_ADDRESS, f"anyone who reaches {node}"
            elif ipaddress.IPv4Address(address).is_loopback:
                yield address, local
            else:
                yield address, f"anyone who reaches this address of {node}"


def _scheme(spec: WorkloadSpec, port: Port) -> str:
    """What clients speak, as far as names and probes tell."""
    if port.name in ("http", "https"):
        return str(port.name)
    probes = (spec.readiness_probe, spec.liveness_probe, spec.startup_probe)
    spoken = {
        str(probe.http.scheme).lower()
        for probe in probes
        if probe is not None and probe.http is not None and probe.http.port == port.container_port
    }
    return spoken.pop() if len(spoken) == 1 else str(port.protocol).lower()
