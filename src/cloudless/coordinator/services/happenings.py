"""ListEvents and WatchEvents."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from typing import NamedTuple

from cloudless import api
from cloudless.coordinator.limits import BOOKMARK_INTERVAL_S, MAX_WAITING_EVENTS
from cloudless.coordinator.services import fields
from cloudless.coordinator.services.context import Context
from cloudless.coordinator.services.paging import Position
from cloudless.coordinator.services.watching import start_of
from cloudless.coordinator.state import keys
from cloudless.coordinator.state.changes import Changes
from cloudless.domain.errors import Invalid, OutOfRange
from cloudless.domain.event import Event
from cloudless.wire.link import event_to_wire

_KINDS = ("workload", "replica", "node")
#: Events read from the store at a time.
_CHUNK = 500


class Filter(NamedTuple):
    """Which events a caller wants; empty fields mean all."""

    namespace: str
    name: str
    kind: str

    @classmethod
    def of(cls, namespace: str, name: str, kind: str) -> Filter:
        """Check the fields of a request."""
        if kind and kind not in _KINDS:
            raise Invalid.field("kind", f"must be one of {', '.join(_KINDS)}, or empty for all")
        named = fields.node_name_of(name, "name") if name else ""
        return cls(fields.any_namespace_of(namespace), named, kind)

    def matches(self, event: Event) -> bool:
        """Whether the caller wants ``event``."""
        return (
            (not self.namespace or event.namespace == self.namespace)
            and (not self.name or self.name in (event.name, event.node))
            and (not self.kind or event.kind == self.kind)
        )


async def list_events(context: Context, request: api.ListEventsRequest) -> api.ListEventsResponse:
    """A page of events, oldest first, all pages of one revision."""
    wanted = Filter.of(request.namespace, request.name, request.kind)
    size = fields.page_size_of(request.page_size)
    since = request.since
    scope = ("ListEvents", *wanted, "" if since is None else since.isoformat())
    position = context.tokens.read(request.page_token, *scope)
    revision = context.cache.revision if position is None else position.revision
    if position is not None:
        after = keys.event(position.after[0])
    else:
        after = (
            keys.EVENTS if since is None else keys.event(keys.event_id(keys.micros_since_epoch(since), ""))
        )
    found: list[Event] = []
    more = True
    while more and len(found) <= size:
        page = await context.typed.range(keys.EVENTS, start_after=after, limit=_CHUNK, revision=revision)
        more = page.more
        for kv in page.items:
            after = kv.key
            event, _ = context.typed.read(Event, kv)
            if wanted.matches(event):
                found.append(event)
    shown = found[:size]
    response = api.ListEventsResponse(
        events=[event_to_wire(event) for event in shown], resource_version=str(revision)
    )
    if len(found) > size:
        response.next_page_token = context.tokens.write(Position(revision, (shown[-1].id,)), *scope)
    return response


async def watch_events(
    context: Context, request: api.WatchEventsRequest
) -> AsyncGenerator[api.WatchEventsResponse, None]:
    """New events as they come, after ``resource_version`` when given; never ends by itself."""
    wanted = Filter.of(request.namespace, request.name, request.kind)
    start = await start_of(context, request.resource_version)
    waiting: deque[tuple[int, Event]] = deque()
    woken = asyncio.Event()
    overrun = False

    def notice(changes: Changes) -> None:
        nonlocal overrun
        for event in changes.events:
            if wanted.matches(event):
                waiting.append((changes.revision, event))
        overrun |= len(waiting) > MAX_WAITING_EVENTS
        woken.set()

    with context.cache.subscribed(notice), context.closing.waking(woken.set):
        if start is not None:
            for changes in context.cache.history.since(start):
                notice(changes)
        yield api.WatchEventsResponse(resource_version=str(start or context.cache.revision))
        while True:
            if overrun:
                raise OutOfRange("the reader was too slow for the events", hint="list the events again")
            while waiting:
                revision, event = waiting.popleft()
                # Several events of one revision: only after the last one it is all told.
                told = revision - 1 if waiting and waiting[0][0] == revision else revision
                yield api.WatchEventsResponse(event=event_to_wire(event), resource_version=str(told))
            context.closing.check()
            seen = context.cache.revision
            woken.clear()
            try:
                async with asyncio.timeout(BOOKMARK_INTERVAL_S):
                    await woken.wait()
            except TimeoutError:
                yield api.WatchEventsResponse(resource_version=str(seen))
