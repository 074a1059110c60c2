"""The replicas of one workload as a decision sees them: counted, sorted, judged.

``stand`` judges one replica from its record, what its node saw, and the state of that
node. ``Census`` groups them. The steppers and the status view read the same census, so
what is shown is what is acted on. Nothing here decides what to do.
"""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from operator import attrgetter
from typing import Any, NamedTuple

from cloudless.domain.cluster import Cluster
from cloudless.domain.node import NodePhase, NodeRecord
from cloudless.domain.replica import ENDED, Observation, ReplicaPhase, ReplicaRecord
from cloudless.domain.revision import Revision
from cloudless.domain.workload import WorkloadRecord

_CONNECTED = frozenset({NodePhase.READY, NodePhase.NOT_READY})
#: Members by short names: every replica is judged by them, and looking one up in its enum is slow.
_LOST = NodePhase.LOST
_PENDING, _STARTING, _RUNNING = ReplicaPhase.PENDING, ReplicaPhase.STARTING, ReplicaPhase.RUNNING
_STOPPING, _SUCCEEDED, _UNKNOWN = ReplicaPhase.STOPPING, ReplicaPhase.SUCCEEDED, ReplicaPhase.UNKNOWN


class Standing(NamedTuple):
    """One replica, judged at one moment."""

    record: ReplicaRecord
    observation: Observation | None
    node: NodeRecord | None
    phase: ReplicaPhase
    #: Made from the template that is wanted now.
    current: bool
    #: Its node is lost, or no longer known.
    node_lost: bool
    ready: bool
    #: Ready for at least ``min_ready_time``.
    available: bool
    #: When time alone makes it available.
    available_at: datetime.datetime | None
    #: It has come as far as it ever will: available, or ended well.
    settled: bool

    @property
    def lost(self) -> bool:
        """It is to be replaced (or forgotten): its node is lost, and it had not ended before."""
        return self.node_lost and (not self.record.run or self.phase not in ENDED)

    @property
    def title(self) -> str:
        """What a person calls it: ``web/1``."""
        return f"{self.record.name}/{self.record.ordinal}"


def current_numbers(known: Mapping[int, Revision], target: Revision | None) -> frozenset[int]:
    """Numbers of the ``known`` revisions whose replicas are as good as ``target``'s.

    A change that is taken back gives a new revision with an old template: replicas of
    the old one that are still there need no replacement. Nor do those of a revision that
    is restored after a restart of it went wrong.
    """
    if target is None:
        return frozenset()
    return frozenset(
        number
        for number, revision in known.items()
        if (revision.template_hash == target.template_hash or number == target.restores)
        and (revision.image_digest in ("", target.image_digest) or not target.image_digest)
    ) | {target.number}


def stand(
    cluster: Cluster,
    record: ReplicaRecord,
    current: frozenset[int],
    min_ready: datetime.timedelta,
    now: datetime.datetime,
) -> Standing:
    """Judge one replica at ``now``."""
    node_id = record.node_id
    if not node_id:
        phase = _PENDING if record.run else _STOPPING
        return Standing(
            record, None, None, phase, record.revision in current, False, False, False, None, False
        )
    observation = cluster.observations.get(record.id)
    if observation is not None and observation.node_id not in (node_id, ""):
        observation = None
    node = cluster.nodes.get(node_id)
    node_phase = node.phase if node is not None else _LOST
    phase = _phase(record, observation, node_phase in _CONNECTED)
    ready = phase is _RUNNING and record.run and observation is not None and observation.ready
    available, available_at = ready, None
    if ready and min_ready and observation is not None:
        available_at = (observation.ready_since or now) + min_ready
        available = available_at <= now
        if available:
            available_at = None
    return Standing(
        record,
        observation,
        node,
        phase,
        record.revision in current,
        node_phase is _LOST,
        ready,
        available,
        available_at,
        available or phase is _SUCCEEDED,
    )


def _phase(record: ReplicaRecord, observation: Observation | None, connected: bool) -> ReplicaPhase:
    """The phase that is true of a placed replica: no node's word is taken for more than it is."""
    seen = observation.phase if observation is not None else _PENDING
    if seen in ENDED:
        return seen
    if not connected:
        return _UNKNOWN
    if not record.run:
        return _STOPPING
    return _STARTING if seen is _PENDING else seen


class Census:
    """All replicas of a workload, grouped by what matters to a decision.

    ``old`` and ``new`` are meant to run and hold (or will hold) a place on a node that
    is not lost; ``leaving`` are told to stop and not gone yet; ``lost`` were meant to run
    on nodes that are lost; ``abandoned`` were told to stop on such nodes.
    """

    def __init__(self, standings: Iterable[Standing]) -> None:
        self.everyone = list(standings)
        self.old: list[Standing] = []
        self.new: list[Standing] = []
        self.leaving: list[Standing] = []
        self.lost: list[Standing] = []
        self.abandoned: list[Standing] = []
        for one in self.everyone:
            run = one.record.run
            if one.node_lost and one.lost:
                (self.lost if run else self.abandoned).append(one)
            elif not run:
                self.leaving.append(one)
            else:
                (self.new if one.current else self.old).append(one)

    @property
    def staying(self) -> list[Standing]:
        """Meant to run, on nodes that are not lost."""
        return self.old + self.new

    @property
    def everyone_but_old(self) -> list[Standing]:
        """All but those of older templates that are meant to run: far fewer when a rollout begins."""
        return self.new + self.leaving + self.lost + self.abandoned

    @property
    def existing(self) -> int:
        """Replicas that hold resources or will: the number that ``max_surge`` bounds."""
        return len(self.old) + len(self.new) + len(self.leaving)

    def summary(self, target: int) -> str:
        """What is there, in one line, the ``target`` revision first.

        ``2 of revision 5 (1 available), 3 of revision 4 (3 available), 1 leaving``: numbers, since
        what is new and what is old changes places on the way back.
        """
        sizes = Counter([one.record.revision for one in self.staying])
        settled = Counter([one.record.revision for one in self.staying if one.settled])
        sizes[target] += 0
        parts = [
            f"{sizes[number]} of revision {number}"
            + (f" ({settled[number]} available)" if sizes[number] else "")
            for number in sorted(sizes, key=lambda number: (number != target, -number))
        ]
        if self.leaving:
            parts.append(f"{len(self.leaving)} leaving")
        if self.lost:
            parts.append(f"{len(self.lost)} on lost nodes")
        return ", ".join(parts)

    @property
    def replacing(self) -> bool:
        """Whether replicas of an older template are there, be it on their way out."""
        return bool(self.old) or any(not one.current for one in self.leaving)


def take_census(
    cluster: Cluster, workload: WorkloadRecord, current: frozenset[int], now: datetime.datetime
) -> Census:
    """The census of ``workload``; ``current`` are the numbers from ``current_numbers``."""
    min_ready = workload.spec.rollout.min_ready_time
    found = [stand(cluster, record, current, min_ready, now) for record in cluster.replicas_of(workload.id)]
    found.sort(key=by_ordinal)
    return Census(found)


#: Order for showing and for replacing: by ordinal, older ones first.
by_ordinal: Callable[[Standing], Any] = attrgetter("record.ordinal", "record.created_at", "record.id")


def leaving_order(one: Standing) -> tuple[bool, bool, bool, float, int, str]:
    """Order for scaling in: unplaced, then not ready, then the newest."""
    record = one.record
    return (
        bool(record.node_id),
        one.ready,
        one.available,
        -record.created_at.timestamp(),
        -record.ordinal,
        record.id,
    )
