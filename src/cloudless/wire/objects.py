"""Objects as users see them: workloads with their status, replicas, nodes."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

from cloudless import api
from cloudless.domain.node import NodeRecord
from cloudless.domain.resources import ResourceList
from cloudless.domain.status import Condition, StatusRecord
from cloudless.domain.strategy import RolloutStrategy
from cloudless.domain.workload import WorkloadRecord
from cloudless.planning.status import ReplicaView, WorkloadView
from cloudless.wire.link import exit_status_to_wire
from cloudless.wire.mirror import to_wire
from cloudless.wire.rollouts import refusals_to_wire, rollout_to_wire
from cloudless.wire.spec import resource_list_to_wire, spec_to_wire


def workload_to_wire(
    record: WorkloadRecord, view: WorkloadView, replica: Callable[[ReplicaView], Any] | None = None
) -> api.Workload:
    """A workload with its status as seen now.

    ``replica`` stands in for ``replica_to_wire`` and may return what was encoded before.
    """
    return api.Workload(
        id=record.id,
        namespace=record.namespace,
        name=record.name,
        labels=dict(record.labels),
        annotations=dict(record.annotations),
        spec=spec_to_wire(record.spec.shown),
        status=status_to_wire(view, replica or replica_to_wire, record.spec.rollout),
        generation=record.generation,
        resource_version=str(record.resource_version),
        created_at=record.created_at,
        updated_at=record.updated_at,
        deleted_at=record.deleted_at,
        restarts=record.restart_count,
    )


def status_to_wire(
    view: WorkloadView, replica: Callable[[ReplicaView], Any], strategy: RolloutStrategy
) -> api.WorkloadStatus:
    """Counts, replicas and conclusions; without a stored status nothing is observed yet."""
    stored = view.status or StatusRecord(workload_id="", observed_generation=0)
    return api.WorkloadStatus(
        observed_generation=stored.observed_generation,
        desired_replicas=view.desired,
        ready_replicas=view.ready,
        available_replicas=view.available,
        updated_replicas=view.updated,
        current_replicas=view.current,
        revision=stored.revision,
        conditions=[_condition(condition) for condition in stored.conditions],
        rollout=None if stored.rollout is None else rollout_to_wire(stored.rollout, strategy, view.rollout),
        replicas=[replica(one) for one in view.replicas],
        message=view.message,
    )


def replica_to_wire(view: ReplicaView) -> api.ReplicaStatus:
    """One replica: what is wanted of it and what its node saw."""
    record, seen = view.record, view.observation
    status = api.ReplicaStatus(
        id=record.id,
        ordinal=record.ordinal,
        node=view.node_name,
        phase=api.ReplicaPhase[view.phase.name],
        ready=view.ready,
        available=view.available,
        revision=record.revision,
        message=view.message,
        refusals=refusals_to_wire(view.refusals),
        created_at=record.created_at,
        workload=record.name,
        namespace=record.namespace,
    )
    if seen is not None:
        status.restarts = seen.restarts
        status.last_exit = None if seen.last_exit is None else exit_status_to_wire(seen.last_exit)
        status.image_digest = seen.image_digest
        status.tag_digest = seen.tag_digest
        status.container_id = seen.container_id
        status.address = seen.address
        status.started_at = seen.started_at
    return status


def node_to_wire(
    record: NodeRecord, reserved: ResourceList, replicas: int, seen_at: datetime.datetime | None
) -> api.Node:
    """A node with what its replicas have reserved."""
    facts = record.facts
    return api.Node(
        id=facts.id,
        name=facts.name,
        region=facts.region,
        zone=facts.zone,
        labels=dict(facts.labels),
        taints=[to_wire(taint, api.Taint) for taint in facts.taints],
        capacity=resource_list_to_wire(facts.capacity),
        reserved=resource_list_to_wire(reserved),
        phase=api.NodePhase[record.phase.name],
        message=record.message or facts.not_ready,
        capabilities=to_wire(facts.capabilities, api.NodeCapabilities),
        joined_at=record.joined_at,
        seen_at=seen_at,
        replicas=replicas,
        version=facts.version,
    )


def _condition(condition: Condition) -> api.Condition:
    return to_wire(condition, api.Condition)
