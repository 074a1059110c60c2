"""What a replica was last told, and how a step that waits hears of a change.

The node writes, the replica's task reads. Orders go one way: from run to stop.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from cloudless.agent.limits import STRAY_GRACE_S
from cloudless.domain.replica import Assignment


class Orders:
    """``assignment`` is None for a container that nobody knows the specification of."""

    def __init__(self, assignment: Assignment | None, *, removed: bool = False) -> None:
        self.assignment = assignment
        #: No longer assigned: forget it once nothing is left.
        self.removed = removed or assignment is None
        self._change: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._scopes: set[asyncio.Timeout] = set()

    @property
    def stop(self) -> bool:
        """Whether the replica must end."""
        return self.removed or self.assignment is None or not self.assignment.run

    @property
    def grace_s(self) -> float:
        """Seconds between the stop signal and SIGKILL."""
        if self.assignment is None:
            return STRAY_GRACE_S
        grace = self.assignment.grace
        return (self.assignment.spec.stop_grace_period if grace is None else grace).total_seconds()

    @property
    def change(self) -> asyncio.Future[None]:
        """Done at the next change; ask again after each."""
        return self._change

    def update(self, assignment: Assignment) -> None:
        """New orders; a stop is never taken back."""
        if self.stop and assignment.run:
            return
        self.assignment = assignment
        self._wake()

    def remove(self) -> None:
        """The replica is no longer assigned to this node."""
        if not self.removed:
            self.removed = True
            self._wake()

    @asynccontextmanager
    async def until_stop(self) -> AsyncIterator[None]:
        """A block that ends early, without an error, when the replica must stop."""
        loop = asyncio.get_running_loop()
        scope = asyncio.timeout_at(loop.time() if self.stop else None)
        self._scopes.add(scope)
        try:
            async with scope:
                yield
        except TimeoutError:
            if not scope.expired():
                raise
        finally:
            self._scopes.discard(scope)

    async def pause(self, delay_s: float) -> None:
        """Wait, or return early when the replica must stop."""
        loop = asyncio.get_running_loop()
        until = loop.time() + delay_s
        while not self.stop and loop.time() < until:
            await asyncio.wait({self._change}, timeout=until - loop.time())

    async def wait_for_stop(self) -> None:
        """Return when the replica must stop."""
        while not self.stop:
            await asyncio.wait({self._change})

    def _wake(self) -> None:
        change, self._change = self._change, asyncio.get_running_loop().create_future()
        change.set_result(None)
        if self.stop:
            now = asyncio.get_running_loop().time()
            for scope in self._scopes:
                scope.reschedule(now)
