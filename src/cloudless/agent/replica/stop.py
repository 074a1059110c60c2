"""Ending: the stop signal, the grace, SIGKILL; and cleaning up until nothing is left.

A step that fails is tried again, for as long as it takes: nothing of a replica may be
forgotten while it exists.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable
from typing import Any

from cloudless.agent.ends import Ended
from cloudless.agent.limits import KILL_WAIT_S, RETRY_BASE_S, RETRY_CAP_S
from cloudless.agent.replica import volumes
from cloudless.agent.replica.orders import Orders
from cloudless.agent.replica.start import replica_folder
from cloudless.agent.replica.tools import Tools
from cloudless.agent.runtime.errors import ContainerGone, RuntimeAway
from cloudless.aio.backoff import Backoff
from cloudless.domain.errors import CloudlessError

log = logging.getLogger(__name__)


async def terminate(tools: Tools, orders: Orders, container_id: str, stop_signal: int) -> Ended | None:
    """End a container's processes; returns how the first one ended, None if nobody said.

    The grace may become shorter while this waits. Waits for the runtime while it is away.
    """
    ended = tools.ends.expect(container_id)
    began_at = tools.clock.monotonic()
    first = stop_signal if orders.grace_s > 0 else signal.SIGKILL
    if not ended.done() and await _signal(tools, container_id, first):
        while not ended.done() and first != signal.SIGKILL:
            left_s = began_at + orders.grace_s - tools.clock.monotonic()
            if left_s <= 0:
                break
            awaited: set[asyncio.Future[Any]] = {ended, orders.change}
            await asyncio.wait(awaited, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
        if not ended.done() and (
            first == signal.SIGKILL or await _signal(tools, container_id, signal.SIGKILL)
        ):
            await asyncio.wait({ended}, timeout=KILL_WAIT_S)
    return ended.result() if ended.done() and not ended.cancelled() else None


async def clear(tools: Tools, replica_id: str) -> None:
    """Wait for its discarded containers, remove network and files; returns when nothing is left."""

    async def detach() -> None:
        await tools.network.detach(replica_id)

    async def unlink() -> None:
        await asyncio.to_thread(volumes.remove, replica_folder(tools, replica_id))

    # The network can go while the dead containers are still being deleted.
    await asyncio.gather(
        tools.sweeper.gone(replica_id),
        until_done(tools, f"detach replica {replica_id}", detach),
    )
    await until_done(tools, f"remove the files of replica {replica_id}", unlink)
    await until_done(tools, f"remove the logs of replica {replica_id}", lambda: tools.logs.remove(replica_id))


async def until_done(tools: Tools, what: str, step: Callable[[], Awaitable[None]]) -> None:
    """Try a step of cleaning up until it works."""
    backoff = Backoff(base_s=RETRY_BASE_S, cap_s=RETRY_CAP_S)
    while True:
        try:
            await step()
            return
        except RuntimeAway:
            await tools.available.wait()
            await tools.clock.sleep(backoff.next())
        except (CloudlessError, OSError) as error:
            delay_s = backoff.next()
            log.warning("cannot clean up yet", extra={"step": what, "why": str(error), "delay_s": delay_s})
            await tools.clock.sleep(delay_s)


async def _signal(tools: Tools, container_id: str, number: int) -> bool:
    """Send a signal; False when nothing runs that could get it."""
    backoff = Backoff(base_s=RETRY_BASE_S, cap_s=RETRY_CAP_S)
    while True:
        try:
            await tools.runtime.kill(container_id, number, everyone=number == signal.SIGKILL)
            return True
        except ContainerGone:
            return False
        except RuntimeAway:
            await tools.available.wait()
            await tools.clock.sleep(backoff.next())
        except CloudlessError as error:
            log.warning("cannot send a signal", extra={"container": container_id, "why": str(error)})
            return True  # the grace goes on, and deleting ends it in any case
