"""Streams logs of one container, or of a replica over all its containers, old and to come.

A position in files is all that a reader costs; see ``agent.logs`` for rotation and gaps.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, replace

from cloudless.agent.logs.reader import ReadOptions
from cloudless.agent.logs.record import LogBatch
from cloudless.agent.logs.store import LogStore
from cloudless.agent.lookup import Found
from cloudless.agent.node import Node
from cloudless.agent.replica.start import container_id_of


@dataclass(frozen=True, slots=True)
class ContainerBatch:
    """Lines of one container."""

    container_id: str
    batch: LogBatch


class LogStreamer:
    """Reads from ``store``; ``node`` knows which containers are still to come."""

    def __init__(self, store: LogStore, node: Node) -> None:
        self._store = store
        self._node = node

    async def stream(self, found: Found, options: ReadOptions) -> AsyncGenerator[ContainerBatch, None]:
        """Batches, oldest first; close it with ``aclosing``. Following a replica ends with the replica."""
        if found.attempt is not None:
            plan = [(found.attempt, options.tail_lines)]
        else:
            plan = await self._plan(found.replica_id, options)
        last = -1
        for attempt, tail_lines in plan:
            last = attempt
            async with aclosing(
                self._one(found.replica_id, attempt, replace(options, tail_lines=tail_lines))
            ) as batches:
                async for batch in batches:
                    yield batch
        if not options.follow or found.attempt is not None:
            return
        rest = replace(options, tail_lines=None)
        while True:
            change = self._node.change_of(found.replica_id)
            newer = [number for number in self._store.attempts(found.replica_id) if number > last]
            if newer:
                change.cancel()
                last = newer[0]
                async with aclosing(self._one(found.replica_id, last, rest)) as batches:
                    async for batch in batches:
                        yield batch
            elif found.replica_id not in self._node.replicas:
                change.cancel()
                return
            else:
                await change

    async def _plan(self, replica_id: str, options: ReadOptions) -> list[tuple[int, int | None]]:
        """Which attempts to read, and how many of the last lines of each."""
        attempts = self._store.attempts(replica_id)
        if options.tail_lines is None:
            return [(attempt, None) for attempt in attempts]
        plan: list[tuple[int, int | None]] = []
        wanted = options.tail_lines
        for attempt in reversed(attempts):
            count = 0
            look = replace(options, follow=False, tail_lines=wanted)
            async with aclosing(self._store.read(replica_id, attempt, look)) as batches:
                async for batch in batches:
                    count += batch.data.count(b"\n")
            plan.append((attempt, wanted))
            wanted -= min(count, wanted)
            if wanted == 0:
                break
        return plan[::-1]

    async def _one(
        self, replica_id: str, attempt: int, options: ReadOptions
    ) -> AsyncGenerator[ContainerBatch, None]:
        container_id = container_id_of(replica_id, attempt)
        finished = self._finished(replica_id, container_id) if options.follow else None
        try:
            async with aclosing(self._store.read(replica_id, attempt, options, finished)) as batches:
                async for batch in batches:
                    yield ContainerBatch(container_id, batch)
        finally:
            if finished is not None:
                finished.cancel()

    def _finished(self, replica_id: str, container_id: str) -> asyncio.Future[None]:
        """Done when the container does not run any more, in case its logger cannot say so."""
        finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def look(change: asyncio.Future[None] | None) -> None:
            if finished.done():
                return
            replica = self._node.replicas.get(replica_id)
            if replica is None or not replica.runs(container_id):
                finished.set_result(None)
                return
            following = self._node.change_of(replica_id)
            following.add_done_callback(look)
            finished.add_done_callback(lambda _: following.cancel())

        look(None)
        return finished
