"""The metrics that operators see at /metrics; each has one owner that sets it.

One ``Metrics`` for each process or test, with a registry of its own. Labels are bounded:
methods, status codes, phases and operations are few, and no name of a user's object ever
becomes one.
"""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

#: Upper bounds of the latency histograms, in seconds.
LATENCY_BUCKETS_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
#: Upper bounds of the durations of rollouts, in seconds.
ROLLOUT_BUCKETS_S = (0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)
#: Methods beyond these are counted as one: a scanner must not fill the memory.
MAX_METHODS = 200
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """Named metrics; the attributes are prometheus_client's own objects."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        self.requests = Counter(
            "cloudless_requests_total", "Calls of the API.", ("method", "code"), registry=registry
        )
        self.request_seconds = Histogram(
            "cloudless_request_seconds",
            "Duration of calls of the API.",
            ("method",),
            buckets=LATENCY_BUCKETS_S,
            registry=registry,
        )
        self.loop_lag = Gauge(
            "cloudless_loop_lag_seconds", "How late the event loop ran last.", registry=registry
        )
        self.loop_lag_seconds = Histogram(
            "cloudless_loop_lags_seconds",
            "How late the event loop ran.",
            buckets=LATENCY_BUCKETS_S,
            registry=registry,
        )
        self.replicas = Gauge("cloudless_replicas", "Replicas by phase.", ("phase",), registry=registry)
        self.nodes = Gauge("cloudless_nodes", "Nodes by phase.", ("phase",), registry=registry)
        self.workloads = Gauge("cloudless_workloads", "Workloads.", registry=registry)
        self.queue_depth = Gauge(
            "cloudless_control_queue_depth", "Keys that wait for the control loop.", registry=registry
        )
        self.plan_seconds = Histogram(
            "cloudless_plan_seconds",
            "Planning and writing of one key.",
            buckets=LATENCY_BUCKETS_S,
            registry=registry,
        )
        self.conflicts = Counter(
            "cloudless_plan_conflicts_total", "Plans that had to be made again.", registry=registry
        )
        self.cache_revision = Gauge(
            "cloudless_watch_cache_revision", "Revision that the cache has seen.", registry=registry
        )
        self.cache_repairs = Gauge(
            "cloudless_watch_cache_repairs", "Keys that a watch had missed.", registry=registry
        )
        self.leading = Gauge("cloudless_leading", "1 while this process leads.", registry=registry)
        self.store_seconds = Histogram(
            "cloudless_store_seconds",
            "Duration of calls of the store.",
            ("operation",),
            buckets=LATENCY_BUCKETS_S,
            registry=registry,
        )
        self._add_rollouts(registry)
        self._methods: set[str] = set()

    def _add_rollouts(self, registry: CollectorRegistry) -> None:
        self.rollouts = Gauge("cloudless_rollouts", "Rollouts by phase.", ("phase",), registry=registry)
        self.rollout_seconds = Histogram(
            "cloudless_rollout_seconds",
            "Duration of rollouts, from their beginning to this end.",
            ("strategy", "outcome"),
            buckets=ROLLOUT_BUCKETS_S,
            registry=registry,
        )
        self.rollout_steps = Counter(
            "cloudless_rollout_steps_total", "Entries written to journals of rollouts.", registry=registry
        )

    def count_call(self, method: str, code: str, seconds: float) -> None:
        """Count one call of the API; ``method`` is its path, ``code`` the status' name."""
        name = method.rpartition("/")[2] or "unknown"
        if name not in self._methods:
            if len(self._methods) >= MAX_METHODS:
                name = "other"
            else:
                self._methods.add(name)
        self.requests.labels(name, code).inc()
        self.request_seconds.labels(name).observe(seconds)

    def count_store(self, operation: str, seconds: float) -> None:
        """Count one call of the store."""
        self.store_seconds.labels(operation).observe(seconds)

    def set_phases(self, gauge: Gauge, counts: Mapping[str, int], phases: tuple[str, ...]) -> None:
        """Set a gauge by phase; phases that nothing is in are 0, not absent."""
        for phase in phases:
            gauge.labels(phase).set(counts.get(phase, 0))

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)
