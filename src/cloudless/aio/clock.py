"""Time as an argument: the one place where wall and monotonic time are read.

Rooms take a ``Clock`` when they are built. Production passes ``SystemClock``; tests
pass ``ManualClock`` (or run ``SystemClock`` on a loop with virtual time, whose
``loop.time`` it follows). Sleeping always goes through the running loop, so that a
virtual loop moves it.
"""

from __future__ import annotations

import asyncio
import datetime
import time
from typing import Protocol


class Clock(Protocol):
    """Where a room gets its time from."""

    def now(self) -> datetime.datetime:
        """Wall-clock time, timezone-aware in UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds that never run backwards; only differences mean anything."""
        ...

    async def sleep(self, delay_s: float) -> None:
        """Return after ``delay_s`` seconds; a value <= 0 only yields to the loop."""
        ...


class SystemClock:
    """The machine's time; ``monotonic`` follows the running loop, virtual or not."""

    def now(self) -> datetime.datetime:
        return datetime.datetime.now(datetime.UTC)

    def monotonic(self) -> float:
        try:
            return asyncio.get_running_loop().time()
        except RuntimeError:
            return time.monotonic()

    async def sleep(self, delay_s: float) -> None:
        await asyncio.sleep(max(delay_s, 0))


class LoopClock(SystemClock):
    """Wall time that starts at ``epoch`` and moves with the loop: for virtual-time tests."""

    def __init__(self, epoch: datetime.datetime) -> None:
        self._epoch = epoch

    def now(self) -> datetime.datetime:
        return self._epoch + datetime.timedelta(seconds=self.monotonic())


class ManualClock:
    """A clock that stands still until ``advance`` is called: for pure tests.

    >>> clock = ManualClock(datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC))
    >>> clock.advance(1.5)
    >>> clock.monotonic()
    1.5
    """

    def __init__(self, start: datetime.datetime) -> None:
        self._start = start
        self._elapsed_s = 0.0
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []

    def now(self) -> datetime.datetime:
        return self._start + datetime.timedelta(seconds=self._elapsed_s)

    def monotonic(self) -> float:
        return self._elapsed_s

    async def sleep(self, delay_s: float) -> None:
        if delay_s <= 0:
            await asyncio.sleep(0)
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sleepers.append((self._elapsed_s + delay_s, woken))
        await woken

    def advance(self, seconds: float) -> None:
        """Move time on and wake whoever slept until then."""
        self._elapsed_s += seconds
        due = [entry for entry in self._sleepers if entry[0] <= self._elapsed_s]
        self._sleepers = [entry for entry in self._sleepers if entry[0] > self._elapsed_s]
        for _, woken in due:
            if not woken.done():
                woken.set_result(None)
