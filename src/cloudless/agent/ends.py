"""Who waits for which container's end, and whether the runtime answers at all.

The node's event pump writes, replicas wait. An end may come from an event or from a
list read after a gap; the first word counts.
"""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from cloudless.planning.node import ContainerFact, ContainerState


@dataclass(frozen=True, slots=True)
class Ended:
    """How a container ended; ``exit_code`` None when the runtime lost it."""

    exit_code: int | None
    at: datetime.datetime
    oom_killed: bool = False


class Ends:
    """One future for each container whose end is awaited."""

    def __init__(self) -> None:
        self._waiting: dict[str, asyncio.Future[Ended]] = {}
        self._running: set[str] = set()
        self._out_of_memory: set[str] = set()

    def expect(self, container_id: str) -> asyncio.Future[Ended]:
        """The end of a container; ask before it starts, and ``forget`` it at last."""
        future = self._waiting.get(container_id)
        if future is None:
            future = self._waiting[container_id] = asyncio.get_running_loop().create_future()
        return future

    def started(self, container_id: str) -> None:
        """From now on, absence from a list means that the container is lost."""
        if container_id in self._waiting:
            self._running.add(container_id)

    def forget(self, container_id: str) -> None:
        """Nobody waits any more."""
        self._running.discard(container_id)
        self._out_of_memory.discard(container_id)
        future = self._waiting.pop(container_id, None)
        if future is not None:
            future.cancel()

    def out_of_memory(self, container_id: str) -> None:
        """The kernel killed something in it: the end that follows is marked."""
        if container_id in self._waiting:
            self._out_of_memory.add(container_id)

    def ended(self, container_id: str, exit_code: int | None, at: datetime.datetime) -> None:
        """Tell whoever waits; a second word about the same container is ignored."""
        future = self._waiting.get(container_id)
        if future is not None and not future.done():
            future.set_result(Ended(exit_code, at, container_id in self._out_of_memory))

    @property
    def running(self) -> frozenset[str]:
        """Containers that run as far as anybody here knows: read before a list is asked for."""
        return frozenset(self._running)

    def listed(self, before: Iterable[str], facts: Iterable[ContainerFact], now: datetime.datetime) -> None:
        """Tell of ends that a list shows; ``before`` is ``running`` as it was before asking."""
        found = {fact.id: fact for fact in facts}
        for container_id in before:
            fact = found.get(container_id)
            if fact is None or fact.state is ContainerState.RECORDED:
                self.ended(container_id, None, now)
            elif fact.state is ContainerState.STOPPED:
                self.ended(container_id, fact.exit_code, fact.finished_at or now)


class Availability:
    """Whether the runtime answers; replicas wait for it instead of trying again and again."""

    def __init__(self, on_change: Callable[[], None]) -> None:
        self._on_change = on_change
        self._answers = asyncio.Event()
        #: Why it does not answer; empty when it does.
        self.why = "containerd has not answered yet"

    def back(self) -> None:
        """It answers."""
        self.why = ""
        self._answers.set()
        self._on_change()

    def away(self, why: str) -> None:
        """It does not."""
        self.why = why
        self._answers.clear()
        self._on_change()

    async def wait(self) -> None:
        """Return when it answers."""
        await self._answers.wait()
