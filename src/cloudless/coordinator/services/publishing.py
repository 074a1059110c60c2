"""A published port belongs to one workload: asked before a workload is written.

Two requests at the same instant may both pass; then placement refuses the later one's
replicas and says who has the port.
"""

from __future__ import annotations

from cloudless.domain.cluster import Cluster
from cloudless.domain.errors import FieldViolation, PreconditionFailed
from cloudless.domain.ports import published_ports
from cloudless.domain.workload import WorkloadRecord


class PublishedElsewhere(PreconditionFailed):
    """Another workload has a port that this one wants to publish; ``violations`` name the fields."""

    code = "CL-4124"

    def __init__(self, violations: tuple[FieldViolation, ...]) -> None:
        super().__init__(
            "; ".join(f"{path}: {what}" for path, what in violations),
            hint="publish another port, or wait until the other workload is gone",
        )
        self.violations = violations


def refuse_published_elsewhere(cluster: Cluster, record: WorkloadRecord) -> None:
    """Raise ``PublishedElsewhere`` when a port of ``record`` is published by another workload."""
    wanted = list(published_ports(record.spec.ports))
    if not wanted or record.deleted_at is not None:
        return
    found = []
    for other in cluster.workloads.values():
        same = (other.namespace, other.name) == (record.namespace, record.name)
        if same or not other.spec.ports:
            continue
        for index, port in wanted:
            if any(port.meets(theirs) for _, theirs in published_ports(other.spec.ports)):
                state = "which is being deleted" if other.deleted_at is not None else ""
                who = f"workload {other.namespace}/{other.name}"
                what = f"{port} is published by {who}" + (f", {state}" if state else "")
                found.append(FieldViolation(f"spec.ports[{index}].publish", what))
    if found:
        raise PublishedElsewhere(tuple(found))
