"""``connect``: a channel to a server for the SDK, the CLI and other roles.

It dials when the first call needs it, again after the connection was lost or drained,
checks with keepalive that the peer lives, and gives every unary call a deadline. All
errors are domain errors that name the address. There is no retry here: each path has one
owner of retries, and it is above.
"""

from __future__ import annotations

import asyncio
import ssl as tls
from collections.abc import Callable, Mapping
from typing import Any, cast

from grpclib.const import Cardinality

from cloudless.domain.errors import Invalid, Unavailable
from cloudless.transport.clientcall import ClientCall, LoopDeadline
from cloudless.transport.codec import CompiledCodec
from cloudless.transport.grpclib_private import Channel, Deadline, Handler
from cloudless.transport.limits import CLIENT, Limits
from cloudless.transport.protocol import DrainableHandler, GuardedProtocol

#: How long dialling, TLS and the peer's first frame may take together.
CONNECT_S = 5.0
#: Deadline of a unary call that names none.
UNARY_S = 30.0
#: Nobody answers at the address, or it does not speak gRPC.
UNREACHABLE = "CL-8001"

#: Extra metadata for each call, asked for when it starts (a token, a request id).
MetadataHook = Callable[[str], Mapping[str, str | bytes]]


class ClientHandler(Handler, DrainableHandler):
    """The client's side of a connection: no calls come in; a drained one is used no more."""

    def draining(self) -> None:
        """Let the channel dial anew for the next call."""
        self.connection_lost = True


class GuardedChannel(Channel):
    """grpclib's channel with our protocol, calls and errors; generated stubs take it.

    ``address`` is for people, in errors. Subclasses say where a connection comes from.
    """

    _protocol: GuardedProtocol | None

    def __init__(
        self,
        address: str,
        *,
        authority: str = "localhost",
        ssl: tls.SSLContext | None = None,
        limits: Limits = CLIENT,
        unary_s: float = UNARY_S,
        metadata: MetadataHook | None = None,
        codec: CompiledCodec | None = None,
    ) -> None:
        super().__init__(codec=codec or CompiledCodec(answers=True), ssl=ssl)
        self.address = address
        self.limits = limits
        self._authority = authority
        self._unary_s = unary_s
        self._metadata_hook = metadata

    def request(
        self,
        name: str,
        cardinality: Cardinality,
        request_type: type[Any],
        reply_type: type[Any],
        *,
        timeout: float | None = None,
        deadline: Deadline | None = None,
        metadata: Any = None,
    ) -> ClientCall[Any, Any]:
        """A call, not yet started; ``timeout`` is in seconds, as in the generated stubs."""
        limit_s = timeout
        if deadline is not None:
            left_s = deadline.time_remaining()
            limit_s = left_s if limit_s is None else min(limit_s, left_s)
        if limit_s is None and cardinality is Cardinality.UNARY_UNARY:
            limit_s = self._unary_s
        fields: list[tuple[str, str | bytes]] = []
        if self._metadata_hook is not None:
            fields += self._metadata_hook(name).items()
        if metadata:
            fields += metadata.items() if isinstance(metadata, Mapping) else metadata
        return ClientCall(
            self,
            name,
            cast(Any, dict(fields)),
            cardinality,
            request_type,
            reply_type,
            codec=self._codec,
            status_details_codec=None,
            dispatch=self.__dispatch__,
            deadline=None if limit_s is None else LoopDeadline.after(limit_s),
        )

    async def connect(self) -> None:
        """Dial now instead of with the first call; raises ``Unavailable``."""
        await self.__connect__()

    @property
    def connected(self) -> bool:
        """True while there is a connection that new calls would use."""
        return self._connected

    def __del__(self) -> None:
        """A forgotten channel warns (``ResourceWarning``), but only if its socket is open."""
        if getattr(self, "_protocol", None) is not None and self._connected:
            super().__del__()

    async def aclose(self) -> None:
        """Close the connection and wait until the socket is gone."""
        protocol = self._protocol
        self.close()
        if protocol is not None:
            await protocol.closed.wait()

    def close(self) -> None:
        """Say GOAWAY and close; calls that still run end with ``Unavailable``."""
        protocol, self._protocol = self._protocol, None
        if protocol is not None:
            protocol.shut(reason="the channel was closed")


class DialledChannel(GuardedChannel):
    """A channel that opens its own connection, to a host and port or a unix socket."""

    def __init__(
        self, host: str, port: int, path: str | None, *, connect_s: float = CONNECT_S, **options: Any
    ) -> None:
        address = path if path is not None else _join(host, port)
        authority = "localhost" if path is not None else _join(host, port)
        super().__init__(address, authority=authority, **options)
        self._host = host
        self._port = port
        self._path = path
        self._connect_s = connect_s

    def _protocol_factory(self) -> GuardedProtocol:
        return GuardedProtocol(ClientHandler(), self.limits, server=False)

    async def _create_connection(self) -> GuardedProtocol:
        loop = asyncio.get_running_loop()
        protocol: GuardedProtocol | None = None
        try:
            async with asyncio.timeout(self._connect_s):
                if self._path is not None:
                    _, protocol = await loop.create_unix_connection(self._protocol_factory, self._path)
                else:
                    _, protocol = await loop.create_connection(
                        self._protocol_factory, self._host, self._port, ssl=self._ssl
                    )
                if not await protocol.opened():
                    raise Unavailable(
                        f"{self.address} does not speak gRPC (it closed the connection)", code=UNREACHABLE
                    )
                return protocol
        except TimeoutError:
            why = "no answer" if protocol is not None else "connecting took too long"
            error = Unavailable(f"cannot reach {self.address} ({why})", code=UNREACHABLE)
        except OSError as failure:
            reason = _reason(failure)
            error = Unavailable(f"cannot reach {self.address} ({reason})", code=UNREACHABLE)
        if protocol is not None:
            protocol.shut(reason="unused")
        raise error


def connect(
    address: str,
    *,
    ssl: tls.SSLContext | None = None,
    connect_s: float = CONNECT_S,
    unary_s: float = UNARY_S,
    metadata: MetadataHook | None = None,
    limits: Limits = CLIENT,
    codec: CompiledCodec | None = None,
) -> GuardedChannel:
    """A channel to ``HOST:PORT``, ``[V6]:PORT`` or ``unix:PATH``; dials with its first call.

    Must be called inside a running loop, and closed. ``unary_s`` is the deadline of unary
    calls that name none, ``metadata(method)`` gives further metadata for each call.
    Raises ``Invalid`` when ``address`` is none.
    """
    host, port, path = parse_address(address)
    options: dict[str, Any] = {"ssl": ssl, "unary_s": unary_s, "metadata": metadata, "limits": limits}
    return DialledChannel(host, port, path, connect_s=connect_s, codec=codec, **options)


def parse_address(address: str) -> tuple[str, int, str | None]:
    """Host, port, and the path of a unix socket.

    >>> parse_address("[::1]:8080")
    ('::1', 8080, None)
    >>> parse_address("unix:/run/cloudless.sock")
    ('', 0, '/run/cloudless.sock')
    """
    if address.startswith("unix:"):
        path = address.removeprefix("unix:").removeprefix("//")
        if path:
            return "", 0, path
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if host and port.isascii() and port.isdigit() and 0 < int(port) < 65536:
        return host, int(port), None
    raise Invalid.field("address", f"{address!r} is not HOST:PORT or unix:PATH")


def _join(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _reason(error: OSError) -> str:
    """A short lower-case reason: ``connection refused``."""
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    return (error.strerror or str(error) or type(error).__name__).lower()
