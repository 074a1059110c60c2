"""The watch cache: follows the store and holds the one ``Cluster`` that everybody reads.

It lists everything at one revision, then applies every change in order; when its place in
history is lost it lists again and works out the difference. A full list now and then
repairs what a faulty watch missed. Subscribers are called at once after each batch, in
the cache's own task, and must not wait; ``wait_for`` is for those who do.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cloudless.aio.backoff import Backoff
from cloudless.aio.clock import Clock
from cloudless.coordinator.limits import CACHE_WAIT_S, RELIST_BASE_S, RELIST_CAP_S, RESYNC_INTERVAL_S
from cloudless.coordinator.state import keys
from cloudless.coordinator.state.changes import ChangeHistory, Changes
from cloudless.coordinator.state.codec import Codec
from cloudless.coordinator.state.facts import Facts
from cloudless.domain.cluster import Cluster
from cloudless.domain.errors import Unavailable
from cloudless.store.errors import Relist
from cloudless.store.errors import Unavailable as StoreUnavailable
from cloudless.store.port import EventKind, KeyValue, Page, Store, WatchBatch

log = logging.getLogger(__name__)

Subscriber = Callable[[Changes], None]


class WatchCache:
    """Follows one store; ``run`` is its life, everything else is for its readers."""

    def __init__(self, store: Store, codec: Codec, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self.facts = Facts(codec)
        self.history = ChangeHistory()
        self.repairs = 0
        self._filled = asyncio.Event()
        self._subscribers: list[Subscriber] = []
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []

    @property
    def cluster(self) -> Cluster:
        """The facts as they are now; read it, never change it, and not over an ``await``."""
        return self.facts.cluster

    @property
    def revision(self) -> int:
        """The store's revision that the facts are at; 0 before the first list."""
        return self.facts.cluster.revision

    @property
    def filled(self) -> bool:
        """Whether everything was listed once."""
        return self._filled.is_set()

    @contextmanager
    def subscribed(self, subscriber: Subscriber) -> Iterator[None]:
        """Call ``subscriber`` after each batch as long as the block lasts."""
        self._subscribers.append(subscriber)
        try:
            yield
        finally:
            self._subscribers.remove(subscriber)

    async def wait_filled(self) -> None:
        """Wait until everything was listed once."""
        await self._filled.wait()

    async def wait_for(self, revision: int, timeout_s: float = CACHE_WAIT_S) -> None:
        """Wait until the facts are at ``revision`` or newer; raises ``Unavailable``."""
        if self.revision >= revision:
            return
        arrived: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (revision, arrived)
        self._waiters.append(entry)
        try:
            async with asyncio.timeout(timeout_s):
                await arrived
        except TimeoutError:
            raise Unavailable(
                f"the store's revision {revision} has not arrived; the newest here is {self.revision}",
                hint="the write is done; read it again in a moment",
            ) from None
        finally:
            if entry in self._waiters:
                self._waiters.remove(entry)

    async def run(self) -> None:
        """Follow the store until cancelled; what fails is begun again after a pause."""
        pause = Backoff(base_s=RELIST_BASE_S, cap_s=RELIST_CAP_S)
        while True:
            try:
                self._replace(await self._list())
                await self._follow(pause)
            except Relist as error:
                log.warning("watch lost its place, listing again", extra={"why": str(error)})
            except StoreUnavailable as error:
                log.warning("store does not answer", extra={"why": str(error)})
                await self._clock.sleep(pause.next())

    async def _follow(self, pause: Backoff) -> None:
        async with self._store.watch(keys.ROOT, start_revision=self.revision + 1) as batches:
            pause.reset()
            async for batch in batches:
                self._apply(batch)

    async def resync(self) -> None:
        """List and compare from time to time, until cancelled: for changes a watch missed."""
        while True:
            await self._clock.sleep(RESYNC_INTERVAL_S)
            try:
                await self.compare()
            except (Relist, StoreUnavailable, Unavailable) as error:
                log.warning("could not compare with the store", extra={"why": str(error)})

    async def compare(self) -> int:
        """Compare with the store once and repair; the number of keys that were wrong."""
        page = await self._list()
        await self.wait_for(page.revision)
        mods = self.facts.mods
        listed = {kv.key: kv.mod_revision for kv in page.items}
        suspects = [key for key, revision in listed.items() if mods.get(key, 0) < revision]
        suspects += [key for key, revision in mods.items() if key not in listed and revision <= page.revision]
        changes, wrong = Changes(self.revision), 0
        for key in suspects:
            # What is here may be newer than the list: only the key itself can tell.
            kv = await self._store.get(key)
            known = mods.get(key, 0)
            if kv is None and known:
                self.facts.delete(key, changes)
                wrong += 1
            elif kv is not None and known < kv.mod_revision <= self.revision:
                self.facts.put(kv, changes)
                wrong += 1
        if wrong:
            log.error("the watch missed changes, repaired", extra={"keys": wrong})
            self.repairs += wrong
            changes.revision = self.revision
            self._publish(changes)
        return wrong

    async def _list(self) -> Page:
        """Everything that is kept in memory, at one revision."""
        revision: int | None = None
        items: list[KeyValue] = []
        for prefix in keys.CACHED:
            page = await self._store.range(prefix, revision=revision)
            revision = page.revision if revision is None else revision
            items += page.items
        assert revision is not None
        return Page(revision, tuple(items))

    def _replace(self, page: Page) -> None:
        """Take over a whole list, and tell the difference as one batch."""
        changes, mods = Changes(page.revision), self.facts.mods
        # A store that went back in time (restored from a backup): nothing known counts.
        rewound = page.revision < self.revision
        listed = set()
        for kv in page.items:
            listed.add(kv.key)
            if rewound or mods.get(kv.key, 0) != kv.mod_revision:
                self.facts.put(kv, changes)
        for key in [key for key in mods if key not in listed]:
            self.facts.delete(key, changes)
        self.history.restart(page.revision)
        self._publish(changes, remember=False)
        self._filled.set()

    def _apply(self, batch: WatchBatch) -> None:
        changes = Changes(batch.revision)
        for event in batch.events:
            if event.kind is EventKind.PUT:
                self.facts.put(event.kv, changes)
            else:
                self.facts.delete(event.kv.key, changes)
        self._publish(changes)

    def _publish(self, changes: Changes, *, remember: bool = True) -> None:
        self.facts.settle(changes)
        if remember:
            self.history.add(changes)
        # Those who wait go first: an answer to a user is not to wait for a plan.
        if self._waiters:
            revision = self.revision
            for wanted, arrived in self._waiters:
                if wanted <= revision and not arrived.done():
                    arrived.set_result(None)
            self._waiters = [entry for entry in self._waiters if not entry[1].done()]
        for subscriber in tuple(self._subscribers):
            subscriber(changes)
