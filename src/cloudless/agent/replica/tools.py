"""What a replica needs of its node: one bundle, the same for all replicas."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cloudless.agent.ends import Availability, Ends
from cloudless.agent.network.port import Network
from cloudless.agent.probing.outcome import ProbeOutcome, ProbeTarget, RunCommand
from cloudless.agent.runtime.port import LocalImage, OnProgress, Runtime
from cloudless.agent.traffic.switchboard import Switchboard
from cloudless.aio.clock import Clock
from cloudless.domain.event import Severity
from cloudless.domain.node import NodeCapabilities
from cloudless.domain.probes import Probe
from cloudless.domain.replica import Assignment, ExitStatus, Observation
from cloudless.domain.workload import WorkloadSpec


class Logs(Protocol):
    """Where containers' output goes."""

    def log_uri(self, replica_id: str, container_id: str, assignment: Assignment) -> str:
        """Make the place for a container's log; the URI to give to the runtime."""
        ...

    async def tail(self, container_id: str, *, ended: bool = False) -> str:
        """The last lines that it wrote; empty when there are none. ``ended``: it writes no more."""
        ...

    def exited(self, container_id: str, status: ExitStatus) -> None:
        """Keep with its log how a container ended."""
        ...

    async def remove(self, replica_id: str) -> None:
        """The replica is gone for good."""
        ...


class Images(Protocol):
    """Makes images present, one pull for all who wait for the same."""

    async def ensure(
        self,
        spec: WorkloadSpec,
        digest: str,
        on_progress: OnProgress,
        *,
        pull: bool = False,
        tell: Callable[[str], None] = ...,
    ) -> LocalImage:
        """The image to run; ``digest`` pins it, without one ``pull`` asks the registry in any case.

        ``tell`` hears when that gave nothing and an imported one is taken. Raises what
        ``Runtime.pull`` raises.
        """
        ...


class Sweeper(Protocol):
    """Deletes containers until they are gone."""

    def discard(self, replica_id: str, container_id: str) -> None:
        """Begin; again is no error."""
        ...

    async def gone(self, replica_id: str) -> None:
        """Wait until all that was discarded of a replica is deleted."""
        ...


#: One attempt of a probe against a running container.
RunProbe = Callable[[Probe, ProbeTarget, RunCommand], Awaitable[ProbeOutcome]]
#: severity, reason, message, whom it is about.
Report = Callable[[Severity, str, str, Assignment | None], None]


@dataclass(frozen=True)
class Tools:
    """``folder`` is where the replica may keep files; ``slots`` bounds starts at the same time."""

    clock: Clock
    runtime: Runtime
    network: Network
    logs: Logs
    images: Images
    sweeper: Sweeper
    ends: Ends
    available: Availability
    run_probe: RunProbe
    slots: asyncio.Semaphore
    capabilities: Callable[[], NodeCapabilities]
    seccomp_folder: Path
    folder: Path
    publish: Callable[[Observation], None]
    report: Report
    switchboard: Switchboard
    node_name: str
    #: Folders of the node that no workload may mount, whatever the operator allows.
    private: tuple[Path, ...] = ()
