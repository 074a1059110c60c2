"""A plan: what the coordinator decided, as data.

Planning makes it, ``coordinator.control`` turns it into one fenced transaction.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field

from cloudless.domain.event import Event
from cloudless.domain.node import NodeRecord
from cloudless.domain.replica import ReplicaRecord
from cloudless.domain.revision import Revision
from cloudless.domain.rollout import JournalEntry
from cloudless.domain.status import StatusRecord


@dataclass(frozen=True, slots=True)
class PutReplica:
    """Create or change a replica's record (placed, told to stop)."""

    replica: ReplicaRecord


@dataclass(frozen=True, slots=True)
class RemoveReplica:
    """Nothing is left of it on any node that could answer: forget record and observation."""

    replica: ReplicaRecord


@dataclass(frozen=True, slots=True)
class PutRevision:
    """A new revision, or one whose image digest became known."""

    revision: Revision


@dataclass(frozen=True, slots=True)
class RemoveRevision:
    """A revision beyond the ones kept, and its journal."""

    workload_id: str
    number: int


@dataclass(frozen=True, slots=True)
class PutStatus:
    """The coordinator's new conclusions about a workload."""

    status: StatusRecord


@dataclass(frozen=True, slots=True)
class PutJournal:
    """One more entry in the journal of a revision's rollout."""

    entry: JournalEntry


@dataclass(frozen=True, slots=True)
class RemoveWorkload:
    """A deleted workload of which nothing is left."""

    workload_id: str
    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class PutNode:
    """A node's new phase."""

    node: NodeRecord


Action = (
    PutReplica
    | RemoveReplica
    | PutRevision
    | RemoveRevision
    | PutStatus
    | PutJournal
    | RemoveWorkload
    | PutNode
)


@dataclass(frozen=True, slots=True)
class Plan:
    """Actions that belong together, when to look again even if nothing changes, and why.

    ``events`` are written in the same transaction; an empty plan writes nothing.
    """

    actions: tuple[Action, ...] = ()
    events: tuple[Event, ...] = ()
    wake_at: datetime.datetime | None = None
    because: str = ""
    #: Replica id -> terms of the placement score; shown by dry runs.
    scores: dict[str, dict[str, float]] = field(default_factory=dict)
