"""The client's connection and its questions: everything that changes nothing.

``client.Client`` adds the changes. Every list reads all its pages.
"""

from __future__ import annotations

import datetime
import random
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from cloudless import api
from cloudless.domain.errors import Unavailable
from cloudless.sdk.calling import Caller
from cloudless.sdk.events import EventWatch, list_events
from cloudless.sdk.limits import CALL_TIMEOUT_S, MAX_PAGES, PAGE_SIZE, PATIENCE_S
from cloudless.sdk.objects import Event, Info, Listed, Node, Replica, Revision
from cloudless.sdk.targets import Target
from cloudless.sdk.watch import WorkloadWatch, list_workloads
from cloudless.sdk.workload import Workload, split_name
from cloudless.transport.channel import GuardedChannel
from cloudless.transport.channel import connect as open_channel


class Reader:
    """Owns the connections while the ``async with`` block runs; ``namespace`` is the default one."""

    def __init__(
        self,
        target: Target,
        *,
        timeout_s: float = CALL_TIMEOUT_S,
        patience_s: float = PATIENCE_S,
        author: str | None = None,
        new_id: Callable[[], str] | None = None,
        jitter: random.Random | None = None,
        open_channel: Callable[[str], GuardedChannel] = open_channel,
    ) -> None:
        self.target = target
        self.namespace = target.namespace
        self._timeout_s = timeout_s
        self._patience_s = patience_s
        self._author = author
        self._new_id = new_id or _request_id
        self._jitter = jitter or random.Random()
        self._open_channel = open_channel
        self._caller: Caller | None = None
        self._stub: Any = None

    async def __aenter__(self) -> Self:
        self._caller = Caller(
            self._new_channel, timeout_s=self._timeout_s, patience_s=self._patience_s, jitter=self._jitter
        )
        self._stub = api.CoordinatorServiceStub(self._caller.channel)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._caller is not None:
            await self._caller.close()
        self._caller = self._stub = None

    @property
    def author(self) -> str:
        """What this client says of who asks; see ``author``."""
        if self._author is None:
            from cloudless.sdk.author import find_author

            self._author = find_author()
        return self._author

    # Workloads: questions.

    async def get(self, name: str, namespace: str | None = None) -> Workload:
        """One workload by its name or a unique prefix of its id; raises ``NotFound``."""
        space, short = self._split(name, namespace)
        request = api.GetWorkloadRequest(namespace=space, name=short)
        answer = await self._call.unary(self._stub.get_workload, request)
        return Workload.of(answer.workload, client=self)

    async def list(self, namespace: str | None = None, *, selector: str = "") -> Listed[Workload]:
        """All workloads of a namespace (``""``: of all), read at one revision."""
        space = self.namespace if namespace is None else namespace
        return await list_workloads(self._call, self._stub, space, selector, self)

    def watch(
        self, *, namespace: str | None = None, selector: str = "", name: str = "", since: str = ""
    ) -> WorkloadWatch:
        """Changes of workloads, resumed over lost connections; use it as ``async with``."""
        space = self.namespace if namespace is None else namespace
        return WorkloadWatch(
            self._call,
            self._stub,
            namespace=space,
            selector=selector,
            name=name,
            since=since,
            client=self,
        )

    async def replicas(
        self, name: str = "", *, namespace: str | None = None, node: str = ""
    ) -> Listed[Replica]:
        """Replicas of one workload, on one node, or all of a namespace (``""``: of all)."""
        space = self.namespace if namespace is None else namespace
        if "/" in name:
            space, name = self._split(name, namespace)
        request = api.ListReplicasRequest(namespace=space, name=name, node=node, page_size=PAGE_SIZE)
        found: Listed[Replica] = Listed()
        for _ in range(MAX_PAGES):
            page = await self._call.unary(self._stub.list_replicas, request)
            found.extend(Replica(message) for message in page.replicas)
            if not page.next_page_token:
                return found
            request.page_token = page.next_page_token
        raise Unavailable(f"the list of replicas did not end after {MAX_PAGES} pages")

    async def revisions(self, name: str, *, namespace: str | None = None) -> Listed[Revision]:
        """The kept revisions of a workload, newest first."""
        space, short = self._split(name, namespace)
        request = api.ListRevisionsRequest(namespace=space, name=short)
        answer = await self._call.unary(self._stub.list_revisions, request)
        return Listed(Revision(message) for message in answer.revisions)

    # Nodes, events, the coordinator.

    async def node(self, name: str) -> Node:
        """One node by its name or a unique prefix of its id; raises ``NotFound``."""
        return Node((await self._call.unary(self._stub.get_node, api.GetNodeRequest(name=name))).node)

    async def nodes(self, *, selector: str = "") -> Listed[Node]:
        """All nodes."""
        request = api.ListNodesRequest(label_selector=selector, page_size=PAGE_SIZE)
        found: Listed[Node] = Listed()
        for _ in range(MAX_PAGES):
            page = await self._call.unary(self._stub.list_nodes, request)
            found.extend(Node(message) for message in page.nodes)
            if not page.next_page_token:
                return found
            request.page_token = page.next_page_token
        raise Unavailable(f"the list of nodes did not end after {MAX_PAGES} pages")

    async def events(
        self,
        name: str = "",
        *,
        namespace: str | None = None,
        kind: str = "",
        since: datetime.datetime | None = None,
    ) -> Listed[Event]:
        """What happened, oldest first; of one workload or node when ``name`` is given."""
        space = self.namespace if namespace is None else namespace
        request = api.ListEventsRequest(namespace=space, name=name, kind=kind, since=since)
        return await list_events(self._call, self._stub, request)

    def watch_events(
        self, name: str = "", *, namespace: str | None = None, kind: str = "", since: str = ""
    ) -> EventWatch:
        """New events as they happen; ``since`` is a ``Listed.resource_version``."""
        space = self.namespace if namespace is None else namespace
        return EventWatch(self._call, self._stub, namespace=space, name=name, kind=kind, since=since)

    async def info(self) -> Info:
        """What the coordinator is."""
        return Info(await self._call.unary(self._stub.get_info, api.GetInfoRequest()))

    @property
    def patience_s(self) -> float:
        """How long an unavailable coordinator is asked again; may be changed at any time."""
        return self._patience_s

    @patience_s.setter
    def patience_s(self, value: float) -> None:
        self._patience_s = value
        if self._caller is not None:
            self._caller.patience_s = value

    @property
    def _call(self) -> Caller:
        if self._caller is None:
            raise RuntimeError("use 'async with cloudless.connect() as c'")
        return self._caller

    def _new_channel(self) -> GuardedChannel:
        return self._open_channel(self.target.address)

    def _split(self, name: str, namespace: str | None) -> tuple[str, str]:
        return split_name(name, namespace, self.namespace)


def _request_id() -> str:
    from cloudless.aio.ids import random_id  # its imports cost 4 ms that reads need not pay

    return random_id()
