"""Watching workloads: a stream of changes that goes on over lost connections.

``Client.watch`` makes it. After a gap it resumes from the last version it has seen; when
that is no longer kept (OUT_OF_RANGE) it lists again and gives the difference as changes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Self

from cloudless import api
from cloudless.domain.errors import OutOfRange, Unavailable
from cloudless.sdk.calling import Caller, retry_delay_s
from cloudless.sdk.limits import MAX_PAGES, PAGE_SIZE
from cloudless.sdk.objects import Listed, enum_name
from cloudless.sdk.pages import list_page
from cloudless.sdk.workload import Workload

if TYPE_CHECKING:
    from cloudless.sdk.reader import Reader


class Change(NamedTuple):
    """``type`` is ADDED, MODIFIED or DELETED; ``workload`` is the object after it (or its last state)."""

    type: str
    workload: Workload


class WorkloadWatch:
    """``async with`` it, then ``async for change in``; raises ``CloudlessError``.

    First come the objects as they are (as ADDED) unless ``since`` is given, then every
    change in order. The first connection is tried with the client's patience; later gaps
    are bridged for as long as they last.
    """

    def __init__(
        self,
        caller: Caller,
        stub: api.CoordinatorServiceStub,
        *,
        namespace: str = "",
        selector: str = "",
        name: str = "",
        since: str = "",
        client: Reader | None = None,
    ) -> None:
        self._client = client
        self._caller = caller
        self._stub = stub
        self._namespace = namespace
        self._selector = selector
        self._name = name
        self._version = since
        self._known: dict[str, api.Workload] = {}
        self._connected = False
        self._relist = not since and not name
        self._changes: AsyncGenerator[Change, None] | None = None

    @property
    def resource_version(self) -> str:
        """The version up to which everything was seen; another watch may start here."""
        return self._version

    async def __aenter__(self) -> Self:
        self._changes = self._run()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._changes is not None:
            await self._changes.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Change:
        if self._changes is None:
            raise RuntimeError("use 'async with client.watch(...) as changes'")
        return await self._changes.__anext__()

    async def _run(self) -> AsyncGenerator[Change, None]:
        loop = asyncio.get_running_loop()
        backoff, give_up_s = self._caller.backoff(), loop.time() + self._caller.patience_s
        while True:
            try:
                async with aclosing(self._connection()) as changes:
                    async for change in changes:
                        if change is None:
                            backoff.reset()
                        else:
                            yield change
                delay_s = backoff.next()  # the server ended the stream in an orderly way: it drains
            except OutOfRange:
                self._relist, self._version = True, ""
                continue
            except Unavailable as error:
                delay_s = retry_delay_s(error, backoff)
                if not self._connected and loop.time() + delay_s >= give_up_s:
                    raise
            await asyncio.sleep(delay_s)

    async def _connection(self) -> AsyncGenerator[Change | None, None]:
        """The changes of one connection; None for "it works"."""
        if self._relist:
            for difference in await self._listed():
                yield difference
            self._relist = False
        request = api.WatchWorkloadsRequest(
            namespace=self._namespace,
            label_selector=self._selector,
            name=self._name,
            resource_version=self._version,
        )
        with self._caller.streams.lease() as channel:
            stub = api.CoordinatorServiceStub(channel)
            async with aclosing(stub.watch_workloads(request)) as messages:  # type: ignore[type-var]
                async for message in messages:
                    self._connected = True
                    yield None
                    change = self._seen(message)
                    if change is not None:
                        yield change

    def _seen(self, message: api.WatchWorkloadsResponse) -> Change | None:
        self._version = message.resource_version or self._version
        workload, kind = message.workload, enum_name(message.type)
        if workload is None or kind == "BOOKMARK":
            return None
        before = self._known.get(workload.id)
        if kind == "DELETED":
            self._known.pop(workload.id, None)
        else:
            if before is not None and before == workload:
                return None  # told again after a new start
            kind = kind if before is None else "MODIFIED"
            self._known[workload.id] = workload
        return Change(kind, self._view(workload))

    def _view(self, message: api.Workload) -> Workload:
        return Workload.of(message, client=self._client)

    async def _listed(self) -> list[Change]:
        listed = await list_workloads(self._caller, self._stub, self._namespace, self._selector)
        self._connected = True
        self._version = listed.resource_version
        now = {item.id: item.message for item in listed if self._name in ("", item.name, item.id)}
        gone = [Change("DELETED", self._view(old)) for key, old in self._known.items() if key not in now]
        changes = [
            Change("MODIFIED" if key in self._known else "ADDED", self._view(item))
            for key, item in now.items()
            if self._known.get(key) != item
        ]
        self._known = now
        return gone + changes


async def list_workloads(
    caller: Caller,
    stub: api.CoordinatorServiceStub,
    namespace: str,
    selector: str,
    client: Reader | None = None,
) -> Listed[Workload]:
    """All pages of a list at one revision."""
    found: Listed[Workload] = Listed()
    request = api.ListWorkloadsRequest(namespace=namespace, label_selector=selector, page_size=PAGE_SIZE)
    for _ in range(MAX_PAGES):
        page = await caller.unary(partial(list_page, stub), request)
        found.extend(Workload.of_bytes(data, client) for data in page.workloads)
        found.resource_version = page.resource_version
        if not page.next_page_token:
            return found
        request.page_token = page.next_page_token
    raise Unavailable(f"the list of workloads did not end after {MAX_PAGES} pages")
