"""The end of a replica's part in published ports: out of the set first, then drained.

Called before the stop signal, so that no connection is made to a replica that ends, and
those that are made get time to end: as long as they last, at most ``drain_time``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from cloudless.agent.limits import PROGRESS_INTERVAL_S
from cloudless.agent.replica.orders import Orders
from cloudless.agent.replica.tools import Tools
from cloudless.agent.traffic.limits import DRAIN_LOOK_S, LEAVE_WAIT_S, QUIET_LOOKS
from cloudless.domain.replica import Assignment

log = logging.getLogger(__name__)


async def leave_traffic(tools: Tools, replica_id: str) -> None:
    """Return when no new connection can reach the replica, or when that cannot be had in time."""
    tools.switchboard.leave(replica_id)
    if not tools.switchboard.has_served(replica_id):
        return
    if not await tools.switchboard.settled(LEAVE_WAIT_S):
        log.warning("a replica ends while connections may still reach it", extra={"replica": replica_id})


async def drain(
    tools: Tools, orders: Orders, replica_id: str, ended: asyncio.Future[Any], say: Callable[[str], None]
) -> None:
    """Wait until the replica's connections ended, its container did, or the time is up."""
    assignment = orders.assignment
    if assignment is None or not any(port.publish for port in assignment.spec.ports):
        return
    drain_s = assignment.spec.rollout.drain_time.total_seconds()
    if not drain_s or not tools.switchboard.has_served(replica_id):
        return
    try:
        async with asyncio.timeout(drain_s):
            await _until_quiet(tools, orders, assignment, ended, say)
    except TimeoutError:
        log.info("a replica ends with connections", extra={"replica": replica_id})


async def _until_quiet(
    tools: Tools,
    orders: Orders,
    assignment: Assignment,
    ended: asyncio.Future[Any],
    say: Callable[[str], None],
) -> None:
    told_at, told, quiet = -PROGRESS_INTERVAL_S, 0, 0
    while not ended.done() and not hurried(orders):
        count = await tools.switchboard.connections(assignment)
        quiet = 0 if count else quiet + 1
        if quiet >= QUIET_LOOKS:
            return
        now = tools.clock.monotonic()
        if count != told and now - told_at >= PROGRESS_INTERVAL_S:
            told_at, told = now, count
            say(f"draining: {count} connection{'s' if count > 1 else ''}")
        awaited: set[asyncio.Future[Any]] = {ended, orders.change}
        await asyncio.wait(awaited, timeout=DRAIN_LOOK_S, return_when=asyncio.FIRST_COMPLETED)


def hurried(orders: Orders) -> bool:
    """Whether somebody ordered to end it at once (a grace period of 0)."""
    grace = orders.assignment.grace if orders.assignment is not None else None
    return grace is not None and not grace
