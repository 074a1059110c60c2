"""States of a rollout from revision 3 to 4 of a workload with three replicas, one after the other."""

from __future__ import annotations

import datetime

from fake_coordinator import NOW, copied, ready_status, replica_of

from cloudless import api

Phase = api.RolloutStatusPhase
ReplicaPhase = api.ReplicaPhase
READY = {"phase": ReplicaPhase.RUNNING}
STARTING = {"phase": ReplicaPhase.STARTING, "ready": False, "available": False}
STOPPING = {"phase": ReplicaPhase.STOPPING, "ready": False, "available": False}
FAILURE = api.RolloutFailure(
    reason="TooManyFailures",
    message="new replicas failed 3 times, 2 are tolerated",
    replica="web/3",
    node="n2",
    last_exit=api.ExitStatus(code=1, reason="exit code 1"),
    detail="readiness: HTTP 503",
    log_tail="starting\nno \x1b[31mdatabase",
    changes=["image: web:1.4 -> web:1.5", "env.DB: (none) -> db.internal"],
    at=NOW,
    revision=4,
)


def shown(fake, new, old, phase=Phase.PROGRESSING, *, target=4, name="web", **rollout):
    """Replicas of revisions 4 and 3 as mappings of fields by ordinal, and the rollout's own fields."""
    workload = copied(fake.workloads["default", name])
    status = ready_status(workload)
    status.replicas = [
        replica_of(workload, ordinal, id=f"{revision}-{ordinal}", revision=revision, **fields)
        for revision, replicas in ((4, new), (3, old))
        for ordinal, fields in replicas.items()
    ]
    made, left = (new, old) if target == 4 else (old, new)
    status.revision = 4
    status.updated_replicas, status.current_replicas = len(new), len(new) + len(old)
    status.available_replicas = sum(one.available for one in status.replicas)
    given = {"revision": 4, "from_revision": 3, "strategy": api.RolloutStrategyStrategy.ROLLING_UPDATE}
    status.rollout = api.RolloutStatus(
        phase=phase,
        target_revision=target,
        new_replicas=len(made),
        new_available=sum(one.available for one in status.replicas if one.revision == target),
        old_replicas=len(left),
        started_at=NOW,
        **given | rollout,
    )
    fake.set_status(name, status)


def in_two_hours() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=2, seconds=30)


def before(fake):
    shown(fake, {}, {0: READY, 1: READY, 2: READY}, Phase.COMPLETED, target=3, revision=3, from_revision=2)


def begun(fake):
    shown(fake, {3: STARTING}, {0: READY, 1: READY, 2: READY}, deadline=in_two_hours())


def halfway(fake):
    shares = [api.TrafficShare(3, 80), api.TrafficShare(4, 20)]
    shown(
        fake,
        {3: READY},
        {0: STOPPING, 1: READY, 2: READY},
        traffic=shares,
        because="waiting for web/0 to stop",
        deadline=in_two_hours(),
        failures=1,
        reasons=[
            api.Reason(0, "waiting for web/0 to stop"),
            api.Reason(1, "1 new (1 available)"),
            api.Reason(2, "web/0: stopping", "web/0"),
        ],
    )


def going_back(fake):
    shown(
        fake, {3: STOPPING}, {0: STARTING, 1: READY, 2: READY}, Phase.ROLLING_BACK, target=3, failure=FAILURE
    )


def rolled_back(fake):
    shown(
        fake,
        {},
        {0: READY, 1: READY, 2: READY},
        Phase.ROLLED_BACK,
        target=3,
        failure=FAILURE,
        ended_at=NOW,
        because="revision 4 rolled back: revision 3 is in its place",
    )


def done(fake):
    shown(fake, {3: READY, 4: READY, 5: READY}, {}, Phase.COMPLETED, ended_at=NOW)
