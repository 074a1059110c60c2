"""What a transaction, a lease and a compaction mean: etcd's semantics in plain code.

``local`` drives it for the memory and the embedded store. Everything here is evaluated at
once and in order; the answer is a ``Change`` that the journal makes durable, after which
``settle`` shows it to readers, or ``rollback`` undoes all that is not settled. Time
comes in as numbers; nothing here waits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from cloudless.store.checks import check_ttl, check_txn
from cloudless.store.errors import InvalidRequest, LeaseExpired, NoSpace, Unavailable
from cloudless.store.history import History, Records
from cloudless.store.limits import (
    COMPACTION_STEP_REVISIONS,
    HISTORY_BYTES,
    HISTORY_REVISIONS,
    MAX_LEASES,
    MAX_STORE_BYTES,
)
from cloudless.store.port import (
    Compare,
    Delete,
    DeletePrefix,
    Get,
    KeyValue,
    Lease,
    Op,
    Page,
    Put,
    Range,
    Relation,
    Response,
    Target,
    TxnResult,
)


@dataclass(slots=True)
class Bounds:
    """How much a local store keeps; see ``limits`` for what each number means."""

    history_revisions: int = HISTORY_REVISIONS
    history_bytes: int = HISTORY_BYTES
    store_bytes: int = MAX_STORE_BYTES


@dataclass(slots=True)
class LeaseState:
    """A lease that lives until ``deadline_s`` of the monotonic clock."""

    lease: Lease
    deadline_s: float


@dataclass(frozen=True, slots=True)
class Change:
    """What one request did, for the journal: rows to add and rows to drop."""

    revision: int
    records: Records = ()
    granted: LeaseState | None = None
    revoked: LeaseState | None = None
    compacted: int = 0
    dropped: tuple[tuple[int, str], ...] = ()

    @property
    def writes(self) -> bool:
        """Whether the journal has anything to do."""
        return bool(self.records or self.granted or self.revoked or self.compacted)


class Model:
    """A store without time and without a disk."""

    def __init__(self, history: History, bounds: Bounds) -> None:
        self.history = history
        self.bounds = bounds
        self.leases: dict[int, LeaseState] = {}
        self._next_lease = 1
        self._unsettled: deque[Change] = deque()
        self._garbage: list[tuple[int, str]] = []  # compacted here, still on the disk

    # -- requests --------------------------------------------------------------------

    def txn(
        self, compares: Sequence[Compare], then: Sequence[Op], otherwise: Sequence[Op]
    ) -> tuple[TxnResult, Change]:
        """Evaluate a transaction on the newest state, staged changes included.

        Raises ``InvalidRequest``, ``TooLarge``, ``LeaseExpired`` or ``NoSpace`` before anything
        is changed.
        """
        check_txn(compares, then, otherwise)
        for branch in (then, otherwise):
            self._check_leases(branch)
        succeeded = all(self._holds(compare) for compare in compares)
        branch = then if succeeded else otherwise
        self._check_space(branch)
        answers = [self._do(op) for op in branch]
        records = self.history.seal()
        revision = self.history.revision
        responses = tuple(
            replace(answer, revision=revision) if isinstance(answer, Page) else answer for answer in answers
        )
        return TxnResult(succeeded, revision, responses), self._staged(Change(revision, records))

    def grant(self, ttl_s: float, now_s: float) -> tuple[Lease, Change]:
        """A new lease that lives until ``now_s`` plus its lifetime."""
        lease = Lease(self._next_lease, check_ttl(ttl_s))
        if len(self.leases) >= MAX_LEASES:
            raise Unavailable(f"{MAX_LEASES} leases exist, no more are given")
        self._next_lease += 1
        state = LeaseState(lease, now_s + lease.ttl_s)
        self.leases[lease.id] = state
        return lease, self._staged(Change(self.history.revision, granted=state))

    def adopt(self, leases: Iterable[Lease], last_lease: int, now_s: float) -> None:
        """Take over the leases of a former process; each gets its full time again.

        No number up to ``last_lease`` is given again.
        """
        for lease in leases:
            self.leases[lease.id] = LeaseState(lease, now_s + lease.ttl_s)
        self._next_lease = last_lease + 1

    def keep_alive(self, lease_id: int, now_s: float) -> None:
        """Prolong a lease; one whose time is over is expired even if its keys still exist."""
        state = self.leases.get(lease_id)
        if state is None or state.deadline_s <= now_s:
            raise LeaseExpired(lease_id)
        state.deadline_s = now_s + state.lease.ttl_s

    def revoke(self, lease_id: int) -> Change:
        """End a lease and delete its keys in one revision. Raises ``LeaseExpired``."""
        state = self.leases.pop(lease_id, None)
        if state is None:
            raise LeaseExpired(lease_id)
        for key in self.history.leased(lease_id):
            self.history.delete(key)
        records = self.history.seal()
        return self._staged(Change(self.history.revision, records, revoked=state))

    def compact(self, revision: int) -> Change:
        """Forget history before ``revision``. Raises ``InvalidRequest`` for the future."""
        if revision > self.history.visible:
            raise InvalidRequest(
                f"revision {revision} is in the future, the newest is {self.history.visible}"
            )
        dropped = (*self._garbage, *self.history.compact(revision))
        self._garbage.clear()
        return self._staged(Change(self.history.revision, compacted=self.history.compacted, dropped=dropped))

    def overdue_compaction(self) -> int:
        """Revision to compact to so that history stays within its bounds; 0 for none.

        It stays put until a whole step is overdue, so that compaction is rare and short.
        """
        history, bounds = self.history, self.bounds
        surplus = len(history) - bounds.history_revisions
        too_big = history.total_bytes - history.live_bytes > bounds.history_bytes
        if surplus < COMPACTION_STEP_REVISIONS and not (too_big and len(history)):
            return 0
        oldest = history.revision - len(history)
        return min(oldest + COMPACTION_STEP_REVISIONS, history.visible)

    # -- durability --------------------------------------------------------------------

    def settle(self, change: Change) -> None:
        """``change``, the oldest one not settled, is durable: readers may see it."""
        settled = self._unsettled.popleft()
        assert settled is change, "changes settle in the order in which they were made"
        self.history.settle(max(self.history.visible, change.revision))

    def rollback(self) -> None:
        """Undo everything that is not settled (compaction excepted: it loses nothing)."""
        while self._unsettled:
            change = self._unsettled.pop()
            self._garbage += change.dropped
            if change.granted is not None:
                self.leases.pop(change.granted.lease.id, None)
            if change.revoked is not None:
                self.leases[change.revoked.lease.id] = change.revoked
        self.history.rollback()

    # -- inside ------------------------------------------------------------------------

    def _staged(self, change: Change) -> Change:
        self._unsettled.append(change)
        return change

    def _check_leases(self, branch: Sequence[Op]) -> None:
        for op in branch:
            if isinstance(op, Put) and op.lease and op.lease not in self.leases:
                raise LeaseExpired(op.lease)

    def _check_space(self, branch: Sequence[Op]) -> None:
        added_bytes = sum(len(op.key) + len(op.value) for op in branch if isinstance(op, Put))
        if added_bytes and self.history.live_bytes + added_bytes > self.bounds.store_bytes:
            raise NoSpace(f"the store holds its {self.bounds.store_bytes} bytes, only deletes are accepted")

    def _holds(self, compare: Compare) -> bool:
        found = self.history.latest(compare.key)
        if compare.target is Target.VALUE:
            return found is not None and _related(found.value, compare.relation, compare.operand)
        actual = 0 if found is None else _number(found, compare.target)
        return _related(actual, compare.relation, compare.operand)

    def _do(self, op: Op) -> Response:
        history = self.history
        match op:
            case Put(key, value, lease):
                history.write(key, value, lease)
                return None
            case Delete(key):
                return history.delete(key)
            case DeletePrefix(prefix):
                return sum(history.delete(key) for key in history.keys(prefix))
            case Get(key):
                return history.latest(key)
            case Range(prefix, limit):
                return history.scan_newest(prefix, limit)


def _number(found: KeyValue, target: Target) -> int:
    if target is Target.MOD_REVISION:
        return found.mod_revision
    return found.create_revision if target is Target.CREATE_REVISION else found.version


def _related(actual: int | bytes, relation: Relation, operand: int | bytes) -> bool:
    match relation:
        case Relation.EQUAL:
            return actual == operand
        case Relation.NOT_EQUAL:
            return actual != operand
        case Relation.LESS:
            return actual < operand  # type: ignore[operator]  # check_txn made the types equal
        case Relation.GREATER:
            return actual > operand  # type: ignore[operator]
