"""One leader of many candidates, and a fence that keeps an old leader's writes out.

The leader holds a key on a lease; the key's ``create_revision`` is its *epoch*, which only
grows. A lease alone proves nothing to others: every write of a leader goes through
``Leadership.txn`` (or carries ``fence()``), so that the store itself refuses it once
another epoch has begun. The leader stands down on its own clock, a margin before its
lease can end elsewhere; it renews on the event loop, so a blocked loop loses it.

On an exclusive store a key left by a former process is taken over at once, because the
lock on the data directory proves that its holder is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from cloudless.aio.backoff import Backoff
from cloudless.aio.clock import Clock
from cloudless.aio.supervise import Supervisor
from cloudless.store.errors import Fenced, LeaseExpired, Relist, StoreError, Unavailable
from cloudless.store.limits import (
    ELECTION_MARGIN,
    ELECTION_RECHECK_S,
    ELECTION_RENEW,
    ELECTION_RETRY_S,
    ELECTION_TTL_S,
    RECONNECT_BASE_S,
    RECONNECT_CAP_S,
    RESIGN_TIMEOUT_S,
    SHORTEST_SLEEP_S,
)
from cloudless.store.port import (
    Compare,
    Delete,
    EventKind,
    Get,
    KeyValue,
    Lease,
    Op,
    Page,
    Put,
    Store,
    TxnResult,
)

log = logging.getLogger(__name__)


class Leadership:
    """Being the leader of ``key`` in one ``epoch``; over at the latest when its block ends."""

    def __init__(
        self, store: Store, clock: Clock, *, key: str, epoch: int, lease: Lease, renewed_s: float
    ) -> None:
        self.key = key
        self.epoch = epoch
        self._store = store
        self._clock = clock
        self._lease = lease
        self._until_s = renewed_s + _usable_s(lease)
        self._reason = ""
        self._over = asyncio.Event()

    @property
    def holds(self) -> bool:
        """Whether this leader may still act; turns False for good."""
        return not self._over.is_set() and self._clock.monotonic() < self._until_s

    def fence(self) -> Compare:
        """The compare that every write of this leader must carry."""
        return Compare.created_at(self.key, self.epoch)

    async def txn(
        self, compares: Sequence[Compare], then: Sequence[Op], otherwise: Sequence[Op] = ()
    ) -> TxnResult:
        """``Store.txn`` behind the fence; takes up one compare and one ``otherwise``.

        Raises ``Fenced`` when this leadership is over, in which case nothing happened, and
        what ``Store.txn`` raises.
        """
        if not self.holds:
            raise Fenced(f"epoch {self.epoch} of {self.key} is over: {self._reason or 'not renewed'}")
        result = await self._store.txn((self.fence(), *compares), then, (Get(self.key), *otherwise))
        if result.succeeded:
            return result
        holder = result.responses[0]
        if not isinstance(holder, KeyValue) or holder.create_revision != self.epoch:
            self.stand_down("another leader was elected")
            raise Fenced(f"epoch {self.epoch} of {self.key} is over")
        return TxnResult(False, result.revision, result.responses[1:])

    async def lost(self) -> str:
        """Wait until this leadership is over; answers why."""
        await self._over.wait()
        return self._reason

    def stand_down(self, reason: str) -> None:
        """End this leadership; the first reason stays."""
        if not self._over.is_set():
            self._reason = reason
            self._over.set()

    async def renew(self) -> None:
        """Keep the lease alive until leadership is over (the child of ``lead``)."""
        delay_s = self._lease.ttl_s * ELECTION_RENEW
        while not self._over.is_set():
            remaining_s = self._until_s - self._clock.monotonic()
            if remaining_s <= 0:
                self.stand_down("the lease could not be renewed in time")
                return
            await self._clock.sleep(max(min(delay_s, remaining_s), SHORTEST_SLEEP_S))
            delay_s = await self._renew_once()

    async def _renew_once(self) -> float:
        """One try; answers when the next one is due."""
        asked_s = self._clock.monotonic()
        if asked_s >= self._until_s:
            return 0  # also after a pause of the whole process: too late is too late
        try:
            async with asyncio.timeout(self._until_s - asked_s):
                await self._store.keep_alive(self._lease)
                holder = await self._store.get(self.key)
        except LeaseExpired:
            self.stand_down("the lease expired")
            return 0
        except (Unavailable, TimeoutError) as error:
            log.warning("lease not renewed", extra={"key": self.key, "error": str(error)})
            return min(ELECTION_RETRY_S, self._lease.ttl_s * ELECTION_RENEW)
        if holder is None or holder.create_revision != self.epoch:
            self.stand_down("another leader was elected")
        self._until_s = asked_s + _usable_s(self._lease)
        return self._lease.ttl_s * ELECTION_RENEW


@asynccontextmanager
async def lead(
    store: Store, clock: Clock, *, key: str, candidate: bytes, ttl_s: float = ELECTION_TTL_S
) -> AsyncIterator[Leadership]:
    """Wait to be elected, then lead as long as the block runs; hand over at its end.

    ``candidate`` is what others read in ``key``. The block must leave when
    ``Leadership.lost`` returns. Raises ``NoSpace``, ``AccessDenied`` and other errors that
    waiting does not heal; a store that is away is waited for.
    """
    candidacy = _Candidacy(store, clock, key, candidate, ttl_s)
    try:
        leadership = await candidacy.win()
        log.info("elected", extra={"key": key, "epoch": leadership.epoch})
        async with Supervisor("leadership") as tasks:
            tasks.start("renew", leadership.renew())
            try:
                yield leadership
            finally:
                leadership.stand_down("resigned")
    finally:
        await candidacy.resign()


class _Candidacy:
    """The way to leadership, and the lease it leaves behind if it goes wrong."""

    def __init__(self, store: Store, clock: Clock, key: str, candidate: bytes, ttl_s: float) -> None:
        self._store = store
        self._clock = clock
        self._key = key
        self._candidate = candidate
        self._ttl_s = ttl_s
        self._lease: Lease | None = None
        self._renewed_s = 0.0

    async def win(self) -> Leadership:
        backoff = Backoff(base_s=RECONNECT_BASE_S, cap_s=RECONNECT_CAP_S)
        while True:
            try:
                page = await self._store.range(self._key, limit=1)
                leadership = await self._step(page)
                backoff.reset()
            except (Relist, LeaseExpired):
                continue
            except Unavailable as error:
                log.warning("no election yet", extra={"key": self._key, "error": str(error)})
                await self._clock.sleep(backoff.next())
                continue
            if leadership is not None:
                return leadership

    async def resign(self) -> None:
        """Give the lease, and the key with it, back; a store that is away will expire it."""
        lease, self._lease = self._lease, None
        if lease is None:
            return
        with contextlib.suppress(StoreError, TimeoutError):
            async with asyncio.timeout(RESIGN_TIMEOUT_S):
                await self._store.revoke(lease)

    async def _step(self, page: Page) -> Leadership | None:
        holder = page.items[0] if page.items and page.items[0].key == self._key else None
        if holder is None:
            await self._stand()
        elif self._lease is not None and holder.lease == self._lease.id:
            return await self._accept(holder)
        elif self._store.exclusive and holder.mod_revision <= self._store.opened_revision:
            await self._bury(holder)
        else:
            await self.resign()
            await self._vacancy(page.revision)
        return None

    async def _stand(self) -> None:
        """Try to write the key; whether it worked is seen by reading it."""
        if self._lease is None:
            self._renewed_s = self._clock.monotonic()
            self._lease = await self._store.grant(self._ttl_s)
        put = Put(self._key, self._candidate, self._lease.id)
        try:
            await self._store.txn([Compare.absent(self._key)], [put])
        except LeaseExpired:
            self._lease = None
            raise

    async def _accept(self, holder: KeyValue) -> Leadership | None:
        assert self._lease is not None
        if self._clock.monotonic() >= self._renewed_s + _usable_s(self._lease) / 2:
            asked_s = self._clock.monotonic()
            try:
                await self._store.keep_alive(self._lease)
            except LeaseExpired:
                self._lease = None
                raise
            self._renewed_s = asked_s
        return Leadership(
            self._store,
            self._clock,
            key=self._key,
            epoch=holder.create_revision,
            lease=self._lease,
            renewed_s=self._renewed_s,
        )

    async def _bury(self, holder: KeyValue) -> None:
        """Remove the key of a process that is gone, and its lease."""
        await self._store.txn([Compare.unchanged(self._key, holder.mod_revision)], [Delete(self._key)])
        if holder.lease:
            with contextlib.suppress(LeaseExpired):
                await self._store.revoke(Lease(holder.lease, 0))

    async def _vacancy(self, revision: int) -> None:
        """Wait until the key is deleted, or for a while: then look again."""
        with contextlib.suppress(TimeoutError):
            async with (
                asyncio.timeout(ELECTION_RECHECK_S),
                self._store.watch(self._key, start_revision=revision + 1) as batches,
            ):
                async for batch in batches:
                    for event in batch.events:
                        if event.kind is EventKind.DELETE and event.kv.key == self._key:
                            return


def _usable_s(lease: Lease) -> float:
    """How long a leader acts on a lease that was just renewed.

    >>> _usable_s(Lease(1, 20))
    17.0
    """
    return lease.ttl_s * (1 - ELECTION_MARGIN)
