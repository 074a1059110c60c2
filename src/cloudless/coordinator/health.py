"""Whether the coordinator is well: the pages of the health port, and the numbers behind them.

``Health`` reads what the other parts show and changes nothing. /livez is about this
process alone, so that nobody restarts it because a store is away; /readyz says whether
work can be done: a node is ready, and this coordinator leads or follows.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass

import cloudless
from cloudless.aio.clock import Clock
from cloudless.coordinator.control.leadership import Seat
from cloudless.coordinator.control.loop import ControlLoop
from cloudless.coordinator.limits import LAG_INTERVAL_S, STUCK_LOOP_S
from cloudless.coordinator.services.context import About
from cloudless.coordinator.state.cache import WatchCache
from cloudless.domain.node import NodePhase
from cloudless.domain.replica import ReplicaPhase
from cloudless.domain.rollout import RolloutPhase
from cloudless.planning.status import view_workload
from cloudless.store.port import Store
from cloudless.telemetry.http import Page
from cloudless.telemetry.metrics import Metrics


@dataclass(slots=True)
class Health:
    """The parts of one coordinator, as their operator sees them."""

    store: Store
    cache: WatchCache
    seat: Seat
    loop: ControlLoop
    metrics: Metrics
    clock: Clock
    about: About
    live_sessions: Callable[[], Collection[str]]
    draining: bool = False
    lag_s: float = 0.0

    async def measure_lag(self) -> None:
        """Measure how late the event loop runs, until cancelled."""
        running = asyncio.get_running_loop()
        while True:
            due_s = running.time() + LAG_INTERVAL_S
            await asyncio.sleep(LAG_INTERVAL_S)
            self.lag_s = max(running.time() - due_s, 0.0)
            self.metrics.loop_lag.set(self.lag_s)
            self.metrics.loop_lag_seconds.observe(self.lag_s)

    def ready_nodes(self) -> int:
        """Nodes that can be given work.

        The leader believes only nodes that are linked to it: right after its start, the
        store still says what was true before.
        """
        ready = [node for node in self.cache.cluster.nodes.values() if node.phase is NodePhase.READY]
        if not self.seat.leading:
            return len(ready)
        live = self.live_sessions()
        return sum(node.session in live for node in ready)

    def ready(self) -> bool:
        """Whether workloads that are created now can run."""
        return not self.draining and self.cache.filled and self.ready_nodes() > 0

    def livez(self) -> Page:
        """Whether the control loop turns."""
        since_s = self.loop.busy_since_s
        busy_s = 0.0 if since_s is None else self.clock.monotonic() - since_s
        return Page(busy_s < STUCK_LOOP_S, {"alive": busy_s < STUCK_LOOP_S, "busy_s": round(busy_s, 3)})

    def readyz(self) -> Page:
        """Whether work can be done."""
        body = {"ready": self.ready(), "nodes_ready": self.ready_nodes(), "draining": self.draining}
        return Page(self.ready(), body)

    async def health(self) -> Page:
        """All parts and how each is."""
        status = await self.store.status()
        nodes = Counter(node.phase.value.lower() for node in self.cache.cluster.nodes.values())
        ok = status.ready and not status.alarm and self.cache.filled and self.livez().ok and not self.draining
        body = {
            "status": "ok" if ok else "draining" if self.draining else "degraded",
            "version": cloudless.__version__,
            "cluster_id": self.about.cluster_id,
            "started_at": self.about.started_at.isoformat(),
            "store": {
                "kind": self.about.store,
                "ready": status.ready,
                "revision": status.revision,
                "size_bytes": status.size_bytes,
                "alarm": status.alarm,
            },
            "cache": {"revision": self.cache.revision, "unreadable": len(self.cache.facts.unreadable)},
            "leadership": {"leading": self.seat.leading, "epoch": self.seat.epoch},
            "loop": {"lag_s": round(self.lag_s, 4), "waiting": self.loop.depth, **self.livez().body},
            "nodes": dict(nodes),
            "workloads": len(self.cache.cluster.workloads),
            "process": {"tasks": dict(sorted(task_owners().items())), "threads": threading.active_count()},
        }
        return Page(ok, body)

    def metrics_text(self) -> bytes:
        """The metrics, with those that are read off the facts brought up to date."""
        cluster, now = self.cache.cluster, self.clock.now()
        phases: Counter[str] = Counter()
        for workload_id in cluster.workload_ids():
            phases.update(view.phase.value for view in view_workload(cluster, workload_id, now).replicas)
        self.metrics.set_phases(self.metrics.replicas, phases, tuple(phase.value for phase in ReplicaPhase))
        nodes = Counter(node.phase.value for node in cluster.nodes.values())
        self.metrics.set_phases(self.metrics.nodes, nodes, tuple(phase.value for phase in NodePhase))
        rollouts = Counter(
            status.rollout.phase.value for status in cluster.statuses.values() if status.rollout is not None
        )
        self.metrics.set_phases(self.metrics.rollouts, rollouts, tuple(phase.value for phase in RolloutPhase))
        self.metrics.workloads.set(len(cluster.workloads))
        self.metrics.queue_depth.set(self.loop.depth)
        self.metrics.cache_revision.set(self.cache.revision)
        self.metrics.cache_repairs.set(self.cache.repairs)
        return self.metrics.text()


def task_owners() -> Counter[str]:
    """How many tasks run on this loop, by who started them; a number that only grows is a leak.

    Children of a supervisor count for it, all others for the function that they run.
    """
    found: Counter[str] = Counter()
    for task in asyncio.all_tasks():
        owner, slash, _ = task.get_name().partition("/")
        found[owner if slash else getattr(task.get_coro(), "__qualname__", "unknown")] += 1
    return found
