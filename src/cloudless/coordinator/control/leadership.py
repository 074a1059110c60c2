"""Whether this process leads: it stands for election, leads, and stands again when it lost.

The control loop writes with ``fence``, so that the store refuses what a former leader
still had under way. Links read ``epoch``, which nodes compare. Everything else of the
election lives in the store room.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from cloudless.aio.clock import Clock
from cloudless.coordinator.state import keys
from cloudless.store.election import Leadership, lead
from cloudless.store.errors import Unavailable
from cloudless.store.port import Compare, Store
from cloudless.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

#: Pause after an election that failed for a reason of the store's, in seconds.
RETRY_S = 1.0


class Seat:
    """The leader's seat as this process sees it; ``run`` is its life."""

    def __init__(self, store: Store, clock: Clock, candidate: str, metrics: Metrics) -> None:
        self._store = store
        self._clock = clock
        self._candidate = candidate
        self._metrics = metrics
        self._held: Leadership | None = None
        self._began = asyncio.Event()

    @property
    def leading(self) -> bool:
        """Whether this process leads now; it never says so after the lease may have ended."""
        return self._held is not None and self._held.holds

    @property
    def epoch(self) -> int:
        """Number of this leadership, above every one before it; 0 when not leading."""
        return self._held.epoch if self._held is not None and self._held.holds else 0

    @property
    def fence(self) -> Sequence[Compare]:
        """Compares that hold only as long as this process leads.

        Raises ``Unavailable`` when it does not.
        """
        held = self._held
        if held is None or not held.holds:
            raise Unavailable("this coordinator leads no longer")
        return (held.fence(),)

    async def wait_leading(self) -> None:
        """Wait until this process leads."""
        await self._began.wait()

    async def run(self, began: Callable[[], None], ended: Callable[[], None]) -> None:
        """Lead whenever elected, until cancelled; then the seat is given back."""
        while True:
            try:
                async with lead(
                    self._store, self._clock, key=keys.LEADER, candidate=self._candidate.encode()
                ) as held:
                    self._begin(held)
                    began()
                    try:
                        reason = await held.lost()
                        log.warning("leads no longer", extra={"why": reason})
                    finally:
                        self._end()
                        ended()
            except Unavailable as error:
                log.warning("election failed", extra={"why": str(error)})
                await self._clock.sleep(RETRY_S)

    def _begin(self, held: Leadership) -> None:
        self._held = held
        self._began.set()
        self._metrics.leading.set(1)
        log.info("leading", extra={"epoch": held.epoch})

    def _end(self) -> None:
        self._held = None
        self._began.clear()
        self._metrics.leading.set(0)
