"""Forgetting what is old: events, answers to idempotency keys, the history of the store.

Done by the leader only, at long intervals and when the events become many. What is
deleted is no decision of anybody: it is past its time, or the oldest of too many.
"""

from __future__ import annotations

import asyncio
import logging

from cloudless.aio.clock import Clock
from cloudless.coordinator.control.loop import Fenced
from cloudless.coordinator.limits import (
    EVENT_LIFETIME,
    KEPT_STORE_REVISIONS,
    MAX_EVENTS,
    MAX_REQUEST_BYTES,
    MAX_REQUEST_RECORDS,
    MAX_TXN_OPS,
    REQUEST_LIFETIME,
    RETENTION_INTERVAL_S,
    RETENTION_REVISIONS,
)
from cloudless.coordinator.state import keys
from cloudless.coordinator.state.cache import WatchCache
from cloudless.coordinator.state.changes import Changes
from cloudless.coordinator.state.records import RequestRecord
from cloudless.coordinator.state.typed import TypedStore, domain_errors
from cloudless.domain.errors import CloudlessError
from cloudless.store.port import KeyValue

log = logging.getLogger(__name__)

#: Records read at a time.
_CHUNK = 500
#: Events may exceed their number by this part before the oldest go, so that it is not one by one.
_SLACK = 1.1


class Retention:
    """Sweeps old records while this process leads; ``run`` is its life."""

    def __init__(
        self, typed: TypedStore, cache: WatchCache, leadership: Fenced, clock: Clock, *, compacts: bool
    ) -> None:
        self._typed = typed
        self._cache = cache
        self._leadership = leadership
        self._clock = clock
        self._compacts = compacts
        self._compacted = 0
        self._swept_at = 0
        self._wanted = asyncio.Event()

    async def run(self) -> None:
        """Sweep now and then, until cancelled; what fails is done the next time."""
        with self._cache.subscribed(self._notice):
            while True:
                self._wanted.clear()
                try:
                    async with asyncio.timeout(RETENTION_INTERVAL_S):
                        await self._wanted.wait()
                except TimeoutError:
                    log.debug("time to sweep")
                if self._leadership.leading:
                    try:
                        await self.sweep()
                    except CloudlessError as error:
                        log.warning("retention failed", extra={"why": error.message})

    async def sweep(self) -> int:
        """Delete what is old, once; the number of records that went."""
        self._swept_at = self._cache.revision
        deleted = await self._delete(await self._old_events())
        deleted += await self._delete(await self._old_requests())
        await self._compact()
        if deleted:
            log.info("old records deleted", extra={"records": deleted})
        return deleted

    def _notice(self, changes: Changes) -> None:
        many_events = bool(changes.events) and self._cache.facts.event_count > MAX_EVENTS * _SLACK
        if many_events or changes.revision - self._swept_at > RETENTION_REVISIONS:
            self._wanted.set()

    async def _old_events(self) -> list[str]:
        """Keys of events beyond their number or age; they sort by time."""
        surplus = self._cache.facts.event_count - MAX_EVENTS
        oldest_kept = keys.event(
            keys.event_id(keys.micros_since_epoch(self._clock.now() - EVENT_LIFETIME), "")
        )
        old: list[str] = []
        after: str | None = None
        while True:
            page = await self._typed.range(keys.EVENTS, start_after=after, limit=_CHUNK)
            for kv in page.items:
                if len(old) >= surplus and kv.key >= oldest_kept:
                    return old
                old.append(kv.key)
            if not page.more:
                return old
            after = page.items[-1].key

    async def _old_requests(self) -> list[str]:
        """Keys of answers past their lifetime, and the oldest of too many or too large ones."""
        found: list[KeyValue] = []
        after: str | None = None
        while True:
            page = await self._typed.range(keys.REQUESTS, start_after=after, limit=_CHUNK)
            found += page.items
            if not page.more:
                break
            after = page.items[-1].key
            await asyncio.sleep(0)  # many records: let others run
        found.sort(key=lambda kv: kv.mod_revision)
        size_bytes = sum(len(kv.value) for kv in found)
        limit = self._clock.now() - REQUEST_LIFETIME
        for number, kv in enumerate(found):
            too_many = len(found) - number > MAX_REQUEST_RECORDS or size_bytes > MAX_REQUEST_BYTES
            # Written in the order of time: only the first that is kept has to be read.
            if not too_many and self._typed.read(RequestRecord, kv)[0].at >= limit:
                return [old.key for old in found[:number]]
            size_bytes -= len(kv.value)
        return [old.key for old in found]

    async def _delete(self, old: list[str]) -> int:
        for start in range(0, len(old), MAX_TXN_OPS):
            batch = self._typed.batch()
            batch.require(self._leadership.fence)
            for key in old[start : start + MAX_TXN_OPS]:
                batch.delete(key)
            result = await self._typed.commit(batch)
            if not result.succeeded:
                return start
        return len(old)

    async def _compact(self) -> None:
        """Let the store forget superseded versions; local stores do that by themselves."""
        target = self._cache.revision - KEPT_STORE_REVISIONS
        if self._compacts and target > self._compacted:
            with domain_errors():
                await self._typed.store.compact(target)
            self._compacted = target
