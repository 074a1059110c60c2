"""The last lines of a replica's log, for whoever asks why it failed.

Of a container that ended they go with its exit status; of one that runs and does not get
ready, or no longer is, with the observation. The replica's life asks and says; nothing is
read while all is well.
"""

from __future__ import annotations

import asyncio
import contextlib

from cloudless.agent.limits import NOT_READY_BASE_S, NOT_READY_CAP_S
from cloudless.agent.replica.seen import Seen
from cloudless.agent.replica.tools import Tools
from cloudless.aio.backoff import Backoff
from cloudless.domain.replica import ReplicaPhase


class LastWords:
    """One for each replica; ``run`` goes beside each of its containers."""

    def __init__(self, tools: Tools, seen: Seen) -> None:
        self._tools = tools
        self._seen = seen
        self._cut = ""
        self._failing = False
        self._changed = asyncio.Event()

    async def of_ended(self, container_id: str, *, hurry: bool) -> str:
        """What a container said last. In a ``hurry`` what is there now; ``run`` tells the rest."""
        self._cut = container_id if hurry else ""
        return await self._tools.logs.tail(container_id, ended=not hurry)

    def probed(self, *, failing: bool) -> None:
        """Whether a probe that holds readiness back has failed as often as it may."""
        if failing != self._failing:
            self._failing = failing
            self._changed.set()

    async def run(self, container_id: str, *, probes: bool) -> None:
        """Tell last lines until cancelled: at once when a probe fails for good, else now and then.

        ``probes``: the container is not ready until a probe says so.
        """
        self._failing = False
        if self._cut:
            await self._complete()
        pause = Backoff(base_s=NOT_READY_BASE_S, cap_s=NOT_READY_CAP_S)
        while probes:
            if self._seen.observation.ready:
                pause.reset()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if self._seen.observation.ready else pause.next()):
                    await self._changed.wait()
            self._changed.clear()
            if self._seen.observation.ready:
                continue
            tail = await self._tools.logs.tail(container_id)
            if not self._seen.observation.ready:
                self._seen.say(ReplicaPhase.RUNNING, self._seen.observation.message, log_tail=tail)

    async def _complete(self) -> None:
        """There was no time to wait for the last lines of the container before: here they are."""
        tail = await self._tools.logs.tail(self._cut, ended=True)
        last, self._cut = self._seen.progress.last_exit, ""
        if tail and last is not None and tail != last.log_tail:
            fuller = last.replaced(log_tail=tail)
            self._seen.note(last_exit=fuller)
            self._seen.say(ReplicaPhase.RUNNING, self._seen.observation.message, last_exit=fuller)
