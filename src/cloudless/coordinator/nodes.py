"""Which nodes are linked now: node id -> session, control channel, bulk channel.

The transport asks ``admit`` before it takes a link and hands the channel to
``connected``. One session speaks for a node at a time: the same agent process may dial
again and replaces its old connection; another one that claims the same id is refused as
long as the first is alive. Whoever drives the control channel is told by callbacks; the
services take the bulk channel. Nothing is stored here.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

from cloudless.aio.supervise import Supervisor
from cloudless.coordinator.limits import BULK_WAIT_S, MAX_NODES
from cloudless.domain.errors import Exhausted, Invalid, Unavailable
from cloudless.transport.link import AcceptedChannel, LinkRefused

log = logging.getLogger(__name__)

KINDS = ("control", "bulk")
_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_SESSION = re.compile(r"[A-Za-z0-9_-]{1,64}")
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")


@dataclass(frozen=True, slots=True)
class Hello:
    """The first line of a link, checked."""

    node_id: str
    node_name: str
    kind: str
    session: str

    @classmethod
    def of(cls, fields: dict[str, Any]) -> Hello:
        """Check what a node sent; raises ``Invalid``."""
        for name, pattern in (("node_id", _ID), ("node_name", _NAME), ("session", _SESSION)):
            value = fields.get(name)
            if not isinstance(value, str) or pattern.fullmatch(value) is None:
                raise Invalid.field(name, "is missing or malformed")
        if fields.get("kind") not in KINDS:
            raise Invalid.field("kind", f"must be one of {', '.join(KINDS)}")
        # With the node's id, so that two nodes' sessions are never taken for one another.
        session = f"{fields['node_id']}.{fields['session']}"
        return cls(fields["node_id"], fields["node_name"], fields["kind"], session)


@dataclass(slots=True, eq=False)
class NodeLink:
    """A node that is linked: the session that speaks for it and its channels."""

    hello: Hello
    channels: dict[str, AcceptedChannel] = field(default_factory=dict)


class LinkDriver(Protocol):
    """What is done with a control channel as long as it is open."""

    async def drive(self, hello: Hello, channel: AcceptedChannel) -> None:
        """Return (or raise) when the link is over."""
        ...


class NodeTable:
    """All links; the transport's ``LinkAcceptor``. Use it as the child of an open supervisor."""

    def __init__(self, leading: Callable[[], bool]) -> None:
        self._leading = leading
        self._changed: Callable[[], None] = lambda: None
        self._links: dict[str, NodeLink] = {}
        #: Set, and replaced, when a channel came or went.
        self._stirred = asyncio.Event()
        self._tasks: Supervisor | None = None
        self._driver: LinkDriver | None = None
        self._numbers = 0

    def open(self, tasks: Supervisor, driver: LinkDriver, changed: Callable[[], None]) -> None:
        """Take links from now on; ``tasks`` owns what runs for them.

        ``changed`` is called when a link came or went.
        """
        self._tasks = tasks
        self._driver = driver
        self._changed = changed

    def close(self) -> None:
        """Take no more links and end those there are."""
        self._tasks = None
        for link in tuple(self._links.values()):
            self._end(link)

    def disconnect_all(self) -> None:
        """End every link: this coordinator leads no longer."""
        for link in tuple(self._links.values()):
            self._end(link)

    def __len__(self) -> int:
        return len(self._links)

    def sessions(self) -> Collection[str]:
        """Sessions whose control channel is open."""
        return {link.hello.session for link in self._links.values() if "control" in link.channels}

    def session_of(self, node_id: str) -> str:
        """The session that speaks for a node; empty when it is not linked."""
        link = self._links.get(node_id)
        return link.hello.session if link is not None and "control" in link.channels else ""

    def is_linked(self, node_id: str) -> bool:
        """Whether the node is here with at least one of its channels."""
        return node_id in self._links

    async def bulk(self, node_id: str, node_name: str) -> AcceptedChannel:
        """The channel for logs and exec; raises ``Unavailable`` when the node is not linked.

        A node counts as ready once its control channel stands, and its bulk channel may come a
        moment later: that is waited for.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(BULK_WAIT_S):
                while (link := self._links.get(node_id)) is not None:
                    channel = link.channels.get("bulk")
                    if channel is not None and not channel.closed.is_set():
                        return channel
                    if "control" not in link.channels:
                        break
                    await self._stirred.wait()
        raise Unavailable(f"node {node_name or node_id} is not connected", hint="try again when it is back")

    async def admit(self, hello: dict[str, Any], peer: str) -> dict[str, Any]:
        """Whether a node may link; see ``LinkAcceptor``."""
        checked = Hello.of(hello)
        if self._tasks is None or not self._leading():
            raise LinkRefused("this coordinator does not lead now; try again")
        link = self._links.get(checked.node_id)
        if link is not None and link.hello.session != checked.session:
            log.warning(
                "a second agent claims a node",
                extra={"node": checked.node_id, "peer": peer, "session": checked.session},
            )
            raise LinkRefused(
                f"node {checked.node_id} is linked already by another agent; is its data directory a copy?"
            )
        twin = next((one for one in self._links.values() if one.hello.node_name == checked.node_name), None)
        if twin is not None and twin.hello.node_id != checked.node_id:
            raise LinkRefused(f"another node is called {checked.node_name}; choose another --node-name")
        if link is None and len(self._links) >= MAX_NODES:
            raise Exhausted(f"{MAX_NODES} nodes are linked already")
        return {}

    def connected(self, hello: dict[str, Any], channel: AcceptedChannel) -> None:
        """A link is up; an older channel of the same kind and session is replaced."""
        checked = Hello.of(hello)
        tasks, driver = self._tasks, self._driver
        link = self._links.get(checked.node_id)
        if tasks is None or driver is None or (link is not None and link.hello.session != checked.session):
            channel.close()  # decided otherwise while the answer was on its way
            return
        if link is None:
            link = self._links[checked.node_id] = NodeLink(checked)
        replaced = link.channels.get(checked.kind)
        link.channels[checked.kind] = channel
        if replaced is not None:
            replaced.close()
        self._numbers += 1
        name = f"{checked.node_id}.{checked.kind}.{self._numbers}"
        tasks.start(name, self._serve(link, checked, channel, driver))
        self._stir()

    async def _serve(
        self, link: NodeLink, hello: Hello, channel: AcceptedChannel, driver: LinkDriver
    ) -> None:
        """The life of one channel; nothing that a node does fails the coordinator."""
        try:
            if hello.kind == "control":
                await driver.drive(hello, channel)
            else:
                await channel.closed.wait()
        except Exception:
            log.exception("link failed", extra={"node": hello.node_id, "kind": hello.kind})
        finally:
            channel.close()
            if link.channels.get(hello.kind) is channel:
                del link.channels[hello.kind]
                if hello.kind == "control":
                    self._end(link)
            if not link.channels and self._links.get(hello.node_id) is link:
                del self._links[hello.node_id]
            self._stir()

    def _stir(self) -> None:
        stirred, self._stirred = self._stirred, asyncio.Event()
        stirred.set()
        self._changed()

    def _end(self, link: NodeLink) -> None:
        for channel in tuple(link.channels.values()):
            channel.close()
