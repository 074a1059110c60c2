"""The connection, the deadline of each call, and the one owner of retries.

``Client`` makes every call through ``Caller``. UNAVAILABLE is tried again, with growing
delays, within the call's deadline and the client's patience: always for calls that may
be repeated (reads, and mutations, which carry a request id), and for the others only
when no connection was made at all.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from cloudless.aio.backoff import Backoff
from cloudless.domain.errors import DeadlineExceeded, Unavailable
from cloudless.sdk.channels import Channels
from cloudless.sdk.limits import RETRY_BASE_S, RETRY_CAP_S
from cloudless.transport.channel import UNREACHABLE, GuardedChannel

Answer = TypeVar("Answer")


class Caller:
    """The channels of one client and how calls are made; not shared between loops.

    ``channel`` is for calls that are over soon; those that last lease one of ``streams``.
    """

    def __init__(
        self,
        open_channel: Callable[[], GuardedChannel],
        *,
        timeout_s: float,
        patience_s: float,
        jitter: random.Random,
    ) -> None:
        self.channel = open_channel()
        self.streams = Channels(open_channel, self.channel)
        self.timeout_s = timeout_s
        self.patience_s = patience_s
        self._jitter = jitter

    def backoff(self) -> Backoff:
        """Fresh delays for one call or one stream."""
        return Backoff(base_s=RETRY_BASE_S, cap_s=RETRY_CAP_S, jitter=self._jitter)

    async def unary(
        self,
        method: Callable[..., Awaitable[Answer]],
        request: Any,
        *,
        timeout_s: float | None = None,
        repeatable: bool = True,
    ) -> Answer:
        """Call ``method`` of a stub; raises ``CloudlessError`` only."""
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        end_s = started_s + (self.timeout_s if timeout_s is None else timeout_s)
        give_up_s = min(end_s, started_s + self.patience_s)
        backoff = self.backoff()
        while True:
            try:
                return await method(request, timeout=end_s - loop.time())
            except Unavailable as error:
                delay_s = retry_delay_s(error, backoff)
                may_repeat = repeatable or error.code == UNREACHABLE
                if not may_repeat or loop.time() + delay_s >= give_up_s:
                    raise
            await asyncio.sleep(delay_s)

    @asynccontextmanager
    async def beginning(self, what: str) -> AsyncGenerator[None, None]:
        """The deadline of a call, for a stream until it begins; raises ``DeadlineExceeded`` with ``what``."""
        limit = asyncio.timeout(self.timeout_s)
        try:
            async with limit:
                yield
        except TimeoutError:
            if not limit.expired():
                raise
            raise DeadlineExceeded(f"{what} within {self.timeout_s:g} s") from None

    async def close(self) -> None:
        """Close all connections; calls that still run end with ``Unavailable``."""
        await self.streams.aclose()


def retry_delay_s(error: Unavailable, backoff: Backoff) -> float:
    """Our own growing delay, or the longer one that the server asks for.

    >>> retry_delay_s(Unavailable("no leader", retry_after_s=5), Backoff(base_s=0.1, cap_s=1))
    5
    """
    delay_s = backoff.next()
    return max(delay_s, error.retry_after_s) if error.retry_after_s > 1.0 else delay_s
