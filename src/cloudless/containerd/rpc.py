"""One call to the daemon: the channel, the namespace header, a deadline, sorted errors.

Every other file of this room reaches containerd through ``Connection``; nothing else
touches grpclib, but for the two streams (content and events) that need it raw.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from typing import Any, Protocol, TypeVar, cast

from grpclib.client import Channel
from grpclib.config import Configuration
from grpclib.encoding.base import CodecBase
from grpclib.protocol import H2Protocol

from cloudless.containerd import limits
from cloudless.containerd.errors import Rule, sort_exception

Request = TypeVar("Request", contravariant=True)
Response = TypeVar("Response", covariant=True)
Stub = TypeVar("Stub")
Item = TypeVar("Item")

NAMESPACE_HEADER = "containerd-namespace"
LEASE_HEADER = "containerd-lease"


class UnaryMethod(Protocol[Request, Response]):
    """A generated stub's method for one request and one answer."""

    def __call__(
        self, message: Request, /, *, timeout: float | None = ..., metadata: Any = ...
    ) -> Awaitable[Response]: ...


class StreamMethod(Protocol[Request, Response]):
    """A generated stub's method for one request and many answers."""

    def __call__(
        self, message: Request, /, *, timeout: float | None = ..., metadata: Any = ...
    ) -> AsyncIterator[Response]: ...


class DaemonChannel(Channel):
    """grpclib's channel, but for a connection that ends in the instant in which it was made.

    grpclib would make a stream on it and fail with an ``AttributeError``, as if that were a bug
    of whoever calls. A daemon that is killed while it is asked does this.
    """

    async def __connect__(self) -> H2Protocol:
        protocol = await super().__connect__()
        if protocol.processor.connection.is_closing():
            raise ConnectionResetError("the connection was lost as soon as it was made")
        return protocol


class Connection:
    """A channel to one daemon, speaking in one namespace. It connects by itself, again and again."""

    def __init__(self, socket: str, *, namespace: str, codec: CodecBase | None) -> None:
        self.socket = socket
        self.namespace = namespace
        self.channel = DaemonChannel(
            path=socket,
            codec=codec,
            config=Configuration(
                http2_connection_window_size=limits.CONNECTION_WINDOW_BYTES,
                http2_stream_window_size=limits.STREAM_WINDOW_BYTES,
            ),
        )
        self.metadata: Mapping[str, str] = {NAMESPACE_HEADER: namespace}

    def stub(self, kind: type[Stub]) -> Stub:
        """A generated stub on this channel, with the namespace header."""
        return cast(Any, kind)(self.channel, metadata=self.metadata)  # type: ignore[no-any-return]

    def headers(self, lease: str | None) -> Mapping[str, str]:
        """Headers for a call whose results the lease ``lease`` shall keep alive."""
        return self.metadata if lease is None else {**self.metadata, LEASE_HEADER: lease}

    async def call(
        self,
        method: UnaryMethod[Request, Response],
        request: Request,
        *,
        about: str,
        timeout_s: float | None = limits.CALL_TIMEOUT_S,
        lease: str | None = None,
        rules: tuple[Rule, ...] = (),
    ) -> Response:
        """Ask once; ``timeout_s=None`` waits as long as it takes.

        Raises ``ContainerdError``; ``about`` begins its message ("start task c1").
        """
        with sorting(about, rules):
            return await method(request, timeout=timeout_s, metadata=self.headers(lease))

    async def collect(
        self,
        method: StreamMethod[Request, Item],
        request: Request,
        *,
        about: str,
        timeout_s: float = limits.CALL_TIMEOUT_S,
    ) -> list[Item]:
        """All messages of a short answer stream. Raises ``ContainerdError``."""
        with sorting(about):
            stream = method(request, timeout=timeout_s, metadata=self.metadata)
            async with aclosing(cast(Any, stream)) as messages:
                return [message async for message in messages]

    def close(self) -> None:
        """Drop the connection; calls that are under way end as ``Unavailable``."""
        self.channel.close()


@contextmanager
def sorting(about: str, rules: tuple[Rule, ...] = ()) -> Iterator[None]:
    """Turn what grpclib raises in the block into a ``ContainerdError``."""
    try:
        yield
    except Exception as error:
        known = sort_exception(error, about, rules)
        if known is None:
            raise
        raise known from error
