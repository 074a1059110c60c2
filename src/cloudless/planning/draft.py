"""A plan in the making: the one thing that planners of a workload write to.

It collects actions, events and times to look again, keeps the census up to date with
what was already decided, and spends the budget of replica changes, so that no plan
outgrows a transaction.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping

from cloudless.domain.cluster import Cluster
from cloudless.domain.event import Event
from cloudless.domain.plan import Action, Plan, PutReplica, RemoveReplica
from cloudless.domain.replica import ReplicaRecord
from cloudless.domain.revision import Revision
from cloudless.domain.workload import WorkloadRecord
from cloudless.planning.announce import replica_event
from cloudless.planning.census import Census, Standing, by_ordinal, current_numbers, stand, take_census
from cloudless.planning.limits import MAX_REPLICA_CHANGES


class Draft:
    """What is decided so far about one workload, at one moment."""

    def __init__(
        self,
        cluster: Cluster,
        workload: WorkloadRecord,
        revisions: Mapping[int, Revision],
        now: datetime.datetime,
        new_id: Callable[[], str],
    ) -> None:
        self.cluster = cluster
        self.workload = workload
        #: All revisions as this plan leaves them, and the newest one: what replicas should be.
        self.revisions = revisions
        self.target = revisions[max(revisions)]
        self.now = now
        self.new_id = new_id
        self.actions: list[Action] = []
        self.events: list[Event] = []
        self.scores: dict[str, dict[str, float]] = {}
        self.stepped = False
        self._because: list[str] = []
        self._wakes: list[datetime.datetime] = []
        self._budget = MAX_REPLICA_CHANGES
        self._current = current_numbers(revisions, self.target)
        #: Replica id -> place of its PutReplica among the actions.
        self._puts: dict[str, int] = {}
        self._dropped: set[int] = set()
        first = take_census(cluster, workload, self._current, now)
        self._standings = {one.record.id: one for one in first.everyone}
        self._census: Census | None = first

    @property
    def census(self) -> Census:
        """The replicas as they are and as this plan leaves them."""
        if self._census is None:
            self._census = Census(sorted(self._standings.values(), key=by_ordinal))
        return self._census

    def spend(self) -> bool:
        """Take one replica change from the budget; without one left, look again at once."""
        if self._budget <= 0:
            self.wake(self.now)
            return False
        self._budget -= 1
        return True

    def say(self, because: str) -> None:
        """Add a reason to the plan's own."""
        if because and because not in self._because:
            self._because.append(because)

    def wake(self, at: datetime.datetime) -> None:
        """Look again at ``at``, even if nothing changes."""
        self._wakes.append(at)

    def change(self, record: ReplicaRecord) -> bool:
        """Like ``put``, at the cost of one replica change unless this plan wrote it before."""
        if record.id not in self._puts and not self.spend():
            return False
        self.put(record)
        return True

    def put(self, record: ReplicaRecord) -> None:
        """Create or change a replica; a record that is put twice is written once."""
        known = self._puts.get(record.id)
        if known is None:
            self._puts[record.id] = len(self.actions)
            self.actions.append(PutReplica(record))
        else:
            self.actions[known] = PutReplica(record)
        min_ready = self.workload.spec.rollout.min_ready_time
        self._standings[record.id] = stand(self.cluster, record, self._current, min_ready, self.now)
        self._census = None

    def remove(self, one: Standing, because: str) -> bool:
        """Forget a replica of which nothing is left that could answer."""
        written = self._puts.pop(one.record.id, None)
        if written is None and not self.spend():
            return False
        if written is not None:
            self._dropped.add(written)
        if one.record.id in self.cluster.replicas:
            self.actions.append(RemoveReplica(one.record))
            if one.record.run:
                self._tell_stopped(one, because)
        del self._standings[one.record.id]
        self._census = None
        return True

    def stop(self, one: Standing, because: str) -> bool:
        """Tell a replica to stop; one without a node is forgotten at once."""
        if not one.record.node_id or one.node_lost:
            return self.remove(one, because)
        if not self.spend():
            return False
        self.put(one.record.replaced(run=False, stopped_at=self.now, because=because))
        self._tell_stopped(one, because)
        return True

    def plan(self) -> Plan:
        """The finished plan; no two of its actions write the same record."""
        return Plan(
            actions=tuple(a for i, a in enumerate(self.actions) if i not in self._dropped),
            events=tuple(self.events),
            wake_at=min(self._wakes, default=None),
            because="; ".join(self._because),
            scores=self.scores,
        )

    def _tell_stopped(self, one: Standing, because: str) -> None:
        self.say(because)
        node = one.node.name if one.node else ""
        self.events.append(
            replica_event(one.record, self.now, "ReplicaStopped", f"{one.title}: {because}", node=node)
        )
