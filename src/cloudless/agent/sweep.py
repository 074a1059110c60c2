"""Deletes dead or unwanted containers in the background, until each is gone.

Replicas hand over what they no longer need; nothing waits for it but the replica's end.
"""

from __future__ import annotations

import asyncio
import logging

from cloudless.agent.ends import Availability
from cloudless.agent.limits import RETRY_BASE_S, RETRY_CAP_S
from cloudless.agent.runtime.errors import RuntimeAway
from cloudless.agent.runtime.port import Runtime
from cloudless.aio.backoff import Backoff
from cloudless.aio.clock import Clock
from cloudless.aio.supervise import Supervisor
from cloudless.domain.errors import CloudlessError

log = logging.getLogger(__name__)


class ContainerSweeper:
    """One child of ``supervisor`` for each container that is being deleted."""

    def __init__(
        self, runtime: Runtime, available: Availability, clock: Clock, supervisor: Supervisor
    ) -> None:
        self._runtime = runtime
        self._available = available
        self._clock = clock
        self._supervisor = supervisor
        self._pending: dict[str, dict[str, asyncio.Task[None]]] = {}

    def discard(self, replica_id: str, container_id: str) -> None:
        """Begin to delete a container of a replica; again is no error."""
        pending = self._pending.setdefault(replica_id, {})
        if container_id not in pending:
            pending[container_id] = self._supervisor.start(
                f"delete {container_id}", self._delete(replica_id, container_id)
            )

    async def gone(self, replica_id: str) -> None:
        """Wait until all that was discarded of a replica is deleted."""
        while pending := self._pending.get(replica_id):
            await asyncio.wait(set(pending.values()))

    async def _delete(self, replica_id: str, container_id: str) -> None:
        backoff = Backoff(base_s=RETRY_BASE_S, cap_s=RETRY_CAP_S)
        while True:
            try:
                await self._runtime.delete(container_id)
                break
            except RuntimeAway:
                await self._available.wait()
            except CloudlessError as error:
                log.warning("cannot delete yet", extra={"container": container_id, "why": str(error)})
            await self._clock.sleep(backoff.next())
        pending = self._pending[replica_id]
        del pending[container_id]
        if not pending:
            del self._pending[replica_id]
