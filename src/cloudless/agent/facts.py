"""Keeps the node's description up to date: what it has, what it can, whether it is ready.

The disk is looked at now and then; the container runtime's coming and going is told.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from cloudless.agent import resources
from cloudless.agent.config import AgentConfig
from cloudless.agent.ends import Availability
from cloudless.agent.limits import DISK_CHECK_S
from cloudless.agent.runtime.errors import RuntimeAway
from cloudless.agent.runtime.port import Runtime, RuntimeInfo
from cloudless.aio.clock import Clock
from cloudless.domain.node import NodeCapabilities, NodeFacts

log = logging.getLogger(__name__)


class FactsKeeper:
    """``publish`` gets new facts whenever they change."""

    def __init__(
        self, config: AgentConfig, node_id: str, version: str, publish: Callable[[NodeFacts], None]
    ) -> None:
        self._config = config
        self._node_id = node_id
        self._version = version
        self._publish = publish
        self._info = RuntimeInfo()
        self._not_ready = "containerd has not answered yet"
        self._changed = asyncio.Event()
        #: Addresses to publish at that the machine does not have (yet).
        self._missing: tuple[str, ...] = ()
        self.condition = resources.Condition(self._judge)
        self.facts = self._describe()

    @property
    def capabilities(self) -> NodeCapabilities:
        """What the node can enforce and allows, as last seen."""
        return self.facts.capabilities

    def runtime_changed(self, available: Availability) -> None:
        """The runtime answers, or does not any more."""
        self.condition.runtime(available.why)
        self._changed.set()

    async def run(self, runtime: Runtime, clock: Clock) -> None:
        """Ask the runtime at every change, and look at the disk now and then."""
        self._changed.set()
        while True:
            if self._changed.is_set():
                self._changed.clear()
                try:
                    self._info = await runtime.info()
                except RuntimeAway as error:
                    log.debug("the runtime does not answer", extra={"why": error.message})
            self.condition.disk(await asyncio.to_thread(resources.read_disk, self._config.data_dir))
            self._tell()
            try:
                async with asyncio.timeout(DISK_CHECK_S):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def _judge(self, why: str) -> None:
        self._not_ready = why
        self._tell()

    def _tell(self) -> None:
        facts = self._describe()
        if facts != self.facts:
            self.facts = facts
            self._publish(facts)

    def _describe(self) -> NodeFacts:
        facts = resources.facts(
            self._config, self._node_id, self._info, not_ready=self._not_ready, version=self._version
        )
        given = facts.capabilities.publish_addresses
        missing = tuple(one for one in self._config.publish_addresses if one not in given)
        if missing and missing != self._missing:
            has = list(facts.capabilities.addresses)
            log.warning("this machine lacks publish addresses", extra={"lacks": list(missing), "has": has})
        self._missing = missing
        return facts
