"""Streams logs: of one container, of a replica over all its containers, of all replicas of workloads.

``services`` calls it for both of its RPCs. Which sources are meant is decided here, from
what the node was told and from what is kept on its disk; ``agent.logs`` does the reading.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass

from cloudless.agent.logs.gather import Gather
from cloudless.agent.logs.index import LogAbout
from cloudless.agent.logs.limits import MAX_GONE_SOURCES
from cloudless.agent.logs.source import Reading
from cloudless.agent.logs.store import LogStore
from cloudless.agent.lookup import Found
from cloudless.agent.node import Node
from cloudless.agent.replica.start import container_id_of
from cloudless.aio.clock import Clock
from cloudless.domain.errors import Invalid
from cloudless.domain.logfilter import LogFilter
from cloudless.domain.logstream import LogBatch, LogChunk, LogMarker, LogQuery, LogSource, MarkerKind
from cloudless.domain.names import means_replica


@dataclass(frozen=True, slots=True)
class Wanted:
    """Replicas of workloads: by the workloads' ids, or by name; ``replica`` narrows it to one."""

    workload_ids: frozenset[str] = frozenset()
    namespace: str = ""
    name: str = ""
    replica: str = ""

    def __post_init__(self) -> None:
        if bool(self.workload_ids) == bool(self.name):
            raise Invalid.field("workload_ids", "either these or a name is required")

    def fits(self, about: LogAbout) -> bool:
        """Whether a replica is meant."""
        if self.workload_ids and about.workload_id not in self.workload_ids:
            return False
        if self.name and (about.namespace, about.name) != (self.namespace, self.name):
            return False
        return means_replica(self.replica, about.ordinal, about.replica_id)


class NodeStates:
    """``RunStates`` of a node; what it does not hold yet but was told to hold counts as there."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def exists(self, replica_id: str) -> bool:
        assignment = self._node.assignments.get(replica_id)
        return replica_id in self._node.replicas or (assignment is not None and assignment.run)

    def writes(self, replica_id: str, run: int) -> bool:
        replica = self._node.replicas.get(replica_id)
        if replica is None:
            return self.exists(replica_id)
        return replica.runs(container_id_of(replica_id, run))

    def change_of(self, replica_id: str) -> asyncio.Future[None]:
        return self._node.change_of(replica_id)


class LogStreamer:
    """Reads from ``store``; ``node`` knows which containers run and are still to come."""

    def __init__(self, store: LogStore, node: Node, *, node_name: str, clock: Clock) -> None:
        self._store = store
        self._node = node
        self._states = NodeStates(node)
        self._node_name = node_name
        self._clock = clock

    async def of_container(self, found: Found, query: LogQuery) -> AsyncGenerator[LogBatch, None]:
        """One container, or with ``attempt`` None a replica; following ends with it."""
        about = (await self._abouts()).get(found.replica_id, LogAbout(found.replica_id))
        gather = self._gather(query, lambda _: None, only_run=found.attempt, endless=False)
        async with aclosing(gather.batches([self._source(about)])) as batches:
            async for batch in batches:
                yield batch

    async def of_workloads(self, wanted: Wanted, query: LogQuery) -> AsyncGenerator[LogBatch, None]:
        """All that is kept of the replicas that are meant; following takes in those to come, without end."""

        def choose(replica_id: str) -> LogSource | None:
            about = self._about(replica_id)
            return self._source(about) if about is not None and wanted.fits(about) else None

        sources, left_out = await self._chosen(wanted, query)
        gather = self._gather(query, choose, endless=True)
        async with aclosing(gather.batches(sources)) as batches:
            async for batch in batches:
                yield batch
                if batch.opened and left_out:
                    told = f"{left_out} older replicas that are gone are left out; name one to read it"
                    marker = LogMarker(
                        MarkerKind.LEFT_OUT, self._now_ns(), node=self._node_name, message=told
                    )
                    yield LogBatch([LogChunk("", marker=marker)])

    async def _chosen(self, wanted: Wanted, query: LogQuery) -> tuple[list[LogSource], int]:
        """The sources there are, and how many more there would be."""
        fitting = [about for about in (await self._abouts()).values() if wanted.fits(about)]
        # Whoever resumes gets the rest of what has gone since.
        begun = query.resume or {}
        here = {about.replica_id for about in fitting if self._states.exists(about.replica_id)} | begun.keys()
        gone = sorted((about for about in fitting if about.replica_id not in here), key=_last_alive)
        limit = len(gone) if wanted.replica else MAX_GONE_SOURCES
        kept = [] if query.current_only else gone[-limit:]
        chosen = {about.replica_id for about in kept} | here
        sources = [self._source(about) for about in fitting if about.replica_id in chosen]
        sources.sort(key=lambda one: (one.name, one.ordinal, one.replica_id))
        return sources, 0 if query.current_only else len(gone) - len(kept)

    def _gather(
        self,
        query: LogQuery,
        choose: Callable[[str], LogSource | None],
        *,
        only_run: int | None = None,
        endless: bool,
    ) -> Gather:
        reading = Reading(self._store, self._states, query, LogFilter(query), self._now_ns, only_run)
        return Gather(reading, choose, container_id_of, endless=endless)

    def _now_ns(self) -> int:
        return int(self._clock.now().timestamp() * 1_000_000) * 1000

    async def _abouts(self) -> Mapping[str, LogAbout]:
        """What is kept, and what is told and has no log yet."""
        return {
            **await self._store.abouts(),
            **{
                replica_id: about
                for replica_id in self._node.assignments
                if (about := self._about(replica_id))
            },
        }

    def _about(self, replica_id: str) -> LogAbout | None:
        told = self._node.assignments.get(replica_id)
        if told is None:
            return self._store.about(replica_id)
        return LogAbout(replica_id, told.namespace, told.name, told.ordinal, told.workload_id, told.revision)

    def _source(self, about: LogAbout) -> LogSource:
        return LogSource(
            replica_id=about.replica_id,
            namespace=about.namespace,
            name=about.name,
            ordinal=about.ordinal,
            workload_id=about.workload_id,
            revision=about.revision,
            node=self._node_name,
            gone=not self._states.exists(about.replica_id),
        )


def _last_alive(about: LogAbout) -> tuple[int, str]:
    return about.ended_ns, about.replica_id
