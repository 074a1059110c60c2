"""Many who do the same work at the same time pass in small groups, so that others get the loop in between.

A thousand readers of one line are ready in the same turn of the loop; whatever else wants a
turn, a call or a heartbeat, would wait for all of them, and with each of its own steps again.
"""

from __future__ import annotations

import asyncio
from collections import deque


class Turns:
    """``take`` lets ``at_once`` pass in each turn of the loop; the others come in the next ones, in order."""

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._left = at_once
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._renews = False

    async def take(self) -> None:
        """Pass, at once or in a later turn; nothing is to be given back."""
        loop = asyncio.get_running_loop()
        if not self._renews:
            self._renews = True
            loop.call_soon(self._renew)
        if self._left and not self._waiting:
            self._left -= 1
            return
        waiter = loop.create_future()
        self._waiting.append(waiter)
        await waiter

    def _renew(self) -> None:
        self._left = self._at_once
        while self._left and self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():  # or it was cancelled meanwhile
                waiter.set_result(None)
                self._left -= 1
        self._renews = self._left < self._at_once
        if self._renews:
            asyncio.get_running_loop().call_soon(self._renew)
