"""Events about workloads, replicas and nodes, in one form.

Planners call these with the sentence that people read; ids of events are given by the
coordinator when it writes them.
"""

from __future__ import annotations

import datetime

from cloudless.domain.event import Event, Severity
from cloudless.domain.node import NodeRecord
from cloudless.domain.replica import ReplicaRecord
from cloudless.domain.workload import WorkloadRecord


def workload_event(
    workload: WorkloadRecord, now: datetime.datetime, reason: str, message: str, *, warning: bool = False
) -> Event:
    """Something that happened to a workload."""
    return Event.trusted(
        at=now,
        severity=Severity.WARNING if warning else Severity.NORMAL,
        reason=reason,
        message=message,
        kind="workload",
        namespace=workload.namespace,
        name=workload.name,
    )


def replica_event(
    replica: ReplicaRecord,
    now: datetime.datetime,
    reason: str,
    message: str,
    *,
    node: str = "",
    warning: bool = False,
) -> Event:
    """Something that happened to a replica; ``node`` is the name of its node."""
    return Event.trusted(
        at=now,
        severity=Severity.WARNING if warning else Severity.NORMAL,
        reason=reason,
        message=message,
        kind="replica",
        namespace=replica.namespace,
        name=replica.name,
        replica_id=replica.id,
        node=node,
    )


def node_event(
    node: NodeRecord, now: datetime.datetime, reason: str, message: str, *, warning: bool = False
) -> Event:
    """Something that happened to a node."""
    return Event.trusted(
        at=now,
        severity=Severity.WARNING if warning else Severity.NORMAL,
        reason=reason,
        message=message,
        kind="node",
        name=node.name,
        node=node.name,
    )
