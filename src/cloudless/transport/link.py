"""Links: a node dials the coordinator, and then serves on its own connection.

The dialling side sends one line, ``CLOUDLESS-LINK/1 {json}``, gets one line of JSON, and
from then on is the HTTP/2 server; the accepting side is the client and gets an
``AcceptedChannel`` for ordinary stubs. ``dial_link`` is for the agent's session,
``LinkAcceptor`` for the coordinator's node registry. Neither line is trusted: both are
bounded in size and time.
"""

from __future__ import annotations

import asyncio
import json
import logging
import ssl as tls
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, cast

from cloudless.domain.errors import CloudlessError, Denied, Unavailable
from cloudless.transport.channel import CONNECT_S, UNREACHABLE, ClientHandler, GuardedChannel, MetadataHook
from cloudless.transport.limits import LINK_AGENT, LINK_HANDSHAKE_S, LINK_LINE_BYTES, Limits
from cloudless.transport.listen import LINK_GREETING
from cloudless.transport.protocol import GuardedProtocol

log = logging.getLogger(__name__)


class LinkRefused(Denied):
    """The coordinator does not want this link; ``reason`` is its word for it."""

    code = "CL-4031"

    def __init__(self, reason: str) -> None:
        super().__init__(f"the link was refused: {reason}")
        self.reason = reason


class LinkAcceptor(Protocol):
    """The coordinator's side: who may link, and what becomes of the channel."""

    async def admit(self, hello: dict[str, Any], peer: str) -> dict[str, Any]:
        """Fields for the answer; raise ``LinkRefused`` (or any ``CloudlessError``) to refuse.

        ``hello`` is what the node sent, unchecked. ``peer`` is its address.
        """
        ...

    def connected(self, hello: dict[str, Any], channel: AcceptedChannel) -> None:
        """The link is up; must not block. The channel is the callee's to close."""
        ...


class ServesLinks(Protocol):
    """What ``dial_link`` needs of a server: ``GuardedServer`` has it."""

    def protocol(
        self, *, limits: Limits | None = None, on_closed: Callable[[GuardedProtocol], None] | None = None
    ) -> GuardedProtocol:
        """A protocol that serves on a socket from elsewhere."""
        ...


class AcceptedChannel(GuardedChannel):
    """A channel over an accepted link; it never dials, and is gone when the node is gone.

    ``closed`` is set at that moment. Every call has a deadline: ``unary_s`` for unary
    ones that name none.
    """

    def __init__(
        self, protocol: GuardedProtocol, name: str, *, metadata: MetadataHook | None = None, **options: Any
    ) -> None:
        super().__init__(name, limits=protocol.limits, metadata=metadata, **options)
        self._protocol = protocol
        self.closed = protocol.closed

    async def _create_connection(self) -> Any:
        raise Unavailable(f"{self.address} is not connected")


@dataclass(frozen=True)
class Link:
    """The dialling side of a link that is up. ``answer`` is what the coordinator said."""

    answer: dict[str, Any]
    protocol: GuardedProtocol

    @property
    def closed(self) -> asyncio.Event:
        """Set when the connection is gone, for whatever reason."""
        return self.protocol.closed

    async def close(self) -> None:
        """End it now and wait until the socket is gone."""
        self.protocol.shut(reason="the node closed the link")
        await self.protocol.closed.wait()


async def dial_link(
    host: str,
    port: int,
    hello: dict[str, Any],
    server: ServesLinks,
    *,
    ssl: tls.SSLContext | None = None,
    limits: Limits = LINK_AGENT,
    connect_s: float = CONNECT_S,
) -> Link:
    """Dial the coordinator and serve ``server``'s methods on the connection.

    ``hello`` is the JSON object of the first line (at most 4 KiB encoded). Raises
    ``LinkRefused``, or ``Unavailable`` when nobody answers there as they should.
    """
    line = LINK_GREETING + json.dumps(hello, separators=(",", ":")).encode() + b"\n"
    if len(line) > LINK_LINE_BYTES:
        raise ValueError(f"the hello of a link has {len(line)} bytes, at most {LINK_LINE_BYTES} may be sent")
    address = f"{host}:{port}"
    dialling = _Dialling(line)
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(connect_s):
            transport, _ = await loop.create_connection(lambda: dialling, host, port, ssl=ssl)
            answer = await dialling.answered
    except TimeoutError:
        dialling.abort()
        raise Unavailable(f"cannot link to {address} (no answer)", code=UNREACHABLE) from None
    except OSError as error:
        dialling.abort()
        why = "connection refused" if isinstance(error, ConnectionRefusedError) else str(error)
        raise Unavailable(f"cannot link to {address} ({why})", code=UNREACHABLE) from None
    except BaseException:
        dialling.abort()
        raise
    if answer.pop("accepted", None) is not True:
        dialling.abort()
        raise LinkRefused(str(answer.get("reason", "no reason given"))[:200])
    protocol = server.protocol(limits=limits)
    dialling.hand_over(transport, protocol)
    return Link(answer, protocol)


class _Dialling(asyncio.Protocol):
    """Sends the first line and reads the answer's; then another protocol takes over."""

    def __init__(self, line: bytes) -> None:
        self._line = line
        self._seen = bytearray()
        self._transport: asyncio.Transport | None = None
        self.answered: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(self._line)

    def data_received(self, data: bytes) -> None:
        self._seen += data
        if self.answered.done():
            return
        line, newline, rest = bytes(self._seen).partition(b"\n")
        if not newline:
            if len(self._seen) > LINK_LINE_BYTES:
                self._fail("it does not answer as a coordinator does")
            return
        try:
            answer = read_object(line)
        except ValueError:
            self._fail("it does not answer as a coordinator does")
            return
        self._seen[:] = rest
        self.answered.set_result(answer)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._fail("it closed the connection")

    def hand_over(self, transport: asyncio.Transport, protocol: GuardedProtocol) -> None:
        """Let ``protocol`` serve on; it gets the bytes that came after the answer."""
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        if self._seen:
            protocol.data_received(bytes(self._seen))

    def abort(self) -> None:
        """Cut the socket, if there is one."""
        if self._transport is not None:
            self._transport.abort()
        self.answered.cancel()

    def _fail(self, why: str) -> None:
        if not self.answered.done():
            self.answered.set_exception(ConnectionError(why))


class LinkHandshake(asyncio.Protocol):
    """The accepting side between the first line and HTTP/2; ``run`` is its whole life."""

    def __init__(
        self,
        acceptor: LinkAcceptor,
        transport: asyncio.Transport,
        line: bytes,
        peer: str,
        gone: Callable[[], None],
        limits: Limits,
    ) -> None:
        self._acceptor = acceptor
        self._transport = transport
        self._line = line
        self._peer = peer
        self._gone = gone
        self._limits = limits
        self._lost = False

    def data_received(self, data: bytes) -> None:
        self._transport.abort()  # it has to wait for the answer

    def connection_lost(self, exc: BaseException | None) -> None:
        self._lost = True
        self._gone()

    async def run(self) -> None:
        """Ask the acceptor, answer, and turn the connection round."""
        transport = self._transport
        try:
            async with asyncio.timeout(LINK_HANDSHAKE_S):
                hello = read_object(self._line)
                answer = await self._acceptor.admit(hello, self._peer)
        except CloudlessError as error:
            self._refuse(error.reason if isinstance(error, LinkRefused) else error.message)
            return
        except ValueError:
            self._refuse("the first line is no JSON object")
            return
        except TimeoutError:
            self._refuse("the coordinator took too long to decide")
            return
        except BaseException:
            transport.abort()
            raise
        if self._lost or transport.is_closing():
            return
        transport.write(json.dumps({**answer, "accepted": True}, separators=(",", ":")).encode() + b"\n")
        handler = ClientHandler()
        protocol = GuardedProtocol(handler, self._limits, server=False, on_closed=lambda _: self._gone())
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        channel = AcceptedChannel(protocol, f"the node at {self._peer}")
        self._acceptor.connected(hello, channel)

    def _refuse(self, reason: str) -> None:
        log.info("link refused", extra={"peer": self._peer, "reason": reason})
        if not self._transport.is_closing():
            self._transport.write(json.dumps({"accepted": False, "reason": reason[:200]}).encode() + b"\n")
            self._transport.close()


def read_object(line: bytes) -> dict[str, Any]:
    """The JSON object of a line; ``ValueError`` for anything else.

    >>> read_object(b'{"kind": "control"}')
    {'kind': 'control'}
    """
    try:
        value = json.loads(line)
    except RecursionError:
        raise ValueError("too deep") from None
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value
