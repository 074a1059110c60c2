"""Events: listed with all pages, or followed over lost connections."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncGenerator
from contextlib import aclosing
from types import TracebackType
from typing import Self

from cloudless import api
from cloudless.domain.errors import OutOfRange, Unavailable
from cloudless.sdk.calling import Caller, retry_delay_s
from cloudless.sdk.limits import MAX_PAGES, PAGE_SIZE
from cloudless.sdk.objects import Event, Listed


async def list_events(
    caller: Caller, stub: api.CoordinatorServiceStub, request: api.ListEventsRequest
) -> Listed[Event]:
    """All pages, oldest first."""
    found: Listed[Event] = Listed()
    request.page_size = PAGE_SIZE
    for _ in range(MAX_PAGES):
        page = await caller.unary(stub.list_events, request)
        found.extend(Event(message) for message in page.events)
        found.resource_version = page.resource_version
        if not page.next_page_token:
            return found
        request.page_token = page.next_page_token
    raise Unavailable(f"the list of events did not end after {MAX_PAGES} pages")


class EventWatch:
    """``async with`` it, then ``async for event in``: new events as they happen.

    After a gap it goes on where it was; events older than the server keeps are lost.
    """

    def __init__(
        self,
        caller: Caller,
        stub: api.CoordinatorServiceStub,
        *,
        namespace: str = "",
        name: str = "",
        kind: str = "",
        since: str = "",
    ) -> None:
        self._caller = caller
        self._stub = stub
        self._request = api.WatchEventsRequest(
            namespace=namespace, name=name, kind=kind, resource_version=since
        )
        self._last_at: datetime.datetime | None = None
        self._connected = False
        self._events: AsyncGenerator[Event, None] | None = None

    async def __aenter__(self) -> Self:
        self._events = self._run()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._events is not None:
            await self._events.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        if self._events is None:
            raise RuntimeError("use 'async with client.watch_events(...) as events'")
        return await self._events.__anext__()

    async def _run(self) -> AsyncGenerator[Event, None]:
        loop = asyncio.get_running_loop()
        backoff, give_up_s = self._caller.backoff(), loop.time() + self._caller.patience_s
        while True:
            try:
                async with aclosing(self._connection()) as messages:
                    async for message in messages:
                        self._connected = True
                        backoff.reset()
                        self._request.resource_version = (
                            message.resource_version or self._request.resource_version
                        )
                        if message.event is not None:
                            self._last_at = message.event.at
                            yield Event(message.event)
                delay_s = backoff.next()  # the server ended the stream in an orderly way: it drains
            except OutOfRange:
                for event in await self._missed():
                    yield event
                continue
            except Unavailable as error:
                delay_s = retry_delay_s(error, backoff)
                if not self._connected and loop.time() + delay_s >= give_up_s:
                    raise
            await asyncio.sleep(delay_s)

    async def _connection(self) -> AsyncGenerator[api.WatchEventsResponse, None]:
        with self._caller.streams.lease() as channel:
            stub = api.CoordinatorServiceStub(channel)
            async with aclosing(stub.watch_events(self._request)) as messages:  # type: ignore[type-var]
                async for message in messages:
                    yield message

    async def _missed(self) -> list[Event]:
        """What happened since the last event, and a new version to go on from."""
        asked = self._request
        listed = await list_events(
            self._caller,
            self._stub,
            api.ListEventsRequest(
                namespace=asked.namespace, name=asked.name, kind=asked.kind, since=self._last_at
            ),
        )
        self._request.resource_version = listed.resource_version
        if self._last_at is None:
            return []
        return [event for event in listed if event.at is not None and event.at > self._last_at]
