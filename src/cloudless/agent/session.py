"""The agent's line to the coordinator: two connections that it dials, again and again.

One carries control, one bulk (logs, commands), so that a slow reader never delays an
order. On both the agent serves ``AgentService`` once the coordinator has accepted. A
connection that breaks is dialled again at once, then with growing pauses; one that broke
as soon as it stood counts as a failed try, so that two ends which do not understand each
other do not wear each other out.
"""

from __future__ import annotations

import asyncio
import logging
import random
from typing import Literal

from cloudless.agent.limits import LINK_RETRY_BASE_S, LINK_RETRY_CAP_S, LINK_STEADY_S
from cloudless.aio.backoff import Backoff
from cloudless.aio.clock import Clock
from cloudless.aio.supervise import Supervisor
from cloudless.domain.address import split_address
from cloudless.domain.errors import CloudlessError
from cloudless.transport.link import ServesLinks, dial_link

log = logging.getLogger(__name__)

Kind = Literal["control", "bulk"]


class Session:
    """``session`` identifies this life of the agent: a newer one replaces it."""

    def __init__(
        self,
        *,
        address: str,
        node_id: str,
        node_name: str,
        session: str,
        server: ServesLinks,
        clock: Clock,
        chance: random.Random,
    ) -> None:
        self._address = address
        self._hello = {"node_id": node_id, "node_name": node_name, "session": session}
        self._server = server
        self._clock = clock
        self._chance = chance
        #: Set while the control connection stands.
        self.connected = asyncio.Event()

    def start(self, supervisor: Supervisor) -> None:
        """Keep both connections up, as children of ``supervisor``."""
        supervisor.start("link control", self._keep("control"))
        supervisor.start("link bulk", self._keep("bulk"))

    async def _keep(self, kind: Kind) -> None:
        backoff = Backoff(base_s=LINK_RETRY_BASE_S, cap_s=LINK_RETRY_CAP_S, jitter=self._chance)
        failed = ""
        while True:
            since_s = self._clock.monotonic()
            try:
                await self._hold(kind)
                failed = ""
                log.info("the link broke", extra={"kind": kind})
                if self._clock.monotonic() - since_s >= LINK_STEADY_S:
                    backoff.reset()
                    continue  # at once: most breaks are restarts
            except CloudlessError as error:
                if error.message != failed:
                    log.warning("no link to the coordinator", extra={"kind": kind, "why": error.message})
                failed = error.message
            await self._clock.sleep(backoff.next())

    async def _hold(self, kind: Kind) -> None:
        """Dial, and return when the connection is gone."""
        host, port = split_address(self._address)
        link = await dial_link(host, port, {**self._hello, "kind": kind}, self._server)
        log.info("linked to the coordinator", extra={"kind": kind, "address": self._address})
        if kind == "control":
            self.connected.set()
        try:
            await link.closed.wait()
        finally:
            if kind == "control":
                self.connected.clear()
            if not link.closed.is_set():
                await link.close()
