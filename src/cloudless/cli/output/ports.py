"""Published ports in words: where they are, and who can reach them."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from cloudless.domain.ports import ANY_ADDRESS, Port
from cloudless.domain.workload import WorkloadSpec


def published_lines(spec: WorkloadSpec) -> list[str]:
    """One line for each published port.

    >>> ports = (Port(container_port=80, publish=8088),
    ...          Port(container_port=53, protocol="UDP", publish=53, publish_address="0.0.0.0"))
    >>> for line in published_lines(WorkloadSpec(image="web", ports=ports)): print(line)
    tcp://127.0.0.1:8088 -> 80, this machine only
    udp://NODE:53 -> 53, anyone who reaches this node (0.0.0.0)
    """
    return list(_lines(spec))


def _lines(spec: WorkloadSpec) -> Iterator[str]:
    for port in spec.ports:
        if not port.publish:
            continue
        if port.publish_address == ANY_ADDRESS:
            host, who = "NODE", f"anyone who reaches this node ({ANY_ADDRESS})"
        elif ipaddress.IPv4Address(port.publish_address).is_loopback:
            host, who = port.publish_address, "this machine only"
        else:
            host, who = port.publish_address, "anyone who reaches this address of the node"
        yield f"{_scheme(spec, port)}://{host}:{port.publish} -> {port.container_port}, {who}"


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
