"""The one control loop: a key is taken, planned, and written, one at a time.

Keys are workload ids and one key for all nodes; they come from the cache's changes, from
``wake_at`` of plans, and from links that come and go. One at a time means that each plan
sees everything that the plans before it wrote, so that two of them never share out the
same room on a node. A workload whose rollout is on is planned by that rollout's own task
(``rollouts``), in the turn that it is given here. Nothing that fails here ends the loop:
the key comes back later.
"""

from __future__ import annotations

import datetime
import logging
import math
from collections.abc import Callable, Collection, Sequence
from typing import Protocol

from cloudless.aio.backoff import Backoff
from cloudless.aio.clock import Clock
from cloudless.aio.keyqueue import TICK_S, KeyQueue
from cloudless.coordinator.control.apply import Applier, Outcome
from cloudless.coordinator.control.rollouts import Rollouts
from cloudless.coordinator.limits import (
    CATCH_UP_S,
    REPLAN_INTERVAL_S,
    RETRY_BASE_S,
    RETRY_CAP_S,
)
from cloudless.coordinator.state.cache import WatchCache
from cloudless.coordinator.state.changes import Changes
from cloudless.domain.cluster import Cluster
from cloudless.domain.errors import CloudlessError, Unavailable
from cloudless.domain.plan import Plan, PutJournal
from cloudless.planning.liveness import plan_nodes
from cloudless.planning.workload import plan_workload
from cloudless.store.port import Compare
from cloudless.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

#: The key that stands for all nodes; no id looks like it.
NODES = "#nodes"
PlanWorkload = Callable[[Cluster, str, datetime.datetime, Callable[[], str]], Plan]


class PlanNodes(Protocol):
    """``planning.liveness.plan_nodes``, or a test's own."""

    def __call__(
        self,
        cluster: Cluster,
        live_sessions: Collection[str],
        now: datetime.datetime,
        *,
        since: datetime.datetime | None,
    ) -> Plan:
        """The new phases of all nodes."""
        ...


class Fenced(Protocol):
    """What the loop needs of the leadership."""

    @property
    def fence(self) -> Sequence[Compare]:
        """Compares that hold only as long as this process leads; empty when it does not."""
        ...

    @property
    def leading(self) -> bool:
        """Whether this process leads."""
        ...


class ControlLoop:
    """Plans and writes while this process leads; ``run`` is its life."""

    def __init__(
        self,
        cache: WatchCache,
        applier: Applier,
        leadership: Fenced,
        live_sessions: Callable[[], Collection[str]],
        clock: Clock,
        new_id: Callable[[], str],
        metrics: Metrics,
        *,
        planners: tuple[PlanWorkload, PlanNodes] = (plan_workload, plan_nodes),
    ) -> None:
        self._cache = cache
        self._applier = applier
        self._leadership = leadership
        self._live_sessions = live_sessions
        self._clock = clock
        self._new_id = new_id
        self._metrics = metrics
        self._plan_workload, self._plan_nodes = planners
        self._queue: KeyQueue[str] = KeyQueue(clock)
        self._pauses: dict[str, Backoff] = {}
        self._unplaced: set[str] = set()
        self.rollouts = Rollouts(cache, self._queue, self._handle, clock, metrics)
        #: The key that is being handled, and the revisions that changed it meanwhile.
        self._active = ""
        self._meanwhile: list[int] = []
        #: Workload -> revision of the plan that was written last, if nothing else happened since.
        self._settled: dict[str, int] = {}
        #: Workload -> when its plan wants to be made again, in monotonic seconds.
        self._due_s: dict[str, float] = {}
        self._since: datetime.datetime | None = None
        #: When the key that is being handled was taken, in the clock's monotonic seconds.
        self.busy_since_s: float | None = None

    @property
    def depth(self) -> int:
        """Keys that wait now."""
        return len(self._queue)

    def nodes_changed(self) -> None:
        """A link came or went: look at the nodes."""
        self._queue.put(NODES)

    def leading_began(self) -> None:
        """This process leads now: look at everything; nodes get a moment to link."""
        self._since = self._clock.now()
        self._queue_all()

    def leading_ended(self) -> None:
        """Another process leads, or nobody: what this one had in hand is carried on there."""
        self.rollouts.cancel()

    async def run(self) -> None:
        """Handle keys until cancelled."""
        with self._cache.subscribed(self._notice):
            self._queue_all()
            while True:
                key = await self._queue.take()
                self.busy_since_s = self._clock.monotonic()
                try:
                    await self._give_turn(key)
                finally:
                    self._queue.done(key)
                    self.busy_since_s = None

    async def replan(self) -> None:
        """Look at everything from time to time, until cancelled."""
        while True:
            await self._clock.sleep(REPLAN_INTERVAL_S)
            self._queue_all()

    def _queue_all(self) -> None:
        self._settled.clear()
        for workload_id in self._cache.cluster.workload_ids():
            self._queue.put(workload_id)
        self._queue.put(NODES)

    def _notice(self, changes: Changes) -> None:
        for workload_id in changes.workloads:
            self._queue.put(workload_id)
        if self._active in changes.workloads:
            self._meanwhile.append(changes.revision)
        if changes.nodes:
            self._queue.put(NODES)
        if changes.freed:
            for workload_id in self._unplaced:
                self._settled.pop(workload_id, None)
                self._queue.put(workload_id)

    async def _give_turn(self, key: str) -> None:
        """Have a key planned: by the task of its rollout, if there is one, or right here."""
        if not self._leadership.leading or self._is_settled(key):
            return
        carrier = self.rollouts.carrier_of(key)
        if carrier is not None:
            await carrier.turn()
        else:
            await self._handle(key)

    async def _handle(self, key: str) -> None:
        """Plan and write one key; whatever goes wrong brings it back later."""
        started_s = self._clock.monotonic()
        try:
            outcome = await self._settle(key)
        except Unavailable as error:
            self._later(key, error)
        except CloudlessError as error:
            log.error("plan could not be written", extra={"key": key, "why": error.message})  # noqa: TRY400
            self._later(key, error)
        except Exception as error:
            log.exception("planning failed", extra={"key": key})
            self._later(key, error)
        else:
            if outcome is not None and not outcome.done:
                self._metrics.conflicts.inc()
                self._later(key, None)
            elif key in self._pauses:
                del self._pauses[key]
        finally:
            self._metrics.plan_seconds.observe(self._clock.monotonic() - started_s)

    def _is_settled(self, key: str) -> bool:
        """Whether the newest change of a workload is our own plan, which needs no second look."""
        if self._due_s.get(key, math.inf) <= self._clock.monotonic() + TICK_S:
            return False
        written = self._settled.get(key)
        return written is not None and self._cache.facts.touched.get(key) == written

    async def _settle(self, key: str) -> Outcome | None:
        """Plan one key on the facts as they are and write it; None when nothing is to do."""
        cluster, now = self._cache.cluster, self._clock.now()
        self._active, self._meanwhile = key, []
        if key == NODES:
            plan = self._plan_nodes(cluster, self._live_sessions(), now, since=self._since)
            workload_id = None
        else:
            plan, workload_id = self._plan_workload(cluster, key, now, self._new_id), key
        self._settled.pop(key, None)
        self._due_s.pop(key, None)
        due_s = None
        if plan.wake_at is not None:
            due_s = self._clock.monotonic() + max((plan.wake_at - now).total_seconds(), 0.001)
            self._due_s[key] = due_s
        outcome = None
        if plan.actions or plan.events:
            outcome = await self._applier.apply(plan, self._leadership.fence, workload_id)
            await self._catch_up(outcome)
            if outcome.done:
                if self._meanwhile == [outcome.revision] and key in cluster.workloads:
                    self._settled[key] = outcome.revision
                self._metrics.rollout_steps.inc(sum(isinstance(one, PutJournal) for one in plan.actions))
                log.debug("plan written", extra={"key": key, "because": plan.because})
        if workload_id is not None:
            self._note_unplaced(workload_id)
        self._look_again(key, due_s)
        return outcome

    def _look_again(self, key: str, due_s: float | None) -> None:
        """Note when a key wants its next turn: with the task of its rollout, or in the queue."""
        carrier = self.rollouts.look(key) if self._leadership.leading else None
        if carrier is not None:
            carrier.due_s = due_s
        elif due_s is not None:
            self._queue.wake_at(key, due_s)

    async def _catch_up(self, outcome: Outcome) -> None:
        """Wait until the cache has seen what was written, by us or by whoever was first."""
        if outcome.done:
            await self._cache.wait_for(outcome.revision)
            return
        try:
            await self._cache.wait_for(outcome.revision, CATCH_UP_S)
        except Unavailable:
            log.debug("the other write has not arrived yet")

    def _note_unplaced(self, workload_id: str) -> None:
        waiting = any(
            record.run and not record.node_id for record in self._cache.cluster.replicas_of(workload_id)
        )
        if waiting:
            self._unplaced.add(workload_id)
        else:
            self._unplaced.discard(workload_id)

    def _later(self, key: str, error: BaseException | None) -> None:
        """Bring a key back: at once after the first conflict, else after a growing pause."""
        pause = self._pauses.get(key)
        if pause is None:
            pause = self._pauses[key] = Backoff(base_s=RETRY_BASE_S, cap_s=RETRY_CAP_S)
            if error is None:
                self._queue.put(key)
                return
        delay_s = pause.next()
        if error is not None:
            log.warning("will plan again", extra={"key": key, "delay_s": delay_s, "why": str(error)})
        self._queue.wake_at(key, self._clock.monotonic() + delay_s)
