"""What changed in the cache, one entry for each batch, and the last few of them.

The cache makes ``Changes`` and hands them to its subscribers; watches of the API resume
from ``ChangeHistory``. A change says where to look again, never what is there now.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from cloudless.coordinator.limits import HISTORY_CHANGES
from cloudless.domain.errors import OutOfRange
from cloudless.domain.event import Event
from cloudless.domain.workload import WorkloadRecord


@dataclass(slots=True)
class Changes:
    """One batch: everything that the store's ``revision`` changed (or a whole new list)."""

    revision: int
    #: Workloads whose record, status, replicas or observations changed, or whose nodes did.
    workloads: set[str] = field(default_factory=set)
    #: Nodes whose record changed or went.
    nodes: set[str] = field(default_factory=set)
    #: Node id -> replicas whose assignment has to be looked at again.
    assignments: dict[str, set[str]] = field(default_factory=dict)
    #: Node id -> workloads there whose shares of new connections have to be looked at again.
    traffic: dict[str, set[str]] = field(default_factory=dict)
    #: Resources or host ports became free, or a node changed: try the unplaced ones again.
    freed: bool = False
    #: Records that went, by workload id.
    deleted: dict[str, WorkloadRecord] = field(default_factory=dict)
    #: Labels before this change, of workloads whose record changed; None for new ones.
    labels_before: dict[str, Mapping[str, str] | None] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)

    def assign(self, node_id: str, replica_id: str) -> None:
        """Look at the assignment of a replica again; no node, no assignment."""
        if node_id:
            self.assignments.setdefault(node_id, set()).add(replica_id)

    def share(self, node_id: str, workload_id: str) -> None:
        """Look at the shares of a workload again that has replicas on the node."""
        if node_id:
            self.traffic.setdefault(node_id, set()).add(workload_id)


class ChangeHistory:
    """The newest changes, in order; knows from which revision on it is complete."""

    def __init__(self) -> None:
        self._entries: deque[Changes] = deque()
        self._complete_after = 0

    def restart(self, revision: int) -> None:
        """Forget everything; what comes next follows on ``revision``."""
        self._entries.clear()
        self._complete_after = revision

    def add(self, changes: Changes) -> None:
        """Append the newest batch and drop the oldest beyond the limit."""
        self._entries.append(changes)
        if len(self._entries) > HISTORY_CHANGES:
            self._complete_after = self._entries.popleft().revision

    def since(self, revision: int) -> Iterator[Changes]:
        """The batches after ``revision``, oldest first; raises ``OutOfRange``."""
        if revision < self._complete_after:
            raise OutOfRange(
                f"resource_version {revision} is too old; changes are kept from {self._complete_after} on",
                hint="list again and watch from the version of the list",
            )
        return (changes for changes in tuple(self._entries) if changes.revision > revision)
