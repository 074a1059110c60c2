"""The agent of this machine: images on one node, without a coordinator.

``cloudless image`` uses it. Agents listen on loopback, so this works on the node itself.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing
from types import TracebackType
from typing import Self

from cloudless import api
from cloudless.sdk.calling import Caller
from cloudless.sdk.limits import CALL_TIMEOUT_S
from cloudless.transport.channel import connect as open_channel

DEFAULT_AGENT_ADDRESS = "127.0.0.1:9092"
#: Importing a large archive takes as long as the disk needs.
IMPORT_TIMEOUT_S = 1800.0


class AgentClient:
    """Use as ``async with``; raises ``CloudlessError`` only."""

    def __init__(self, address: str = DEFAULT_AGENT_ADDRESS, *, timeout_s: float = CALL_TIMEOUT_S) -> None:
        self.address = address
        self._timeout_s = timeout_s

    async def __aenter__(self) -> Self:
        channel = open_channel(self.address)
        self._caller = Caller(channel, timeout_s=self._timeout_s, patience_s=0.0, jitter=random.Random())
        self._stub = api.AgentServiceStub(channel)
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
        self, reference: str, secret: api.PullSecret | None = None
    ) -> AsyncIterator[api.PullImageResponse]:
        """Pull an image; gives its progress, the image itself in the last message."""
        request = api.PullImageRequest(reference=reference, secret=secret)
        async with aclosing(self._stub.pull_image(request)) as messages:  # type: ignore[type-var]
            async for message in messages:
                yield message

    async def import_image(self, pieces: Iterable[bytes], reference: str = "") -> list[api.Image]:
        """Import an OCI or docker archive, given in pieces."""

        async def requests() -> AsyncIterator[api.ImportImageRequest]:
            first = True
            for piece in pieces:
                yield api.ImportImageRequest(reference=reference if first else "", data=piece)
                first = False

        answer = await self._stub.import_image(requests(), timeout=IMPORT_TIMEOUT_S)
        return answer.images
