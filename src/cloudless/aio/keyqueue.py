"""A deduplicating queue of keys with wake-up times: the heart of a level-driven loop.

Controllers put keys, never facts. A key that is put many times before it is taken is
handled once; a key that is put while it is being handled is handled once more
afterwards; ``wake_at`` puts a key later. Nothing here knows what a key stands for.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Hashable
from typing import Generic, TypeVar

from cloudless.aio.clock import Clock

K = TypeVar("K", bound=Hashable)

#: Loops count time in milliseconds: a shorter sleep may end before its time and begin again for ever.
SHORTEST_SLEEP_S = 0.001

#: A timer may fire this much early (clocks tick): what is due within it is due now.
TICK_S = 1e-6


class KeyQueue(Generic[K]):
    """Bounded by the number of distinct keys; single-threaded, for one running loop."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ready: dict[K, None] = {}  # insertion-ordered set
        self._active: set[K] = set()
        self._again: set[K] = set()
        self._later: list[tuple[float, int, K]] = []
        self._wake_of: dict[K, float] = {}
        self._sequence = 0
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        """Keys that wait to be handled now (the queue depth shown in metrics)."""
        return len(self._ready)

    def put(self, key: K) -> None:
        """Ask for ``key`` to be handled as soon as possible."""
        if key in self._active:
            self._again.add(key)
        elif key not in self._ready:
            self._ready[key] = None
            self._changed.set()

    def wake_at(self, key: K, when_s: float) -> None:
        """Ask for ``key`` at monotonic time ``when_s``; the earliest of several wins."""
        known = self._wake_of.get(key)
        if known is not None and known <= when_s:
            return
        self._wake_of[key] = when_s
        self._sequence += 1
        heapq.heappush(self._later, (when_s, self._sequence, key))
        self._changed.set()

    async def take(self) -> K:
        """Wait for a key; the caller must call ``done`` when it is handled."""
        while True:
            next_s = self._promote()
            if self._ready:
                key = next(iter(self._ready))
                del self._ready[key]
                self._active.add(key)
                return key
            self._changed.clear()
            if next_s is None:
                await self._changed.wait()
                continue
            try:
                async with asyncio.timeout(max(next_s - self._clock.monotonic(), SHORTEST_SLEEP_S)):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def done(self, key: K) -> None:
        """Say that ``key``, taken before, has been handled."""
        self._active.discard(key)
        if key in self._again:
            self._again.discard(key)
            self.put(key)

    def _promote(self) -> float | None:
        """Move due keys to the ready set; answer when the next one is due."""
        now_s = self._clock.monotonic()
        while self._later:
            when_s, _, key = self._later[0]
            if self._wake_of.get(key) != when_s:
                heapq.heappop(self._later)  # superseded by an earlier wake-up
            elif when_s <= now_s + TICK_S:
                heapq.heappop(self._later)
                del self._wake_of[key]
                self.put(key)
            else:
                return when_s
        return None
