"""Numbers of use of one task, whichever cgroup version the node has."""

from __future__ import annotations

import datetime
from dataclasses import dataclass

from cloudless.api.containerd.cgroups.v1 import Metrics as MetricsV1
from cloudless.api.containerd.cgroups.v2 import Metrics as MetricsV2
from cloudless.api.containerd.types import Metric

V1_TYPE = "io.containerd.cgroups.v1.Metrics"
V2_TYPE = "io.containerd.cgroups.v2.Metrics"


@dataclass(frozen=True)
class Metrics:
    """Totals since the task's start; memory without what the kernel can drop at once."""

    container_id: str
    taken_at: datetime.datetime | None
    cpu_ns: int
    throttled_ns: int
    memory_bytes: int
    memory_limit_bytes: int
    pids: int


def read_metrics(metric: Metric) -> Metrics | None:
    """Decode; ``None`` for a kind that is not known."""
    data = metric.data
    if data is None:
        return None
    kind = data.type_url.rpartition("/")[2]
    if kind == V1_TYPE:
        return _read_v1(metric, MetricsV1.parse(data.value))
    if kind == V2_TYPE:
        return _read_v2(metric, MetricsV2.parse(data.value))
    return None


def _read_v1(metric: Metric, values: MetricsV1) -> Metrics:
    cpu, memory, pids = values.cpu, values.memory, values.pids
    usage = memory.usage if memory is not None else None
    cache_bytes = memory.total_inactive_file if memory is not None else 0
    return Metrics(
        container_id=metric.id,
        taken_at=metric.timestamp,
        cpu_ns=cpu.usage.total if cpu is not None and cpu.usage is not None else 0,
        throttled_ns=cpu.throttling.throttled_time if cpu is not None and cpu.throttling is not None else 0,
        memory_bytes=max(usage.usage - cache_bytes, 0) if usage is not None else 0,
        memory_limit_bytes=usage.limit if usage is not None else 0,
        pids=pids.current if pids is not None else 0,
    )


def _read_v2(metric: Metric, values: MetricsV2) -> Metrics:
    cpu, memory, pids = values.cpu, values.memory, values.pids
    return Metrics(
        container_id=metric.id,
        taken_at=metric.timestamp,
        cpu_ns=cpu.usage_usec * 1000 if cpu is not None else 0,
        throttled_ns=cpu.throttled_usec * 1000 if cpu is not None else 0,
        memory_bytes=max(memory.usage - memory.inactive_file, 0) if memory is not None else 0,
        memory_limit_bytes=memory.usage_limit if memory is not None else 0,
        pids=pids.current if pids is not None else 0,
    )
