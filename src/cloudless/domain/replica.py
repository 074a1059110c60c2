"""A replica: one container's worth of a workload, from placement to its end.

Two records, each with one writer: ``ReplicaRecord`` is what the coordinator wants of a
node, ``Observation`` is what the node saw. The phases and their order are a table.
"""

from __future__ import annotations

import datetime
import enum
from typing import Annotated, Final

from pydantic import Field, StringConstraints

from cloudless.domain.model import Model
from cloudless.domain.names import Name, ObjectId
from cloudless.domain.quantity import Duration
from cloudless.domain.workload import WorkloadSpec


class ReplicaPhase(enum.StrEnum):
    """Where a replica is in its life."""

    PENDING = "PENDING"
    STARTING = "STARTING"
    RUNNING = "RUNNING"
    BACKING_OFF = "BACKING_OFF"
    STOPPING = "STOPPING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    UNKNOWN = "UNKNOWN"

    @property
    def words(self) -> str:
        """As it is said in a sentence.

        >>> ReplicaPhase.BACKING_OFF.words
        'backing off'
        """
        return self.value.lower().replace("_", " ")


P = ReplicaPhase
#: Which phase may follow which; the diagram in docs is drawn from this table. UNKNOWN is
#: the coordinator's word for "its node does not answer" and leads back to any phase.
TRANSITIONS: dict[ReplicaPhase, frozenset[ReplicaPhase]] = {
    P.PENDING: frozenset({P.STARTING, P.STOPPING, P.FAILED, P.UNKNOWN, P.RUNNING}),
    P.STARTING: frozenset({P.RUNNING, P.BACKING_OFF, P.STOPPING, P.SUCCEEDED, P.FAILED, P.UNKNOWN}),
    P.RUNNING: frozenset({P.STARTING, P.BACKING_OFF, P.STOPPING, P.SUCCEEDED, P.FAILED, P.UNKNOWN}),
    P.BACKING_OFF: frozenset({P.STARTING, P.RUNNING, P.STOPPING, P.FAILED, P.UNKNOWN}),
    P.STOPPING: frozenset({P.SUCCEEDED, P.FAILED, P.UNKNOWN}),
    P.SUCCEEDED: frozenset({P.STOPPING}),
    P.FAILED: frozenset({P.STOPPING}),
    P.UNKNOWN: frozenset(ReplicaPhase) - {P.UNKNOWN, P.PENDING},
}
#: Phases that a replica leaves only by being removed.
ENDED = frozenset({P.SUCCEEDED, P.FAILED})


#: What an observation says of a replica that runs, and of which no probe has told yet whether it is ready.
UNPROBED: Final = "waits for its first probe"


class ExitStatus(Model):
    """How a container ended. ``signal`` is 0 when none; ``log_tail`` its last lines."""

    code: int
    signal: int = 0
    oom_killed: bool = False
    finished_at: datetime.datetime
    reason: str = ""
    log_tail: str = ""


class ReplicaRecord(Model):
    """What the coordinator wants: written by the coordinator only.

    ``node_id`` empty means not placed yet; ``run`` false means stop it and keep it
    stopped until the node says that nothing is left, after which the record goes.
    """

    id: str
    workload_id: str
    namespace: str
    name: str
    ordinal: int
    revision: int
    node_id: str = ""
    run: bool = True
    grace: Duration | None = None
    created_at: datetime.datetime
    placed_at: datetime.datetime | None = None
    stopped_at: datetime.datetime | None = None
    #: Terms of the score that chose the node, by name.
    score: dict[str, float] = {}
    because: str = ""
    resource_version: int = 0


class Observation(Model):
    """What a node saw of a replica: written from that node's reports only.

    ``version`` rises with every observation; an older one never replaces a newer one.
    """

    replica_id: str
    workload_id: str
    node_id: str = ""
    phase: ReplicaPhase
    ready: bool = False
    restarts: int = 0
    last_exit: ExitStatus | None = None
    image_digest: str = ""
    container_id: str = ""
    address: str = ""
    started_at: datetime.datetime | None = None
    ready_since: datetime.datetime | None = None
    message: str = ""
    #: Its last lines while its readiness probe fails.
    log_tail: str = ""
    #: Tries to start its container that failed in a row.
    failed_starts: int = 0
    #: What the tag of its image means on the node now, where that is another image.
    tag_digest: str = ""
    version: int = 0


class Assignment(Model):
    """What a node is told to do with one replica; kept in the node's journal.

    Ids and names become folders, labels and host names of the node, so it checks them itself.
    """

    replica_id: ObjectId
    workload_id: ObjectId
    namespace: Name
    name: Name
    ordinal: Annotated[int, Field(ge=0)]
    revision: Annotated[int, Field(ge=0)]
    spec: WorkloadSpec
    labels: dict[str, str] = {}
    run: bool = True
    grace: Duration | None = None
    image_digest: Annotated[str, StringConstraints(pattern=r"^(sha256:[0-9a-f]{64})?$")] = ""
    #: Ask the registry even when the image is there.
    pull: bool = False
