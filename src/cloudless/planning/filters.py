"""Which nodes may take a replica, and the sentence that refuses each of the others.

``filters_for`` builds only the checks that a specification needs, so that a plain one
costs a few comparisons per node. A check gets a node and what is taken of it, and
answers with a reason, empty when it has nothing against the node.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from cloudless.domain.node import NodePhase, NodeRecord
from cloudless.domain.quantity import format_bytes, format_cpu
from cloudless.domain.security import SeccompType, SecurityContext
from cloudless.domain.usage import Demand, NodeUsage
from cloudless.domain.workload import WorkloadSpec

#: Most addresses of a node that a refusal names.
MAX_SHOWN_ADDRESSES = 4

Check = Callable[[NodeRecord, NodeUsage], str]


class Filter(NamedTuple):
    """One check.

    ``static`` when all nodes of one kind (``domain.usage.kind_of``) get the same answer
    whatever is taken of them; ``security`` when a refusal protects the node or the replica.
    """

    check: Check
    static: bool = False
    security: bool = False


def filters_for(spec: WorkloadSpec, demand: Demand) -> list[Filter]:
    """The checks for replicas of ``spec``, cheapest and most telling first."""
    found = [Filter(_phase)]
    found.extend(Filter(check, static=True) for check in (*_wishes(spec), _taints(spec)))
    found.extend(Filter(check, static=True, security=True) for check in _security(spec))
    found.extend(Filter(check) for check in _resources(demand))
    if demand.ports or demand.published:
        found.append(Filter(_ports(demand)))
    if demand.bound:
        found.append(Filter(_address(demand)))
    return found


def _phase(node: NodeRecord, _: NodeUsage) -> str:
    if node.phase is NodePhase.READY:
        return ""
    if node.phase is NodePhase.NOT_READY:
        return f"is not ready: {node.facts.not_ready or node.message or 'no reason given'}"
    return f"is {node.phase.lower()}"


def _wishes(spec: WorkloadSpec) -> Iterator[Check]:
    placement = spec.placement
    if placement.regions:
        yield lambda node, _: _one_of("region", node.facts.region, placement.regions)
    if placement.zones:
        yield lambda node, _: _one_of("zone", node.facts.zone, placement.zones)
    if placement.node_selector:
        yield _selector(placement.node_selector)
    wanted = spec.runtime_class_name
    if wanted:
        yield (
            lambda node, _: (
                "" if wanted in node.facts.capabilities.runtime_classes else f"has no runtime class {wanted}"
            )
        )


def _one_of(what: str, value: str, allowed: tuple[str, ...]) -> str:
    if value in allowed:
        return ""
    return f"{what} {value or '(none)'} is not {' or '.join(allowed)}"


def _selector(wanted: dict[str, str]) -> Check:
    def check(node: NodeRecord, _: NodeUsage) -> str:
        labels = node.facts.labels
        for key, value in wanted.items():
            if labels.get(key) != value:
                has = f"has {labels[key]}" if key in labels else "has no such label"
                return f"needs label {key}={value}, {has}"
        return ""

    return check


def _taints(spec: WorkloadSpec) -> Check:
    tolerations = spec.placement.tolerations

    def check(node: NodeRecord, _: NodeUsage) -> str:
        for taint in node.facts.taints:
            if not any(one.tolerates(taint.key, taint.value, taint.effect) for one in tolerations):
                value = f"={taint.value}" if taint.value else ""
                return f"has taint {taint.key}{value}:{taint.effect}, which is not tolerated"
        return ""

    return check


def _resources(demand: Demand) -> Iterator[Check]:
    if demand.cpu_millicores:
        yield lambda node, usage: _fits(
            "CPU",
            demand.cpu_millicores,
            node.facts.capacity.cpu_millicores - usage.cpu_millicores,
            format_cpu,
        )
    if demand.memory_bytes:
        yield lambda node, usage: _fits(
            "memory", demand.memory_bytes, node.facts.capacity.memory_bytes - usage.memory_bytes, _size
        )
    if demand.storage_bytes:
        yield lambda node, usage: _fits(
            "storage", demand.storage_bytes, node.facts.capacity.storage_bytes - usage.storage_bytes, _size
        )


def _fits(what: str, wanted: int, free: int, shown: Callable[[int], str]) -> str:
    return "" if wanted <= free else f"needs {what} {shown(wanted)}, {shown(max(free, 0))} free"


def _size(value: int) -> str:
    """A size for people: whole mebibytes when it is large.

    >>> _size(125829999), _size(1024)
    ('120Mi', '1Ki')
    """
    return format_bytes(value - value % 2**20 if value >= 2**20 else value)


def _ports(demand: Demand) -> Check:
    def check(_: NodeRecord, usage: NodeUsage) -> str:
        for port in demand.ports:
            if usage.taken(port):
                return f"host port {port} is taken"
        for port in demand.published:
            holder = usage.holder_of(port, demand.owner)
            if holder:
                return f"port {port} cannot be published: {holder} has it"
        return ""

    return check


def _address(demand: Demand) -> Check:
    """Ports that are bound to an address of their own want a node that has it."""

    def check(node: NodeRecord, _: NodeUsage) -> str:
        has = node.facts.capabilities.addresses
        port = demand.homeless(has)
        if port is None:
            return ""
        more = ", ..." if len(has) > MAX_SHOWN_ADDRESSES else ""
        return (
            f"needs address {port.address} for port {port}, has {', '.join(has[:MAX_SHOWN_ADDRESSES])}{more}"
        )

    return check


def _security(spec: WorkloadSpec) -> Iterator[Check]:
    yield from _permissions(spec.security_context)
    yield from _confinement(spec.security_context)
    paths = [volume.host_path.path for volume in spec.volumes if volume.host_path]
    if paths:
        yield lambda node, _: _host_paths(node, paths)


def _permissions(context: SecurityContext) -> Iterator[Check]:
    needs = context.needs_permission
    namespaces = [name for name in needs if name.startswith("host_")]
    others = [name for name in needs if not name.startswith("host_")]
    if others:
        yield (
            lambda node, _: (
                "" if node.facts.capabilities.allow_privileged else f"does not allow {', '.join(others)}"
            )
        )
    if namespaces:
        yield (
            lambda node, _: (
                ""
                if node.facts.capabilities.allow_host_namespaces
                else f"does not allow {', '.join(namespaces)}"
            )
        )


def _confinement(context: SecurityContext) -> Iterator[Check]:
    seccomp = context.seccomp_profile
    if seccomp.type is not SeccompType.UNCONFINED and not context.privileged:
        yield lambda node, _: "" if node.facts.capabilities.seccomp else "cannot enforce seccomp"
    profile = seccomp.localhost_profile
    if profile:
        yield (
            lambda node, _: (
                ""
                if profile in node.facts.capabilities.seccomp_profiles
                else f"has no seccomp profile {profile}"
            )
        )
    if context.apparmor_profile:
        yield lambda node, _: "" if node.facts.capabilities.apparmor else "cannot enforce AppArmor"


def _host_paths(node: NodeRecord, paths: list[str]) -> str:
    allowed = node.facts.capabilities.host_paths
    for path in paths:
        if not any(path == root or path.startswith(root.rstrip("/") + "/") for root in allowed):
            return f"does not allow the host path {path}"
    return ""
