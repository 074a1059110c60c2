"""A node: a machine that runs replicas."""

from __future__ import annotations

import datetime
import enum

from cloudless.domain.model import Model
from cloudless.domain.names import Labels
from cloudless.domain.resources import ResourceList


class NodePhase(enum.StrEnum):
    """Whether a node can be given work."""

    READY = "READY"
    #: Connected, but cannot start replicas now (containerd is away, the disk is full).
    NOT_READY = "NOT_READY"
    #: Its connection is broken; its replicas are believed to run on.
    DISCONNECTED = "DISCONNECTED"
    #: Disconnected for longer than the grace; its replicas are replaced.
    LOST = "LOST"


N = NodePhase
#: Which phase may follow which; the diagram in docs is drawn from this table.
NODE_TRANSITIONS: dict[NodePhase, frozenset[NodePhase]] = {
    N.READY: frozenset({N.NOT_READY, N.DISCONNECTED}),
    N.NOT_READY: frozenset({N.READY, N.DISCONNECTED}),
    N.DISCONNECTED: frozenset({N.READY, N.NOT_READY, N.LOST}),
    N.LOST: frozenset({N.READY, N.NOT_READY}),
}


class Taint(Model):
    """Keeps replicas away that do not tolerate it. ``effect``: no_schedule or no_execute."""

    key: str
    value: str = ""
    effect: str = "no_schedule"


class NodeCapabilities(Model):
    """What a node can enforce and what its operator allows."""

    architecture: str = ""
    kernel: str = ""
    containerd_version: str = ""
    runtime_classes: tuple[str, ...] = ("runc",)
    seccomp: bool = True
    apparmor: bool = False
    host_paths: tuple[str, ...] = ()
    allow_privileged: bool = False
    allow_host_namespaces: bool = False
    seccomp_profiles: tuple[str, ...] = ()
    address: str = ""
    #: IPv4 addresses of the machine, without loopback; empty when they are not known.
    addresses: tuple[str, ...] = ()
    #: Where ports are published besides loopback when a workload names no address.
    publish_addresses: tuple[str, ...] = ()


class NodeFacts(Model):
    """What a node says of itself when it joins and whenever it changes."""

    id: str
    name: str
    region: str = ""
    zone: str = ""
    labels: Labels = {}
    taints: tuple[Taint, ...] = ()
    capacity: ResourceList = ResourceList()
    capabilities: NodeCapabilities = NodeCapabilities()
    version: str = ""
    #: Empty when replicas can be started; else why not.
    not_ready: str = ""


class NodeRecord(Model):
    """What is stored of a node: its facts, and what the coordinator thinks of it."""

    facts: NodeFacts
    phase: NodePhase = NodePhase.READY
    message: str = ""
    joined_at: datetime.datetime
    #: When the phase changed last.
    changed_at: datetime.datetime
    #: Identity of the connection that speaks for the node now.
    session: str = ""

    @property
    def id(self) -> str:
        """The node's id; unique for ever."""
        return self.facts.id

    @property
    def name(self) -> str:
        """The node's name; unique among the nodes there are."""
        return self.facts.name
