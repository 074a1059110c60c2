"""What travels between coordinator and agent: assignments, observations, node facts, events."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import TypeAdapter, ValidationError

from cloudless import api
from cloudless.domain.errors import Invalid
from cloudless.domain.event import Event, Severity
from cloudless.domain.model import violations_of
from cloudless.domain.names import ObjectId
from cloudless.domain.node import NodeFacts
from cloudless.domain.replica import Assignment, ExitStatus, Observation, ReplicaPhase
from cloudless.domain.rollout import TrafficShare
from cloudless.wire.mirror import from_wire, to_wire
from cloudless.wire.spec import spec_from_wire, spec_to_wire

#: Characters of an id that is not one, in an error.
MAX_SHOWN_ID = 80
#: What all shares of a workload add up to, at most.
WHOLE_PERCENT = 100
_OBJECT_ID = TypeAdapter(ObjectId)


def assignment_to_wire(assignment: Assignment, spec: Any = None) -> api.Assignment:
    """What a node is told of one replica; ``spec`` may be the specification's kept bytes."""
    return api.Assignment(
        replica_id=assignment.replica_id,
        workload_id=assignment.workload_id,
        namespace=assignment.namespace,
        name=assignment.name,
        ordinal=assignment.ordinal,
        revision=assignment.revision,
        spec=spec if spec is not None else spec_to_wire(assignment.spec),
        labels=dict(assignment.labels),
        run=assignment.run,
        grace_period=assignment.grace,
        image_digest=assignment.image_digest,
        pull=assignment.pull,
    )


def assignment_from_wire(message: api.Assignment) -> Assignment:
    """Read an assignment; raises ``Invalid`` when this version cannot understand it."""
    if message.spec is None or not message.replica_id:
        raise Invalid.field("assignment", "needs replica_id and spec")
    path = f"assignment {message.replica_id[:MAX_SHOWN_ID]}"
    spec = spec_from_wire(message.spec, path)
    try:
        return Assignment(
            replica_id=message.replica_id,
            workload_id=message.workload_id,
            namespace=message.namespace,
            name=message.name,
            ordinal=message.ordinal,
            revision=message.revision,
            spec=spec,
            labels=dict(message.labels),
            run=message.run,
            grace=message.grace_period,
            image_digest=message.image_digest,
            pull=message.pull,
        )
    except ValidationError as error:
        raise Invalid(violations=violations_of(error, path)) from None


def shares_to_wire(workload_id: str, shares: Iterable[TrafficShare]) -> api.TrafficSplit:
    """Which revisions of a workload get new connections; none: every ready replica alike."""
    return api.TrafficSplit(
        workload_id=workload_id,
        shares=[api.TrafficShare(revision=share.revision, percent=share.percent) for share in shares],
    )


def shares_from_wire(message: api.TrafficSplit) -> tuple[TrafficShare, ...]:
    """Read the shares of a workload; raises ``Invalid`` when they make no sense."""
    path = f"traffic of {message.workload_id[:MAX_SHOWN_ID]}"
    try:
        _OBJECT_ID.validate_python(message.workload_id)
    except ValidationError as error:
        raise Invalid(violations=violations_of(error, path)) from None
    revisions = {share.revision for share in message.shares}
    if len(revisions) < len(message.shares) or any(revision < 1 for revision in revisions):
        raise Invalid.field(path, "needs different revisions, from 1 on")
    percents = [share.percent for share in message.shares]
    if any(percent < 0 for percent in percents) or sum(percents) > WHOLE_PERCENT:
        raise Invalid.field(path, f"shares {percents} are no percentages of one whole")
    return tuple(TrafficShare(revision=share.revision, percent=share.percent) for share in message.shares)


def exit_status_to_wire(status: ExitStatus) -> api.ExitStatus:
    """How a container ended."""
    return to_wire(status, api.ExitStatus)


def observation_to_wire(seen: Observation) -> api.ReplicaObservation:
    """What a node saw of a replica (the node itself is known from the link)."""
    return api.ReplicaObservation(
        replica_id=seen.replica_id,
        workload_id=seen.workload_id,
        phase=api.ReplicaPhase[seen.phase.name],
        ready=seen.ready,
        restarts=seen.restarts,
        last_exit=None if seen.last_exit is None else exit_status_to_wire(seen.last_exit),
        image_digest=seen.image_digest,
        container_id=seen.container_id,
        address=seen.address,
        started_at=seen.started_at,
        ready_since=seen.ready_since,
        message=seen.message,
        log_tail=seen.log_tail,
        failed_starts=seen.failed_starts,
        tag_digest=seen.tag_digest,
        version=seen.version,
    )


def observation_from_wire(message: api.ReplicaObservation, node_id: str) -> Observation:
    """Read an observation of the node ``node_id``; raises ``Invalid`` on an unknown phase."""
    last_exit = message.last_exit
    return Observation(
        replica_id=message.replica_id,
        workload_id=message.workload_id,
        node_id=node_id,
        phase=_phase(message.phase),
        ready=message.ready,
        restarts=message.restarts,
        last_exit=None if last_exit is None else _exit_status(last_exit),
        image_digest=message.image_digest,
        container_id=message.container_id,
        address=message.address,
        started_at=message.started_at,
        ready_since=message.ready_since,
        message=message.message,
        log_tail=message.log_tail,
        failed_starts=message.failed_starts,
        tag_digest=message.tag_digest,
        version=message.version,
    )


def facts_to_wire(facts: NodeFacts) -> api.NodeFacts:
    """What a node says of itself."""
    return to_wire(facts, api.NodeFacts)


def facts_from_wire(message: api.NodeFacts) -> NodeFacts:
    """Validate what a node says of itself; raises ``Invalid``."""
    return from_wire(message, NodeFacts, "node")


def event_to_wire(event: Event) -> api.Event:
    """An event as people read it."""
    return api.Event(
        id=event.id,
        at=event.at,
        severity=event.severity.value,
        reason=event.reason,
        message=event.message,
        kind=event.kind,
        namespace=event.namespace,
        name=event.name,
        replica_id=event.replica_id,
        node=event.node,
    )


def event_from_wire(message: api.Event) -> Event:
    """Read an event that a node reported; raises ``Invalid``."""
    if message.at is None or message.severity not in tuple(Severity):
        raise Invalid.field("event", "needs a time and a severity of Normal or Warning")
    return Event(
        id=message.id,
        at=message.at,
        severity=Severity(message.severity),
        reason=message.reason,
        message=message.message,
        kind=message.kind,
        namespace=message.namespace,
        name=message.name,
        replica_id=message.replica_id,
        node=message.node,
    )


def _phase(phase: api.ReplicaPhase) -> ReplicaPhase:
    name = str(getattr(phase, "name", None))
    if name not in ReplicaPhase.__members__:
        raise Invalid.field("phase", f"is not a phase that this version knows ({phase!r})")
    return ReplicaPhase[name]


def _exit_status(message: api.ExitStatus) -> ExitStatus:
    if message.finished_at is None:
        raise Invalid.field("last_exit.finished_at", "is required")
    return ExitStatus(
        code=message.code,
        signal=message.signal,
        oom_killed=message.oom_killed,
        finished_at=message.finished_at,
        reason=message.reason,
        log_tail=message.log_tail,
    )
