"""Objects as users see them: workloads with their status, replicas, nodes, revisions, plans."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

from cloudless import api
from cloudless.domain.cluster import Cluster
from cloudless.domain.node import NodeRecord
from cloudless.domain.plan import Action, Plan, PutReplica, PutRevision, RemoveReplica
from cloudless.domain.replica import ReplicaRecord
from cloudless.domain.resources import ResourceList
from cloudless.domain.revision import Revision
from cloudless.domain.status import Condition, Refusal, Rollout, StatusRecord
from cloudless.domain.workload import WorkloadRecord
from cloudless.planning.status import ReplicaView, WorkloadView
from cloudless.wire.link import exit_status_to_wire
from cloudless.wire.mirror import to_wire
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
        status=status_to_wire(view, replica or replica_to_wire),
        generation=record.generation,
        resource_version=str(record.resource_version),
        created_at=record.created_at,
        updated_at=record.updated_at,
        deleted_at=record.deleted_at,
    )


def status_to_wire(view: WorkloadView, replica: Callable[[ReplicaView], Any]) -> api.WorkloadStatus:
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
        rollout=None if stored.rollout is None else _rollout(stored.rollout),
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
        refusals=[_refusal(refusal) for refusal in view.refusals],
        created_at=record.created_at,
        workload=record.name,
        namespace=record.namespace,
    )
    if seen is not None:
        status.restarts = seen.restarts
        status.last_exit = None if seen.last_exit is None else exit_status_to_wire(seen.last_exit)
        status.image_digest = seen.image_digest
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


def revision_to_wire(revision: Revision) -> api.Revision:
    """One version of a workload's template."""
    return api.Revision(
        number=revision.number,
        spec=spec_to_wire(revision.spec.shown),
        image_digest=revision.image_digest,
        created_at=revision.created_at,
        author=revision.author,
        message=revision.message,
    )


def plan_to_wire(plan: Plan, cluster: Cluster) -> list[api.PlannedStep]:
    """The steps of a plan for a dry run, in order; ``cluster`` is the state it was made on."""
    refusals = _refusals_by_replica(plan)
    steps = (_step(action, plan, cluster, refusals) for action in plan.actions)
    return [step for step in steps if step is not None]


def _step(
    action: Action, plan: Plan, cluster: Cluster, refusals: dict[str, tuple[Refusal, ...]]
) -> api.PlannedStep | None:
    if isinstance(action, PutRevision):
        what = f"create revision {action.revision.number}"
        return api.PlannedStep(action=what, because=plan.because)
    if isinstance(action, RemoveReplica):
        return api.PlannedStep(action="remove", replica=_replica_name(action.replica))
    if isinstance(action, PutReplica):
        replica = action.replica
        node = cluster.nodes.get(replica.node_id)
        return api.PlannedStep(
            action=_verb(replica, cluster),
            replica=_replica_name(replica),
            node=node.name if node is not None else "",
            because=replica.because,
            score=dict(plan.scores.get(replica.id, replica.score)),
            refusals=[_refusal(refusal) for refusal in refusals.get(replica.id, ())],
        )
    return None


def _verb(replica: ReplicaRecord, cluster: Cluster) -> str:
    if not replica.run:
        return "stop"
    if replica.id in cluster.replicas:
        return "place" if replica.node_id else "keep waiting"
    return "create" if replica.node_id else "create, cannot be placed"


def _refusals_by_replica(plan: Plan) -> dict[str, tuple[Refusal, ...]]:
    found: dict[str, tuple[Refusal, ...]] = {}
    for action in plan.actions:
        status = getattr(action, "status", None)
        if isinstance(status, StatusRecord):
            found.update(status.refusals)
    return found


def _replica_name(replica: ReplicaRecord) -> str:
    return f"{replica.name}/{replica.ordinal}"


def _refusal(refusal: Refusal) -> api.NodeRefusal:
    return api.NodeRefusal(node=refusal.node, reason=refusal.reason)


def _condition(condition: Condition) -> api.Condition:
    return to_wire(condition, api.Condition)


def _rollout(rollout: Rollout) -> api.RolloutStatus:
    return api.RolloutStatus(
        phase=api.RolloutStatusPhase[rollout.phase.name],
        revision=rollout.revision,
        from_revision=rollout.from_revision,
        strategy=api.RolloutStrategyStrategy[rollout.strategy.name],
        because=rollout.because,
        started_at=rollout.started_at,
        progressed_at=rollout.progressed_at,
    )
