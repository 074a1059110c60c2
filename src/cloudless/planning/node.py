"""What a node does with the containers it finds: adopt, start, stop, collect, or keep. Pure.

Asked when the agent starts, when the container runtime comes back, and after every
message from the coordinator. It never names a container that is not this node's own.
"""

from __future__ import annotations

import datetime
import enum
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from cloudless.domain.replica import Assignment


class ContainerState(enum.StrEnum):
    """Where a container is: a record without a process, ready to run, running, ended."""

    RECORDED = "recorded"
    CREATED = "created"
    RUNNING = "running"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class ContainerFact:
    """A container of this node as its runtime reports it.

    ``exit_code`` is None unless it stopped, and also when the runtime lost it. ``attempt``
    is the number in its id; ``restarts`` the count that its record carries.
    """

    id: str
    replica_id: str
    workload_id: str
    attempt: int
    state: ContainerState
    pid: int = 0
    restarts: int = 0
    spec_hash: str = ""
    image_digest: str = ""
    exit_code: int | None = None
    finished_at: datetime.datetime | None = None
    started_at: datetime.datetime | None = None


@dataclass(frozen=True, slots=True)
class NodePlan:
    """What to do with each replica and container; ``because`` says why for those to go.

    ``adopt`` maps a replica to its container that goes on (or whose end is to be judged);
    ``start`` are replicas without one; ``stop`` replicas that must end; ``remove``
    containers that no replica needs; ``keep`` containers that nobody vouches for yet.
    """

    adopt: dict[str, ContainerFact] = field(default_factory=dict)
    start: tuple[str, ...] = ()
    stop: dict[str, tuple[ContainerFact, ...]] = field(default_factory=dict)
    remove: tuple[ContainerFact, ...] = ()
    keep: tuple[ContainerFact, ...] = ()


def plan_node(
    assignments: Mapping[str, Assignment],
    containers: Sequence[ContainerFact],
    *,
    doomed: AbstractSet[str] = frozenset(),
    whole: bool = True,
) -> NodePlan:
    """Sort what was found by what was told.

    ``doomed`` are replicas known to be no longer assigned. ``whole`` says whether the
    assignments are all there are; while they may not be (the journal was lost, or the
    coordinator has not spoken yet), containers of unknown replicas are kept.
    """
    found: dict[str, list[ContainerFact]] = {}
    for container in containers:
        found.setdefault(container.replica_id, []).append(container)
    plan = NodePlan()
    start: list[str] = []
    remove: list[ContainerFact] = []
    keep: list[ContainerFact] = []
    for replica_id, assignment in assignments.items():
        own = found.pop(replica_id, [])
        if not assignment.run:
            plan.stop[replica_id] = tuple(own)
            continue
        newest = _to_adopt(own)
        if newest is None:
            start.append(replica_id)
        else:
            plan.adopt[replica_id] = newest
        remove.extend(container for container in own if container is not newest)
    for replica_id, own in found.items():
        if whole or replica_id in doomed:
            plan.stop[replica_id] = tuple(own)
        else:
            keep.extend(own)
    for replica_id in sorted(doomed - plan.stop.keys() - assignments.keys()):
        plan.stop[replica_id] = ()  # its network or files may be left
    return NodePlan(plan.adopt, tuple(start), plan.stop, tuple(remove), tuple(keep))


def _to_adopt(own: Sequence[ContainerFact]) -> ContainerFact | None:
    """The container that speaks for the replica: one that runs, or else the last that ended.

    A record or a task that never started is a start that was cut short: it is done again.
    """
    for state in (ContainerState.RUNNING, ContainerState.STOPPED):
        fitting = [container for container in own if container.state is state]
        if fitting:
            return max(fitting, key=lambda container: container.attempt)
    return None
