"""Tasks: containers that run. Create, start, signal, wait, delete; numbers of use.

A task is created (its process waits at the door), started, ends, and must then be
deleted to give its exit code and free the shim. ``log_uri`` names who gets the output:
``binary:///path?argument`` starts a logger, the empty string throws it away.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from cloudless.api.containerd.services.tasks.v1 import (
    CreateTaskRequest,
    DeleteTaskRequest,
    GetRequest,
    KillRequest,
    ListPidsRequest,
    ListTasksRequest,
    MetricsRequest,
    StartRequest,
    TasksStub,
    UpdateTaskRequest,
    WaitRequest,
)
from cloudless.api.containerd.v1.types import Process
from cloudless.api.google.protobuf import Any as AnyMessage
from cloudless.containerd import limits
from cloudless.containerd.metrics import Metrics, read_metrics
from cloudless.containerd.rpc import Connection
from cloudless.containerd.runtimes import RUNC, Runtime
from cloudless.containerd.snapshots import Mount

RESOURCES_TYPE = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources"


class TaskStatus(Enum):
    """Where a task is in its life."""

    UNKNOWN = 0
    CREATED = 1
    RUNNING = 2
    STOPPED = 3
    PAUSED = 4
    PAUSING = 5


@dataclass(frozen=True)
class Task:
    """A task as the daemon sees it now; exit fields mean something once it is stopped."""

    container_id: str
    pid: int
    status: TaskStatus
    exit_code: int
    exited_at: datetime.datetime | None


@dataclass(frozen=True)
class Exit:
    """How a process ended: 0-255; 128 + n when signal n ended it."""

    exit_code: int
    exited_at: datetime.datetime | None


class Tasks:
    """The tasks of this client's namespace."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stub = connection.stub(TasksStub)

    async def create(
        self,
        container_id: str,
        mounts: Sequence[Mount],
        *,
        log_uri: str = "",
        terminal: bool = False,
        stdin: str = "",
        runtime: Runtime = RUNC,
        timeout_s: float = limits.TASK_CREATE_TIMEOUT_S,
    ) -> int:
        """Start a shim and make the container; its process waits. Returns the pid on the node.

        ``stdin`` is a pipe for a ``terminal``; without one the shim passes no input on.
        Raises ``CommandNotFound``, ``CommandNotExecutable``, ``AlreadyExists``, ``NotFound``
        (the container record), ``NoSpace``, ``ShimLost``, ``Unavailable``, ``Failed``.
        """
        # The shim of 1.6 dies of a stdout without a stderr, so both get the same URI.
        answer = await self._connection.call(
            self._stub.create,
            CreateTaskRequest(
                container_id=container_id,
                rootfs=[mount.message() for mount in mounts],
                stdin=stdin,
                stdout=log_uri,
                stderr="" if terminal else log_uri,
                terminal=terminal,
                options=runtime.options(),
            ),
            about=f"create task {container_id}",
            timeout_s=timeout_s,
        )
        return answer.pid

    async def start(self, container_id: str) -> int:
        """Let the process run. Raises as ``create``; also ``PreconditionFailed``."""
        answer = await self._connection.call(
            self._stub.start,
            StartRequest(container_id=container_id),
            about=f"start task {container_id}",
            timeout_s=limits.TASK_CREATE_TIMEOUT_S,
        )
        return answer.pid

    async def kill(self, container_id: str, signal: int, *, all_processes: bool = False) -> None:
        """Send a signal. Raises ``NotFound`` when nothing is left that could get it."""
        await self._connection.call(
            self._stub.kill,
            KillRequest(container_id=container_id, signal=signal, all=all_processes),
            about=f"kill task {container_id}",
        )

    async def wait(self, container_id: str, *, timeout_s: float | None = None) -> Exit:
        """Return when the task has ended, at once if it has already; no deadline by default.

        Raises ``NotFound``, ``ShimLost``, ``Unavailable`` (also when the daemon goes away).
        """
        answer = await self._connection.call(
            self._stub.wait,
            WaitRequest(container_id=container_id),
            about=f"wait for task {container_id}",
            timeout_s=timeout_s,
        )
        return Exit(answer.exit_status, known_time(answer.exited_at))

    async def delete(self, container_id: str) -> Exit:
        """Remove a stopped task and its shim. Raises ``NotFound``, ``PreconditionFailed`` (it runs)."""
        answer = await self._connection.call(
            self._stub.delete,
            DeleteTaskRequest(container_id=container_id),
            about=f"delete task {container_id}",
            timeout_s=limits.TASK_DELETE_TIMEOUT_S,
        )
        return Exit(answer.exit_status, known_time(answer.exited_at))

    async def get(self, container_id: str) -> Task:
        """Raises ``NotFound``, ``Unavailable``."""
        answer = await self._connection.call(
            self._stub.get, GetRequest(container_id=container_id), about=f"get task {container_id}"
        )
        assert answer.process is not None
        return _read(answer.process, container_id)

    async def list(self) -> tuple[Task, ...]:
        """All tasks of the namespace, those that have stopped included."""
        answer = await self._connection.call(self._stub.list, ListTasksRequest(), about="list tasks")
        # In this answer containerd puts the container's id where the exec id belongs.
        return tuple(_read(process, process.container_id or process.id) for process in answer.tasks)

    async def pids(self, container_id: str) -> tuple[int, ...]:
        """Every process of the container, as numbered on the node. Raises ``NotFound``."""
        answer = await self._connection.call(
            self._stub.list_pids,
            ListPidsRequest(container_id=container_id),
            about=f"list pids of {container_id}",
        )
        return tuple(process.pid for process in answer.processes)

    async def metrics(self, *container_ids: str) -> tuple[Metrics, ...]:
        """What tasks used; none named: all that run. Those without numbers are left out."""
        answer = await self._connection.call(
            self._stub.metrics,
            MetricsRequest(filters=[f"id=={container_id}" for container_id in container_ids]),
            about="read metrics",
        )
        read = (read_metrics(metric) for metric in answer.metrics)
        return tuple(metrics for metrics in read if metrics is not None)

    async def update_resources(self, container_id: str, resources: dict[str, Any]) -> None:
        """Change limits of a running task; ``resources`` as in the OCI spec (``oci.resources``)."""
        await self._connection.call(
            self._stub.update,
            UpdateTaskRequest(
                container_id=container_id,
                resources=AnyMessage(type_url=RESOURCES_TYPE, value=json.dumps(resources).encode()),
            ),
            about=f"update task {container_id}",
        )


def known_time(moment: datetime.datetime | None) -> datetime.datetime | None:
    """Go's zero time, which means "none", as ``None``."""
    return None if moment is None or moment.year <= 1 else moment


def _read(process: Process, container_id: str) -> Task:
    try:
        status = TaskStatus(int(process.status))
    except ValueError:
        status = TaskStatus.UNKNOWN
    return Task(container_id, process.pid, status, process.exit_status, known_time(process.exited_at))
