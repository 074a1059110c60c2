"""WatchWorkloads: the objects as they are, then every change, to readers of any speed.

A watch remembers which workloads changed, not how: a slow reader gets fewer, newer
states, and costs no memory beyond the names of what it has not read.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Mapping

from cloudless import api
from cloudless.coordinator.limits import BOOKMARK_INTERVAL_S
from cloudless.coordinator.services import fields
from cloudless.coordinator.services.context import Context
from cloudless.coordinator.services.views import with_version
from cloudless.coordinator.state.changes import Changes
from cloudless.domain.cluster import Cluster
from cloudless.domain.selector import Selector, selector_of
from cloudless.domain.workload import WorkloadRecord
from cloudless.transport.codec import Encoded

_Type = api.WatchWorkloadsResponseType


async def watch_workloads(
    context: Context, request: api.WatchWorkloadsRequest
) -> AsyncGenerator[api.WatchWorkloadsResponse, None]:
    """Never ends by itself; raises ``OutOfRange`` for a version that is too old."""
    watch = Watch(
        context,
        fields.any_namespace_of(request.namespace),
        fields.optional_name_of(request.name),
        selector_of(request.label_selector),
    )
    start = await start_of(context, request.resource_version)
    with context.cache.subscribed(watch.notice), context.closing.waking(watch.woken.set):
        first = watch.everything() if start is None else watch.resumed(start)
        for shown in first:
            yield shown
        yield watch.bookmark()
        while True:
            while (change := watch.next()) is not None:
                yield change
            context.closing.check()
            woken = watch.woken
            woken.clear()
            try:
                async with asyncio.timeout(BOOKMARK_INTERVAL_S):
                    await woken.wait()
            except TimeoutError:
                yield watch.bookmark()


async def start_of(context: Context, resource_version: str) -> int | None:
    """Where a watch goes on: None for the start; waits for a version that is still to come."""
    version = fields.version_of(resource_version)
    if version is not None and version > context.cache.revision:
        await context.cache.wait_for(version)
    return version


class Watch:
    """What one reader has seen and has yet to see."""

    def __init__(self, context: Context, namespace: str, name: str, selector: Selector) -> None:
        self._context = context
        self._namespace = namespace
        self._name = name
        self._selector = selector
        self._shown: set[str] = set()
        self._dirty: dict[str, None] = {}
        self._gone: dict[str, WorkloadRecord] = {}
        self._safe = ""
        self.woken = asyncio.Event()

    def notice(self, changes: Changes) -> None:
        """Remember what changed (the cache calls it)."""
        for workload_id in changes.workloads:
            record = self._cluster.workloads.get(workload_id) or changes.deleted.get(workload_id)
            if record is not None and self._concerns(record):
                self._dirty.setdefault(workload_id)
                if workload_id in changes.deleted:
                    self._gone[workload_id] = changes.deleted[workload_id]
                else:
                    self._gone.pop(workload_id, None)
        if self._dirty:
            self.woken.set()

    def everything(self) -> Iterator[api.WatchWorkloadsResponse]:
        """All objects as they are now."""
        for namespace, name in tuple(self._context.cache.facts.names):
            record = self._cluster.workload_named(namespace, name)
            if record is not None and self._concerns(record) and self._selector.matches(record.labels):
                self._dirty.pop(record.id, None)
                yield self._show(record, _Type.ADDED, listing=True)

    def resumed(self, start: int) -> Iterator[api.WatchWorkloadsResponse]:
        """What changed after ``start``; works out first what the reader had been shown by then."""
        self._safe = str(start)
        before: dict[str, Mapping[str, str] | None] = {}
        for changes in self._context.cache.history.since(start):
            self.notice(changes)
            for workload_id, labels in changes.labels_before.items():
                before.setdefault(workload_id, labels)
        for workload_id in {**self._cluster.workloads, **self._gone}:
            record = self._cluster.workloads.get(workload_id) or self._gone[workload_id]
            labels = before.get(workload_id, record.labels)
            if labels is not None and self._concerns(record) and self._selector.matches(labels):
                self._shown.add(workload_id)
        while (response := self.next()) is not None:
            yield response

    def next(self) -> api.WatchWorkloadsResponse | None:
        """The next change that the reader has to know; None when there is none."""
        while self._dirty:
            workload_id = next(iter(self._dirty))
            del self._dirty[workload_id]
            gone = self._gone.pop(workload_id, None)
            record = self._cluster.workloads.get(workload_id)
            if record is not None and self._selector.matches(record.labels):
                return self._show(record, _Type.MODIFIED if workload_id in self._shown else _Type.ADDED)
            if workload_id in self._shown:
                self._shown.discard(workload_id)
                last = record or gone
                if last is not None:
                    return self._hide(last)
        return None

    def bookmark(self) -> api.WatchWorkloadsResponse:
        """Everything up to here has been sent."""
        self._advance()
        return api.WatchWorkloadsResponse(type=_Type.BOOKMARK, resource_version=self._safe)

    @property
    def _cluster(self) -> Cluster:
        return self._context.cache.cluster

    def _advance(self) -> None:
        """Move the version on from which a reader may resume: only when nothing is pending."""
        if not self._dirty:
            self._safe = str(self._context.cache.revision)

    def _concerns(self, record: WorkloadRecord) -> bool:
        return (not self._namespace or record.namespace == self._namespace) and (
            not self._name or record.name == self._name
        )

    def _show(
        self, record: WorkloadRecord, kind: _Type, *, listing: bool = False
    ) -> api.WatchWorkloadsResponse:
        self._shown.add(record.id)
        return self._response(kind, self._context.views.encoded(record.id), listing=listing)

    def _hide(self, record: WorkloadRecord) -> api.WatchWorkloadsResponse:
        """The last thing known of a workload that is gone, or no longer asked for."""
        cluster = Cluster(self._cluster.revision)
        cluster.put_workload(record)
        data = self._context.views.encode_without_version(cluster, record.id)
        return self._response(_Type.DELETED, with_version(data, record.resource_version))

    def _response(self, kind: _Type, data: bytes, *, listing: bool = False) -> api.WatchWorkloadsResponse:
        if not listing:
            self._advance()
        workload = Encoded(data, api.Workload)
        return api.WatchWorkloadsResponse(
            type=kind,
            workload=workload,  # type: ignore[arg-type]
            resource_version=self._safe,
        )
