"""A bidirectional call that ends well whoever ends first.

The SDK's exec and the coordinator's link to a node use ``converse`` instead of a stub's
method: a server that ends first ends the call, and requests that raise end it with their
error, at once and on both sides.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from contextlib import AsyncExitStack, aclosing
from typing import Any, TypeVar, cast

from grpclib.const import Cardinality

from cloudless.aio.supervise import Supervisor
from cloudless.domain.errors import Invalid
from cloudless.transport.channel import GuardedChannel
from cloudless.transport.clientcall import ClientCall
from cloudless.transport.codec import DecodeError
from cloudless.transport.errors import error_of
from cloudless.transport.request import Refused
from cloudless.transport.stream import ConnectionGone, PeerStalled, TruncatedMessage

Reply = TypeVar("Reply")
Message = TypeVar("Message")


async def converse(
    channel: GuardedChannel,
    route: str,
    requests: AsyncIterable[Any],
    request_type: type[Any],
    reply_type: type[Reply],
    *,
    timeout: float | None = None,
    metadata: Any = None,
) -> AsyncGenerator[Reply, None]:
    """Send ``requests`` and yield the replies of the method ``route``.

    ``requests`` is closed in every case; its error is raised here. Otherwise raises what
    calls raise (``CloudlessError``). Use it in ``contextlib.aclosing``: leaving early
    cancels the call.
    """
    call: ClientCall[Any, Any]
    async with (
        channel.request(
            route, Cardinality.STREAM_STREAM, request_type, reply_type, timeout=timeout, metadata=metadata
        ) as call,
        Supervisor("bidi") as tasks,
    ):
        await call.send_request()
        tasks.start("requests", send_all(call, requests))
        async for reply in call:
            yield cast(Reply, reply)


async def received(messages: AsyncIterator[Message]) -> AsyncGenerator[Message, None]:
    """What the caller of a streaming method sends, for a handler that reads in a task of its own.

    What cannot be read is raised as a ``CloudlessError``, as the handler itself would end with.
    """
    try:
        async for message in messages:
            yield message
    except (DecodeError, TruncatedMessage) as error:
        raise Invalid(str(error)) from None
    except Refused as refusal:
        raise error_of(refusal.status.status, refusal.status.message) from None


async def send_all(call: ClientCall[Any, Any], requests: AsyncIterable[Any]) -> None:
    """Send ``requests`` and end the sending side; what goes wrong fails the call, and not this task."""
    try:
        async with AsyncExitStack() as stack:
            if hasattr(requests, "aclose"):
                await stack.enter_async_context(aclosing(cast(Any, requests)))
            async for request in requests:
                await call.send_message(request)
        await call.end()
    except (ConnectionGone, PeerStalled) as error:
        call.fail(error, unless_answered=True)
    except Exception as error:
        call.fail(error)
