"""A plan in the making: the one thing that planners of a workload write to.

It collects actions, events and times to look again, keeps the census up to date with
what was already decided, and spends the budget of replica changes, so that no plan
outgrows a transaction.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping
from typing import Any

from cloudless.domain.cluster import Cluster
from cloudless.domain.event import Event
from cloudless.domain.plan import Action, Plan, PutJournal, PutReplica, RemoveReplica
from cloudless.domain.replica import ReplicaRecord
from cloudless.domain.revision import Revision
from cloudless.domain.rollout import JournalEntry, Rollout
from cloudless.domain.workload import WorkloadRecord
from cloudless.planning.announce import replica_event, workload_event
from cloudless.planning.census import Census, Standing, by_ordinal, current_numbers, stand, take_census
from cloudless.planning.limits import MAX_JOURNAL_ENTRIES, MAX_REPLICA_CHANGES


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
        #: All revisions as this plan leaves them, and the one that replicas are made from.
        self.revisions = dict(revisions)
        self.target = revisions[max(revisions)]
        #: The rollout as this plan leaves it; set by the planner before anything is stepped.
        self.rollout: Rollout
        self.now = now
        self.new_id = new_id
        self.actions: list[Action] = []
        self.events: list[Event] = []
        self.scores: dict[str, dict[str, float]] = {}
        #: The plan's reasons in their order; the values say nothing.
        self._because: dict[str, None] = {}
        self._wakes: list[datetime.datetime] = []
        self._budget = MAX_REPLICA_CHANGES
        #: Replica id -> place of its PutReplica among the actions.
        self._puts: dict[str, int] = {}
        self._dropped: set[int] = set()
        self._current = current_numbers(self.revisions, self.target)
        self._min_ready = workload.spec.rollout.min_ready_time
        #: By replica id; in the order of a census unless replicas were added since it was taken.
        self._standings: dict[str, Standing] = {}
        self._added = False
        self._census: Census | None = None
        self._look()

    def aim(self, number: int) -> None:
        """Make replicas from another revision; to be called before any replica is changed."""
        if number != self.target.number:
            self.target = self.revisions[number]
            self._current = current_numbers(self.revisions, self.target)
            self._look()

    def revise(self, number: int, **changes: Any) -> None:
        """Note with a revision how its rollout stands."""
        if number in self.revisions:
            self.revisions[number] = self.revisions[number].replaced(**changes)

    def tell(self, reason: str, text: str, *, warning: bool = False) -> None:
        """Add an event about the workload, and say the same."""
        self.events.append(workload_event(self.workload, self.now, reason, text, warning=warning))
        self.say(text)

    def note(self, verb: str, decided: str, because: str = "", *, seen: str = "") -> None:
        """Write one decision into the journal of the rollout; the numbers of entries are bounded.

        A rollout that never ends (one that fails and is retried for ever) must not fill the store.
        """
        rollout = self.rollout
        if rollout.journal >= MAX_JOURNAL_ENTRIES:
            return
        number = rollout.journal + 1
        entry = JournalEntry(
            workload_id=self.workload.id,
            revision=rollout.revision,
            sequence=number,
            at=self.now,
            verb=verb,
            seen=seen or self.census.summary(rollout.target),
            decided=decided,
            because=because,
            phase=rollout.phase,
        )
        self.actions.append(PutJournal(entry))
        self.rollout = rollout.replaced(journal=number)

    @property
    def census(self) -> Census:
        """The replicas as they are and as this plan leaves them."""
        if self._added:
            in_order = sorted(self._standings.values(), key=by_ordinal)
            self._standings = {one.record.id: one for one in in_order}
            self._added = False
        if self._census is None:
            self._census = Census(self._standings.values())
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
        if because:
            self._because[because] = None

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
        self._added = self._added or record.id not in self._standings
        self._standings[record.id] = stand(self.cluster, record, self._current, self._min_ready, self.now)
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

    def _look(self) -> None:
        first = take_census(self.cluster, self.workload, self._current, self.now)
        self._standings = {one.record.id: one for one in first.everyone}
        self._census = first

    def _tell_stopped(self, one: Standing, because: str) -> None:
        self.say(because)
        node = one.node.name if one.node else ""
        self.events.append(
            replica_event(one.record, self.now, "ReplicaStopped", f"{one.title}: {because}", node=node)
        )
