"""What replicas take from a node, and what is left of it.

``Cluster`` keeps one ``NodeUsage`` and one ``NodeRoom`` per node; placement adds to
copies of them. Counted is what was asked for (reservations), never what is measured.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from cloudless.domain.node import NodePhase, NodeRecord
from cloudless.domain.ports import ANY_ADDRESS, HostPort, published_ports
from cloudless.domain.resources import ResourceList
from cloudless.domain.workload import WorkloadSpec


class Demand(NamedTuple):
    """What one replica takes from its node, in the units of ``ResourceList``.

    ``published`` ports are shared by the replicas of ``owner``, their workload ("namespace/name").
    ``bound`` are those of all ports that are bound to an address which not every node has.
    """

    cpu_millicores: int
    memory_bytes: int
    storage_bytes: int
    ports: tuple[HostPort, ...]
    published: tuple[HostPort, ...] = ()
    owner: str = ""
    bound: tuple[HostPort, ...] = ()

    def homeless(self, addresses: tuple[str, ...]) -> HostPort | None:
        """A port whose address a node with these does not have; None also when none are known."""
        if not addresses:
            return None
        return next((port for port in self.bound if port.address not in addresses), None)


def demand_of(spec: WorkloadSpec, owner: str = "") -> Demand:
    """What each replica of ``spec`` takes; sized empty_dir volumes count as storage.

    >>> from cloudless.domain.ports import Port
    >>> spec = WorkloadSpec(image="web:1", ports=(Port(container_port=80, host_port=8080),))
    >>> demand_of(spec).ports
    (HostPort(port=8080, protocol='TCP', address='127.0.0.1'),)
    """
    reserved = spec.resources.reserved
    folders = sum(volume.empty_dir.size_bytes for volume in spec.volumes if volume.empty_dir)
    if spec.security_context.host_network:
        ports = tuple(HostPort(p.container_port, str(p.protocol), ANY_ADDRESS) for p in spec.ports)
    else:
        ports = tuple(port.taken for port in spec.ports if port.taken is not None)
    published = tuple(place for _, place in published_ports(spec.ports))
    return Demand(
        reserved.cpu_millicores,
        reserved.memory_bytes,
        max(reserved.storage_bytes, folders),
        ports,
        published,
        owner,
        tuple(port for port in (*ports, *published) if not port.everywhere),
    )


@dataclass(slots=True)
class NodeUsage:
    """Sums over the replicas that hold a place on one node."""

    cpu_millicores: int = 0
    memory_bytes: int = 0
    storage_bytes: int = 0
    replicas: int = 0
    #: (port, protocol) -> addresses on which it is taken.
    ports: dict[tuple[int, str], tuple[str, ...]] = field(default_factory=dict)
    #: Published ports and the workloads that they belong to.
    published: frozenset[tuple[HostPort, str]] = frozenset()

    def add(self, demand: Demand) -> None:
        """Count one more replica."""
        self.cpu_millicores += demand.cpu_millicores
        self.memory_bytes += demand.memory_bytes
        self.storage_bytes += demand.storage_bytes
        self.replicas += 1
        for port in demand.ports:
            key = (port.port, port.protocol)
            self.ports[key] = (*self.ports.get(key, ()), port.address)
        if demand.published:
            self.published |= {(port, demand.owner) for port in demand.published}

    def copy(self) -> NodeUsage:
        """An independent copy."""
        return NodeUsage(
            self.cpu_millicores,
            self.memory_bytes,
            self.storage_bytes,
            self.replicas,
            dict(self.ports),
            self.published,
        )

    def taken(self, wanted: HostPort) -> bool:
        """Whether ``wanted`` would meet a port that is taken or published; 0.0.0.0 meets every address."""
        return self._held(wanted) or any(wanted.meets(port) for port, _ in self.published)

    def holder_of(self, wanted: HostPort, owner: str) -> str:
        """Who keeps ``owner`` from publishing ``wanted`` here; empty when nobody does."""
        if self._held(wanted):
            return "a replica's host_port"
        others = (other for port, other in self.published if other != owner and wanted.meets(port))
        return next((f"workload {other}" for other in others), "")

    def _held(self, wanted: HostPort) -> bool:
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


#: What of a node decides whether a specification allows it, apart from what is taken.
NodeKind = tuple[object, ...]


def kind_of(record: NodeRecord) -> NodeKind:
    """Equal for two nodes that static filters cannot tell apart."""
    facts = record.facts
    can = facts.capabilities
    return (
        facts.region,
        facts.zone,
        frozenset(facts.labels.items()),
        tuple((taint.key, taint.value, taint.effect) for taint in facts.taints),
        (can.runtime_classes, can.host_paths, can.seccomp_profiles),
        (can.seccomp, can.apparmor, can.allow_privileged, can.allow_host_namespaces),
    )


@dataclass(slots=True)
class NodeRoom:
    """One node laid flat for the search of a place: it is read for every node there is.

    ``kind`` is the same number for nodes that static filters cannot tell apart;
    ``*_share`` is the part of the capacity that one unit is, 0 where the node has none.
    """

    record: NodeRecord
    usage: NodeUsage
    id: str
    name: str
    ready: bool
    kind: int
    cpu_free: int
    memory_free: int
    storage_free: int
    cpu_share: float
    memory_share: float

    @classmethod
    def of(cls, record: NodeRecord, usage: NodeUsage, kind: int) -> NodeRoom:
        """The room that ``usage`` leaves on a node."""
        capacity = record.facts.capacity
        return cls(
            record,
            usage,
            record.id,
            record.name,
            record.phase is NodePhase.READY,
            kind,
            capacity.cpu_millicores - usage.cpu_millicores,
            capacity.memory_bytes - usage.memory_bytes,
            capacity.storage_bytes - usage.storage_bytes,
            1 / capacity.cpu_millicores if capacity.cpu_millicores else 0.0,
            1 / capacity.memory_bytes if capacity.memory_bytes else 0.0,
        )

    def with_one_more(self, demand: Demand) -> NodeRoom:
        """The room after one more replica; this one is not touched."""
        usage = self.usage.copy()
        usage.add(demand)
        return NodeRoom(
            self.record,
            usage,
            self.id,
            self.name,
            self.ready,
            self.kind,
            self.cpu_free - demand.cpu_millicores,
            self.memory_free - demand.memory_bytes,
            self.storage_free - demand.storage_bytes,
            self.cpu_share,
            self.memory_share,
        )

    def fits(self, demand: Demand) -> bool:
        """Whether what ``demand`` asks for is free; what it does not ask for does not matter."""
        if demand.cpu_millicores > self.cpu_free and demand.cpu_millicores:
            return False
        if demand.memory_bytes > self.memory_free and demand.memory_bytes:
            return False
        if demand.storage_bytes > self.storage_free and demand.storage_bytes:
            return False
        if demand.ports and any(self.usage.taken(port) for port in demand.ports):
            return False
        if demand.bound and demand.homeless(self.record.facts.capabilities.addresses):
            return False
        usage, owner = self.usage, demand.owner
        return not demand.published or not any(usage.holder_of(port, owner) for port in demand.published)
