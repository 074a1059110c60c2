"""What replicas take from a node: reserved resources and ports of the host.

``Cluster`` keeps one ``NodeUsage`` per node; placement adds to copies of them. Counted
is what was asked for (reservations), never what is measured.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from cloudless.domain.resources import ResourceList
from cloudless.domain.workload import WorkloadSpec

#: Listens on every address of the host, so it takes the port on all of them.
ANY_ADDRESS = "0.0.0.0"


class HostPort(NamedTuple):
    """One port of the host that a replica takes."""

    port: int
    protocol: str
    address: str


class Demand(NamedTuple):
    """What one replica takes from its node, in the units of ``ResourceList``."""

    cpu_millicores: int
    memory_bytes: int
    storage_bytes: int
    ports: tuple[HostPort, ...]


def demand_of(spec: WorkloadSpec) -> Demand:
    """What each replica of ``spec`` takes; sized empty_dir volumes count as storage.

    >>> from cloudless.domain.workload import Port
    >>> spec = WorkloadSpec(image="web:1", ports=(Port(container_port=80, host_port=8080),))
    >>> demand_of(spec).ports
    (HostPort(port=8080, protocol='TCP', address='127.0.0.1'),)
    """
    reserved = spec.resources.reserved
    folders = sum(volume.empty_dir.size_bytes for volume in spec.volumes if volume.empty_dir)
    if spec.security_context.host_network:
        ports = tuple(HostPort(p.container_port, str(p.protocol), ANY_ADDRESS) for p in spec.ports)
    else:
        ports = tuple(
            HostPort(p.host_port, str(p.protocol), p.host_address) for p in spec.ports if p.host_port
        )
    return Demand(reserved.cpu_millicores, reserved.memory_bytes, max(reserved.storage_bytes, folders), ports)


@dataclass(slots=True)
class NodeUsage:
    """Sums over the replicas that hold a place on one node."""

    cpu_millicores: int = 0
    memory_bytes: int = 0
    storage_bytes: int = 0
    replicas: int = 0
    #: (port, protocol) -> addresses on which it is taken.
    ports: dict[tuple[int, str], tuple[str, ...]] = field(default_factory=dict)

    def add(self, demand: Demand) -> None:
        """Count one more replica."""
        self.cpu_millicores += demand.cpu_millicores
        self.memory_bytes += demand.memory_bytes
        self.storage_bytes += demand.storage_bytes
        self.replicas += 1
        for port in demand.ports:
            key = (port.port, port.protocol)
            self.ports[key] = (*self.ports.get(key, ()), port.address)

    def copy(self) -> NodeUsage:
        """An independent copy."""
        return NodeUsage(
            self.cpu_millicores, self.memory_bytes, self.storage_bytes, self.replicas, dict(self.ports)
        )

    def taken(self, wanted: HostPort) -> bool:
        """Whether ``wanted`` would meet a port that is taken; 0.0.0.0 meets every address."""
        for address in self.ports.get((wanted.port, wanted.protocol), ()):
            if address == wanted.address or ANY_ADDRESS in (address, wanted.address):
                return True
        return False

    @property
    def reserved(self) -> ResourceList:
        """The sums as a ``ResourceList``."""
        return ResourceList.model_construct(
            cpu_millicores=self.cpu_millicores,
            memory_bytes=self.memory_bytes,
            storage_bytes=self.storage_bytes,
        )
