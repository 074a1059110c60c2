"""The agent of this machine: images on one node, without a coordinator.

``cloudless image`` uses it. Agents listen on loopback, so this works on the node itself.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import aclosing, contextmanager
from types import TracebackType
from typing import Self

from cloudless import api
from cloudless.domain.errors import DeadlineExceeded
from cloudless.sdk.calling import Caller
from cloudless.sdk.limits import CALL_TIMEOUT_S
from cloudless.transport.channel import connect as open_channel

DEFAULT_AGENT_ADDRESS = "127.0.0.1:9092"
#: Pulling a large image takes as long as the registry needs, importing an archive as long as the disk.
TRANSFER_TIMEOUT_S = 1800.0


class AgentClient:
    """Use as ``async with``; raises ``CloudlessError`` only."""

    def __init__(self, address: str = DEFAULT_AGENT_ADDRESS, *, timeout_s: float = CALL_TIMEOUT_S) -> None:
        self.address = address
        self._timeout_s = timeout_s

    async def __aenter__(self) -> Self:
        self._caller = Caller(
            lambda: open_channel(self.address),
            timeout_s=self._timeout_s,
            patience_s=0.0,
            jitter=random.Random(),
        )
        self._stub = api.AgentServiceStub(self._caller.channel)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._caller.close()

    async def images(self) -> list[api.Image]:
        """The images this node has."""
        answer = await self._caller.unary(self._stub.list_images, api.ListImagesRequest())
        return answer.images

    async def remove_image(self, reference: str) -> None:
        """Forget an image; raises ``NotFound``, and ``PreconditionFailed`` while it is in use."""
        await self._caller.unary(
            self._stub.remove_image, api.RemoveImageRequest(reference=reference), repeatable=False
        )

    async def pull_image(
        self,
        reference: str,
        secret: api.PullSecret | None = None,
        *,
        timeout_s: float = TRANSFER_TIMEOUT_S,
    ) -> AsyncIterator[api.PullImageResponse]:
        """Pull an image; gives its progress, the image itself in the last message.

        Raises ``DeadlineExceeded`` when it is not there after ``timeout_s``.
        """
        request = api.PullImageRequest(reference=reference, secret=secret)
        calls = self._stub.pull_image(request, timeout=timeout_s)
        with _within(f"image {reference} was not pulled", timeout_s):
            async with aclosing(calls) as messages:  # type: ignore[type-var]
                async for message in messages:
                    yield message

    async def import_image(
        self, pieces: Iterable[bytes], reference: str = "", *, timeout_s: float = TRANSFER_TIMEOUT_S
    ) -> list[api.Image]:
        """Import an OCI or docker archive, given in pieces; raises as ``pull_image``."""

        async def requests() -> AsyncIterator[api.ImportImageRequest]:
            first = True
            for piece in pieces:
                yield api.ImportImageRequest(reference=reference if first else "", data=piece)
                first = False

        with _within("the archive was not imported", timeout_s):
            answer = await self._stub.import_image(requests(), timeout=timeout_s)
        return answer.images


@contextmanager
def _within(what: str, limit_s: float) -> Iterator[None]:
    """Say in an error of the deadline what was not done, and when that was."""
    try:
        yield
    except DeadlineExceeded as error:
        raise DeadlineExceeded(f"{what} within {limit_s:g} s", hint=error.hint) from None
