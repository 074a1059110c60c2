"""One task for each rollout that is on: it carries it from step to step, to its end.

A task plans and writes its workload, in its own turn: turns are given by the control loop,
one at a time and in the order they were asked for, so that no two plans share out the
same room and no rollout waits for another's end. The task owns the times at which it
wants to look again, and what is measured of its rollout. It holds no truth: cancelled
anywhere, it is started again from the store, by this leader or the next one.
"""

from __future__ import annotations

import asyncio
import datetime
import itertools
import logging
from collections.abc import Awaitable, Callable

from cloudless.aio.clock import Clock
from cloudless.aio.keyqueue import SHORTEST_SLEEP_S, TICK_S, KeyQueue
from cloudless.aio.supervise import Supervisor
from cloudless.coordinator.state.cache import WatchCache
from cloudless.domain.rollout import MOVING, Rollout, Stage
from cloudless.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

#: Plans one workload and writes the plan; never raises but when cancelled.
Handle = Callable[[str], Awaitable[None]]


def is_on(rollout: Rollout) -> bool:
    """Whether anything is still to be done (or waited for) in a rollout."""
    return rollout.phase in MOVING or rollout.stage is Stage.RETIRE


class Carrier:
    """The task of one rollout; ``run`` is its life."""

    def __init__(self, key: str, rollout: Rollout, rollouts: Rollouts) -> None:
        self.key = key
        self._rollouts = rollouts
        self._seen = rollout
        #: When it wants to look again, in the clock's monotonic seconds.
        self.due_s: float | None = None
        self._turns: asyncio.Queue[asyncio.Future[None]] = asyncio.Queue(1)
        self._over: asyncio.Future[None] | None = None

    async def turn(self) -> None:
        """Give it its turn, and wait until that is over (for the control loop)."""
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._turns.put_nowait(over)
        await over

    async def run(self) -> None:
        """Take turns until the rollout has ended."""
        while True:
            await self._next_turn()
            await self._rollouts.handle(self.key)
            if not self._goes_on():
                return
            self._end_turn()

    def close(self) -> None:
        """The task has ended, or was cancelled before it could begin: nobody waits for it any more."""
        self._end_turn()
        while not self._turns.empty():
            self._over = self._turns.get_nowait()
            self._end_turn()
        self._rollouts.ended(self)

    def _end_turn(self) -> None:
        if self._over is not None and not self._over.done():
            self._over.set_result(None)

    async def _next_turn(self) -> None:
        """Wait for the turn; ask for it when the time has come."""
        clock = self._rollouts.clock
        while True:
            left_s = None if self.due_s is None else max(self.due_s - clock.monotonic(), SHORTEST_SLEEP_S)
            try:
                async with asyncio.timeout(left_s):
                    self._over = await self._turns.get()
                    return
            except TimeoutError:
                if self.due_s is not None and clock.monotonic() + TICK_S < self.due_s:
                    continue  # loops count in milliseconds: it was too early, and would be told so
                self.due_s = None
                self._rollouts.queue.put(self.key)

    def _goes_on(self) -> bool:
        """Measure what the turn has brought; False when this rollout is over."""
        now = self._rollouts.rollout_of(self.key)
        seen = self._seen
        if now is None or now.revision != seen.revision:
            if now is not None and seen.phase in MOVING:
                self._measure(seen, "SUPERSEDED", self._rollouts.clock.now() - seen.started_at)
            return False
        if seen.phase in MOVING and now.phase not in MOVING and now.ended_at is not None:
            self._measure(now, now.phase.value, now.ended_at - now.started_at)
        self._seen = now
        return is_on(now)

    def _measure(self, rollout: Rollout, outcome: str, took: datetime.timedelta) -> None:
        seconds = self._rollouts.metrics.rollout_seconds.labels(rollout.strategy.value, outcome)
        seconds.observe(max(0.0, took.total_seconds()))


class Rollouts:
    """The tasks of all rollouts that are on, by workload id."""

    def __init__(
        self, cache: WatchCache, queue: KeyQueue[str], handle: Handle, clock: Clock, metrics: Metrics
    ) -> None:
        self.queue = queue
        self.handle = handle
        self.clock = clock
        self.metrics = metrics
        self._cache = cache
        self._carriers: dict[str, Carrier] = {}
        self._tasks: Supervisor | None = None
        self._numbers = itertools.count(1)

    def open(self, tasks: Supervisor) -> None:
        """From now on rollouts are carried by children of ``tasks``."""
        self._tasks = tasks

    def carrier_of(self, key: str) -> Carrier | None:
        """The task that carries the rollout of a workload now."""
        return self._carriers.get(key)

    def rollout_of(self, key: str) -> Rollout | None:
        """The rollout of a workload as stored; None when it is gone, or on its way out."""
        cluster = self._cache.cluster
        record, status = cluster.workloads.get(key), cluster.statuses.get(key)
        if record is None or record.deleted_at is not None or status is None:
            return None
        return status.rollout

    def look(self, key: str) -> Carrier | None:
        """Start the task of a rollout that is on and has none."""
        known = self._carriers.get(key)
        rollout = self.rollout_of(key)
        if known is not None or self._tasks is None or rollout is None or not is_on(rollout):
            return known
        record = self._cache.cluster.workloads[key]
        carrier = self._carriers[key] = Carrier(key, rollout, self)
        # The number keeps names apart while a cancelled task of the same rollout still ends.
        name = f"{record.namespace}/{record.name}@{rollout.revision}#{next(self._numbers)}"
        task = self._tasks.start(name, carrier.run())
        task.add_done_callback(lambda _: carrier.close())
        return carrier

    def ended(self, carrier: Carrier) -> None:
        """A task has ended: when it still wanted to look goes back to the control loop."""
        if self._carriers.get(carrier.key) is carrier:
            del self._carriers[carrier.key]
            if carrier.due_s is not None:
                self.queue.wake_at(carrier.key, carrier.due_s)
            self.queue.put(carrier.key)

    def cancel(self) -> None:
        """This process leads no longer: the next leader carries them on."""
        carriers, self._carriers = self._carriers, {}
        if carriers and self._tasks is not None:
            log.info("rollouts are left to the next leader", extra={"rollouts": len(carriers)})
            self._tasks.cancel_all()
