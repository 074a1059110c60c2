"""``Channels``: connections for many streams, so that none of them is ever full.

A connection takes a limited number of calls at a time, and one more would wait. Calls that
last (logs, watches, programs, forwarded connections) ``lease`` a channel for their time;
quick ones need not, since no channel is ever filled with lasting ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cloudless.domain.errors import Exhausted
from cloudless.sdk.limits import MAX_STREAM_CHANNELS, STREAMS_PER_CHANNEL
from cloudless.transport.channel import GuardedChannel


class Channels:
    """As many channels as are needed, each with few enough streams; ``first`` is there already.

    Further ones stay open until ``aclose``; the coordinator closes those that are idle.
    """

    def __init__(
        self, open_channel: Callable[[], GuardedChannel], first: GuardedChannel | None = None
    ) -> None:
        self._open_channel = open_channel
        self._used: dict[GuardedChannel, int] = {} if first is None else {first: 0}
        self._closed = False

    @contextmanager
    def lease(self) -> Iterator[GuardedChannel]:
        """A channel that takes one more stream, while the block lasts; raises ``Exhausted``."""
        channel = self._with_room()
        self._used[channel] += 1
        try:
            yield channel
        finally:
            if channel in self._used:
                self._used[channel] -= 1

    def _with_room(self) -> GuardedChannel:
        if self._closed:
            raise RuntimeError("the client is closed: use 'async with cloudless.connect() as c'")
        for channel, count in self._used.items():
            if count < STREAMS_PER_CHANNEL:
                return channel
        if len(self._used) >= MAX_STREAM_CHANNELS:
            raise Exhausted(
                f"{MAX_STREAM_CHANNELS * STREAMS_PER_CHANNEL} streams of this client are open already",
                hint="close some of them, or connect another client",
            )
        channel = self._open_channel()
        self._used[channel] = 0
        return channel

    async def aclose(self) -> None:
        """Close all of them; streams that still run end with ``Unavailable``."""
        self._closed = True
        while self._used:
            channel, _ = self._used.popitem()
            await channel.aclose()
