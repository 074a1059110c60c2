"""The life line of each node: desired state out, observed state in.

The node table starts ``LinkSync.drive`` for every control channel. It ends with the
channel, with this process' leadership, or when the node breaks the rules; the node dials
again then. A node that reads slowly gets fewer messages and holds nobody up.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import aclosing

from cloudless import api
from cloudless.aio.clock import Clock
from cloudless.coordinator.desired import Outbox
from cloudless.coordinator.limits import FIRST_REPORT_S
from cloudless.coordinator.nodes import Hello
from cloudless.coordinator.reports import Inbox
from cloudless.coordinator.state.cache import WatchCache
from cloudless.coordinator.state.typed import TypedStore
from cloudless.domain.errors import CloudlessError
from cloudless.transport.bidi import converse
from cloudless.transport.link import AcceptedChannel

log = logging.getLogger(__name__)

ROUTE = "/cloudless.api.AgentService/Synchronize"


class LinkSync:
    """Drives control channels; implements ``nodes.LinkDriver``."""

    def __init__(
        self,
        typed: TypedStore,
        cache: WatchCache,
        epoch: Callable[[], int],
        clock: Clock,
        new_id: Callable[[], str],
    ) -> None:
        self._typed = typed
        self._cache = cache
        self._epoch = epoch
        self._clock = clock
        self._new_id = new_id

    async def drive(self, hello: Hello, channel: AcceptedChannel) -> None:
        fields = {"node": hello.node_id, "name_of_node": hello.node_name, "session": hello.session}
        log.info("node linked", extra=fields)
        try:
            await self._synchronize(hello, channel)
            why = "the node ended the call"
        except CloudlessError as error:
            why = error.message
        except TimeoutError:
            why = f"no report came within {FIRST_REPORT_S:g} s"
        log.info("node unlinked", extra={**fields, "why": why})

    async def _synchronize(self, hello: Hello, channel: AcceptedChannel) -> None:
        outbox = Outbox(self._cache, hello.node_id, self._epoch)
        inbox = Inbox(self._typed, self._cache, hello, self._clock, self._new_id, outbox.look_again)
        with self._cache.subscribed(outbox.notice):
            replies = converse(
                channel, ROUTE, outbox.messages(), api.SynchronizeRequest, api.SynchronizeResponse
            )
            async with aclosing(replies), asyncio.timeout(FIRST_REPORT_S) as first:
                async for reply in replies:
                    first.reschedule(None)
                    await inbox.store(reply)
                    outbox.acknowledge(reply.sequence)
