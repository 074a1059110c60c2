"""Notices loggers that died before their containers: nobody can start them again.

What such a container writes is lost from then on (its writes fail); the log says so in its
place, and an event tells the user. A child of the agent.
"""

from __future__ import annotations

import asyncio
import logging

from cloudless.agent.limits import LOGGER_CHECK_S
from cloudless.agent.logs.store import LogStore
from cloudless.agent.node import Node
from cloudless.agent.output import attempt_of
from cloudless.agent.replica.tools import Report
from cloudless.aio.clock import Clock
from cloudless.domain.errors import CloudlessError
from cloudless.domain.event import Severity

log = logging.getLogger(__name__)


class LoggerWatch:
    """``run`` looks after the loggers of all containers that run on ``node``."""

    def __init__(self, store: LogStore, node: Node, clock: Clock, report: Report) -> None:
        self._store = store
        self._node = node
        self._clock = clock
        self._report = report

    async def run(self) -> None:
        """Look again and again, for ever."""
        while True:
            await self._clock.sleep(LOGGER_CHECK_S)
            running = [
                (replica_id, replica.container_id)
                for replica_id, replica in self._node.replicas.items()
                if replica.container_id and replica.runs(replica.container_id)
            ]
            try:
                orphaned = await asyncio.to_thread(self._close, running)
            except (CloudlessError, OSError) as error:
                log.warning("cannot look after loggers", extra={"why": str(error)})
                continue
            for replica_id, container_id in orphaned:
                self._report(
                    Severity.WARNING,
                    "LoggerLost",
                    f"the process that keeps the log of {container_id} died; "
                    "what the container writes is lost until it is started again",
                    self._node.assignments.get(replica_id),
                )

    def _close(self, running: list[tuple[str, str]]) -> list[tuple[str, str]]:
        now_ns = int(self._clock.now().timestamp() * 1_000_000) * 1000
        return [
            (replica_id, container_id)
            for replica_id, container_id in running
            if self._store.close_if_orphaned(replica_id, attempt_of(container_id), now_ns)
        ]
