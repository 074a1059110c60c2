"""A plan becomes transactions: fenced by the leader's key, compared with what was planned on.

Almost every plan is one transaction. A larger one goes in chunks, in this order:
revisions, replicas, nodes, journal, status, and last the removal of a workload. Each chunk is
safe by itself: what a plan creates and what it stops are each within the bounds alone,
so any part of it is; a chunk compares the status that the chunk before wrote, so nobody
slips in between; and the status, which says that the plan was done, comes with the last.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from cloudless.coordinator.limits import MAX_TXN_BYTES, MAX_TXN_OPS, MAX_TXN_WITNESSES
from cloudless.coordinator.state import keys
from cloudless.coordinator.state.facts import Facts
from cloudless.coordinator.state.typed import Batch, TypedStore
from cloudless.domain.errors import Invalid
from cloudless.domain.plan import (
    Action,
    Plan,
    PutJournal,
    PutNode,
    PutReplica,
    PutRevision,
    PutStatus,
    RemoveReplica,
    RemoveRevision,
    RemoveWorkload,
)
from cloudless.domain.status import StatusRecord
from cloudless.domain.workload import WorkloadRecord
from cloudless.store.port import Compare, KeyValue

_ORDER: tuple[type, ...] = (
    PutRevision,
    PutReplica,
    RemoveReplica,
    PutNode,
    RemoveRevision,
    PutJournal,
    PutStatus,
    RemoveWorkload,
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a plan. ``revision`` is the newest one to wait for.

    ``done`` is False when somebody else wrote something that the plan was made on.
    """

    done: bool
    revision: int


class Applier:
    """Writes plans; one for each coordinator."""

    def __init__(self, typed: TypedStore, facts: Facts, new_id: Callable[[], str]) -> None:
        self._typed = typed
        self._facts = facts
        self._new_id = new_id
        self._newest_event = 0

    async def apply(self, plan: Plan, fence: Sequence[Compare], workload_id: str | None = None) -> Outcome:
        """Write ``plan``, which was made on the facts as they are now.

        Raises what ``TypedStore.commit`` raises; a plan is made again then.
        """
        revision = 0
        subject = self._subject(workload_id)
        for batch in self._batches(plan, fence, subject):
            if revision and subject is not None and not _removes(plan):
                batch.expect(keys.status(subject.id), revision)
            result = await self._typed.commit(batch)
            if not result.succeeded:
                seen = (kv.mod_revision for kv in result.responses if isinstance(kv, KeyValue))
                return Outcome(False, max(seen, default=0))
            revision = result.revision
        return Outcome(True, revision)

    def _subject(self, workload_id: str | None) -> WorkloadRecord | None:
        """The workload that the plan is about, if it is (still) there."""
        return None if workload_id is None else self._facts.cluster.workloads.get(workload_id)

    def _batches(self, plan: Plan, fence: Sequence[Compare], subject: WorkloadRecord | None) -> list[Batch]:
        actions = sorted(plan.actions, key=lambda action: _ORDER.index(type(action)))
        status = None
        if subject is not None and not _removes(plan):
            status = self._status(subject.id, actions)
            actions = [action for action in actions if not isinstance(action, PutStatus)]
        batches = [self._begin(fence, subject, plan)]
        for write in self._writes(actions, plan):
            if _full(batches[-1]):
                batches.append(self._begin(fence, subject, plan))
            write(batches[-1])
        if status is not None:
            self._chain(batches, status)
        return batches

    def _begin(self, fence: Sequence[Compare], subject: WorkloadRecord | None, plan: Plan) -> Batch:
        batch = self._typed.batch()
        batch.require(fence)
        if subject is not None:
            self._compare(batch, keys.workload(subject.namespace, subject.name))
            if self._stops(plan):
                self._witness(batch, subject.id)
        return batch

    def _chain(self, batches: list[Batch], status: StatusRecord) -> None:
        """Put a status into every chunk: the old one, and the new one into the last.

        Two plans of one workload can so never both be written, not even when the answer
        to the first was lost and it happens late.
        """
        key = keys.status(status.workload_id)
        old = self._facts.cluster.statuses.get(status.workload_id)
        for index, batch in enumerate(batches):
            last = index == len(batches) - 1
            batch.put(key, status if last else old or _unobserved(status.workload_id))
            if index == 0:
                self._compare(batch, key)

    def _status(self, workload_id: str, actions: Sequence[Action]) -> StatusRecord:
        for action in actions:
            if isinstance(action, PutStatus):
                return action.status
        return self._facts.cluster.statuses.get(workload_id) or _unobserved(workload_id)

    def _stops(self, plan: Plan) -> bool:
        """Whether the plan stops something that runs: it relies on what the others do."""
        known = self._facts.cluster.replicas
        return any(
            isinstance(action, PutReplica)
            and not action.replica.run
            and (before := known.get(action.replica.id)) is not None
            and before.run
            for action in plan.actions
        )

    def _witness(self, batch: Batch, workload_id: str) -> None:
        cluster = self._facts.cluster
        ready = (
            record
            for record in cluster.replicas_of(workload_id)
            if record.run and (seen := cluster.observations.get(record.id)) is not None and seen.ready
        )
        for record, _ in zip(ready, range(MAX_TXN_WITNESSES), strict=False):
            self._compare(batch, keys.observation(workload_id, record.id))

    def _compare(self, batch: Batch, key: str) -> None:
        batch.expect(key, self._facts.mods.get(key, 0))
        batch.else_read(key)

    def _writes(self, actions: Sequence[Action], plan: Plan) -> Iterator[Callable[[Batch], None]]:
        for action in actions:
            yield lambda batch, action=action: self._write(batch, action)  # type: ignore[misc]
        for event in plan.events:
            stored = event.replaced(id=self._event_id(event.at))
            yield lambda batch, stored=stored: batch.put(keys.event(stored.id), stored)  # type: ignore[misc]

    def _event_id(self, at: datetime.datetime) -> str:
        """Events of one plan have one time: their ids keep the order they were planned in."""
        self._newest_event = max(keys.micros_since_epoch(at), self._newest_event + 1)
        return keys.event_id(self._newest_event, self._new_id()[:8])

    def _write(self, batch: Batch, action: Action) -> None:
        match action:
            case PutReplica(replica):
                key = keys.replica(replica.workload_id, replica.id)
                self._compare(batch, key)
                batch.put(key, replica)
            case RemoveReplica(replica):
                key = keys.replica(replica.workload_id, replica.id)
                self._compare(batch, key)
                batch.delete(key)
                batch.delete(keys.observation(replica.workload_id, replica.id))
            case PutRevision(revision):
                key = keys.revision(revision.workload_id, revision.number)
                self._compare(batch, key)
                batch.put(key, revision)
            case RemoveRevision(workload_id, number):
                batch.delete(keys.revision(workload_id, number))
                batch.delete_below(keys.journal(workload_id, number))
            case PutJournal(entry):
                # Not compared: an entry of a plan that was done in part only is written over.
                batch.put(keys.journal_entry(entry.workload_id, entry.revision, entry.sequence), entry)
            case PutStatus(status):
                batch.put(keys.status(status.workload_id), status)
            case PutNode(node):
                key = keys.node(node.id)
                self._compare(batch, key)
                batch.put(key, node)
            case RemoveWorkload(workload_id, namespace, name):
                self._remove_workload(batch, workload_id, namespace, name)

    def _remove_workload(self, batch: Batch, workload_id: str, namespace: str, name: str) -> None:
        record = self._facts.cluster.workloads.get(workload_id)
        if record is None or (record.namespace, record.name) != (namespace, name):
            raise Invalid(f"the plan removes workload {workload_id}, which is not {namespace}/{name}")
        batch.delete(keys.workload(namespace, name))
        batch.delete(keys.status(workload_id))
        batch.delete_below(keys.revisions(workload_id))
        batch.delete_below(keys.replicas(workload_id))
        batch.delete_below(keys.observations(workload_id))
        batch.delete_below(keys.journals(workload_id))


def _full(batch: Batch) -> bool:
    most = max(len(batch.ops), len(batch.compares))
    return most >= MAX_TXN_OPS or batch.size_bytes > MAX_TXN_BYTES


def _removes(plan: Plan) -> bool:
    return any(isinstance(action, RemoveWorkload) for action in plan.actions)


def _unobserved(workload_id: str) -> StatusRecord:
    return StatusRecord(workload_id=workload_id, observed_generation=0)
