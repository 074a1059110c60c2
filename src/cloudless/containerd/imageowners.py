"""Who brought an image to this node: a label on its names, so that its bringer can take it away again.

An image store is shared, and what was there before belongs to somebody else: a name that
is there without the label never gets it. Names that are made from a name (by its digest)
belong to whom that one belongs to.
"""

from __future__ import annotations

from collections.abc import Iterable

from cloudless.api.containerd.services.images.v1 import Image as ImageMessage
from cloudless.api.containerd.services.images.v1 import ImagesStub, UpdateImageRequest
from cloudless.api.containerd.types import ContentDescriptor
from cloudless.containerd import references
from cloudless.containerd.containers import Containers
from cloudless.containerd.errors import ImageNotFound, NotFound
from cloudless.containerd.images import OWNER_LABEL, Image, Images
from cloudless.containerd.rpc import Connection


class ImageOwners:
    """Over the images of one client's namespace."""

    def __init__(self, connection: Connection, images: Images, containers: Containers) -> None:
        self._connection = connection
        self._stub = connection.stub(ImagesStub)
        self._images = images
        self._containers = containers

    async def of_others(self, owner: str) -> frozenset[str]:
        """Names that are there and not this owner's: read it before something is brought."""
        records = await self._images.list()
        return frozenset(one.name for one in records if one.labels.get(OWNER_LABEL) != owner)

    async def claim(self, images: Iterable[Image], owner: str, others: frozenset[str]) -> None:
        """Say that the owner has brought these images, unless they were among ``others`` before."""
        for image in images:
            if image.name in others:
                continue
            for name in dict.fromkeys((image.name, references.pinned(image.name, image.digest))):
                await self._label(name, owner)

    async def remove(self, owner: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Remove all that the owner brought: (names that are gone, names that containers still use).

        Raises ``Unavailable``.
        """
        records = await self._images.list()
        digests = {one.name: one.digest for one in records}
        used = {one.image for one in await self._containers.list()}
        busy = used | {digests[name] for name in used & digests.keys()}
        gone: list[str] = []
        kept: list[str] = []
        for one in records:
            if one.labels.get(OWNER_LABEL) != owner:
                continue
            if one.name in busy or one.digest in busy:
                kept.append(one.name)
                continue
            try:
                gone += await self._images.delete(one.name)
            except ImageNotFound:
                continue  # it went with another name
        return tuple(gone), tuple(kept)

    async def _label(self, name: str, owner: str) -> None:
        try:
            record = await self._images.get(name)
            target = ContentDescriptor(
                media_type=record.media_type, digest=record.digest, size=record.size_bytes
            )
            labels = {**record.labels, OWNER_LABEL: owner}
            request = UpdateImageRequest(image=ImageMessage(name=name, labels=labels, target=target))
            await self._connection.call(self._stub.update, request, about=f"label image {name}")
        except NotFound:
            return  # somebody has removed it meanwhile
