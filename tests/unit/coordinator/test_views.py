"""Kept bytes of workloads are what a fresh encoding would give."""

from __future__ import annotations

import datetime

from cloudless import api
from cloudless.coordinator.services.views import _Replicas
from cloudless.domain.replica import Observation, ReplicaPhase, ReplicaRecord
from cloudless.domain.status import StatusRecord
from cloudless.domain.workload import WorkloadRecord, WorkloadSpec
from cloudless.planning.status import ReplicaView, WorkloadView
from cloudless.transport.codec import decode, encode
from cloudless.wire.objects import workload_to_wire

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
SPEC = WorkloadSpec(image="web:1", replicas=2)
WORKLOAD = WorkloadRecord(id="w", namespace="default", name="web", spec=SPEC, created_at=NOW, updated_at=NOW)


def replica(number: int, phase: ReplicaPhase, restarts: int = 0) -> ReplicaView:
    record = ReplicaRecord(
        id=f"r{number}",
        workload_id="w",
        namespace="default",
        name="web",
        ordinal=number,
        revision=1,
        created_at=NOW,
    )
    seen = Observation(
        replica_id=record.id, workload_id="w", node_id="n", phase=phase, container_id="c", restarts=restarts
    )
    running = phase is ReplicaPhase.RUNNING
    return ReplicaView(record, seen, phase, running, running, "node-1", "so it is")


def shown(*replicas: ReplicaView) -> WorkloadView:
    ready = sum(one.ready for one in replicas)
    status = StatusRecord(workload_id="w", observed_generation=1)
    return WorkloadView(
        desired=2,
        ready=ready,
        available=ready,
        updated=2,
        current=2,
        replicas=replicas,
        status=status,
        message="",
        valid_until=None,
    )


def test_replicas_that_did_not_change_are_not_encoded_again() -> None:
    kept = _Replicas()
    first = kept.encoded(replica(0, ReplicaPhase.RUNNING))
    kept.forget_others()
    assert kept.encoded(replica(0, ReplicaPhase.RUNNING)) is first


def test_every_change_of_a_replica_shows() -> None:
    kept = _Replicas()
    states = [
        shown(replica(0, ReplicaPhase.STARTING), replica(1, ReplicaPhase.STARTING)),
        shown(replica(0, ReplicaPhase.RUNNING), replica(1, ReplicaPhase.STARTING)),
        shown(replica(0, ReplicaPhase.RUNNING, restarts=1), replica(1, ReplicaPhase.RUNNING)),
        shown(replica(1, ReplicaPhase.RUNNING)),
    ]
    for view in states:
        data = encode(workload_to_wire(WORKLOAD, view, kept.encoded))
        kept.forget_others()
        assert data == encode(workload_to_wire(WORKLOAD, view))
        assert len(decode(data, api.Workload).status.replicas) == len(view.replicas)


def test_replicas_that_are_gone_are_forgotten() -> None:
    kept = _Replicas()
    gone = kept.encoded(replica(0, ReplicaPhase.RUNNING))
    kept.forget_others()
    kept.encoded(replica(1, ReplicaPhase.RUNNING))
    kept.forget_others()
    assert kept.encoded(replica(0, ReplicaPhase.RUNNING)) is not gone
