"""Imports image archives: into the content store, unpacked, and named.

What containerd's own tools do on their side of the API is done here: blobs with the
labels that lead the garbage collector from manifest to layers, snapshots for the
layers, and last the image record. A lease keeps all of it meanwhile; after an error
nothing is left but what the collector takes.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import os
import pathlib
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from typing import TypeVar

from cloudless.aio.clock import Clock
from cloudless.api.containerd.services.diff.v1 import ApplyRequest, DiffStub
from cloudless.api.containerd.types import ContentDescriptor
from cloudless.containerd import limits, references
from cloudless.containerd.archive import Archive
from cloudless.containerd.archiveimages import (
    OCI_LAYER,
    OCI_LAYER_GZIP,
    ArchiveImage,
    ArchiveLayer,
    read_images,
)
from cloudless.containerd.content import Content
from cloudless.containerd.errors import AlreadyExists, InvalidImage, InvalidRequest, NotFound
from cloudless.containerd.images import Image, Images, chain_id
from cloudless.containerd.leases import Leases
from cloudless.containerd.rpc import Connection
from cloudless.containerd.snapshots import Snapshots

T = TypeVar("T")

LEASE_LENGTH = datetime.timedelta(hours=1)

UNCOMPRESSED_LABEL = "containerd.io/uncompressed"
CONFIG_REF_LABEL = "containerd.io/gc.ref.content.config"
LAYER_REF_LABEL = "containerd.io/gc.ref.content.l"
SNAPSHOT_REF_LABEL = "containerd.io/gc.ref.snapshot"


class Importer:
    """Imports into this client's namespace."""

    def __init__(
        self,
        connection: Connection,
        *,
        content: Content,
        images: Images,
        snapshots: Snapshots,
        leases: Leases,
        clock: Clock,
        new_id: Callable[[], str],
    ) -> None:
        self._connection = connection
        self._diff = connection.stub(DiffStub)
        self._content = content
        self._images = images
        self._snapshots = snapshots
        self._leases = leases
        self._clock = clock
        self._new_id = new_id

    async def import_archive(
        self, path: pathlib.Path, *, spool_dir: pathlib.Path, name: str = ""
    ) -> tuple[Image, ...]:
        """Import every image of an archive; returns one ``Image`` for each name.

        ``name`` overrides the name of an archive's only image. ``spool_dir`` takes the
        unpacked copy of a gzipped archive meanwhile. Raises ``InvalidRequest`` (no file,
        the name), ``InvalidImage``, ``ImageNotFound`` (other platforms), ``NoSpace``,
        ``Unavailable``.
        """
        wanted = references.parse(name).name if name else ""
        cancelled = threading.Event()
        archive = await _in_thread(cancelled, lambda: _open(path, spool_dir, cancelled))
        with archive:
            architecture = self._images.architecture
            images = await _in_thread(cancelled, lambda: read_images(archive, architecture, cancelled))
            if wanted and len(images) != 1:
                raise InvalidRequest(f"the archive holds {len(images)} images, so they keep their names")
            names = [(wanted,) if wanted else image.names for image in images]
            if not all(names):
                raise InvalidRequest("an image in the archive has no name: give one")
            for image, its_names in zip(images, names, strict=True):
                await self._store(archive, image, its_names)
        return tuple([await self._images.resolve(one) for its_names in names for one in its_names])

    async def _store(self, archive: Archive, image: ArchiveImage, names: tuple[str, ...]) -> None:
        lease_id = f"cloudless-import-{self._new_id()}"
        async with self._leases.hold(lease_id, until=self._clock.now() + LEASE_LENGTH) as lease:
            for layer in image.layers:
                await self._store_layer(archive, layer, lease)
            await self._unpack(image, lease)
            diff_ids = [layer.facts.diff_id for layer in image.layers]
            config_labels = {f"{SNAPSHOT_REF_LABEL}.{self._snapshots.snapshotter}": chain_id(diff_ids)}
            await self._store_bytes(image.config, config_labels if diff_ids else {}, lease)
            manifest_labels = {CONFIG_REF_LABEL: image.config_digest}
            for number, layer in enumerate(image.layers):
                manifest_labels[f"{LAYER_REF_LABEL}.{number}"] = layer.facts.digest
            await self._store_bytes(image.manifest, manifest_labels, lease)
            for name in names:
                await self._images.pin(name)  # of an image that runs, and the tag leaves it
                await self._images.put(
                    name,
                    digest=image.digest,
                    media_type=image.media_type,
                    size_bytes=len(image.manifest),
                    imported=True,
                )
                await self._images.pin(name)

    async def _store_layer(self, archive: Archive, layer: ArchiveLayer, lease: str) -> None:
        digest = layer.facts.digest
        labels = {UNCOMPRESSED_LABEL: layer.facts.diff_id}
        await self._content.write(
            f"{lease}-{digest}",
            digest,
            layer.place.size_bytes,
            _chunks(archive, layer),
            labels=labels,
            lease=lease,
        )
        await self._content.label(digest, labels)

    async def _store_bytes(self, data: bytes, labels: Mapping[str, str], lease: str) -> None:
        digest = await self._content.write_bytes(
            data, ref=f"{lease}-{self._new_id()}", labels=labels, lease=lease
        )
        await self._content.label(digest, labels)

    async def _unpack(self, image: ArchiveImage, lease: str) -> None:
        parent = ""
        for number, layer in enumerate(image.layers):
            chain = chain_id([one.facts.diff_id for one in image.layers[: number + 1]])
            # Held from here on, whether it is there or comes to be.
            await self._leases.add_snapshot(lease, self._snapshots.snapshotter, chain)
            if not await self._snapshots.exists(chain):
                await self._apply(layer, parent, chain, lease)
            parent = chain

    async def _apply(self, layer: ArchiveLayer, parent: str, chain: str, lease: str) -> None:
        key = f"extract-{self._new_id()} {chain}"
        mounts = await self._snapshots.prepare(key, parent, lease=lease)
        try:
            facts = layer.facts
            diff = ContentDescriptor(
                media_type=OCI_LAYER_GZIP if facts.compressed else OCI_LAYER,
                digest=facts.digest,
                size=facts.size_bytes,
            )
            answer = await self._connection.call(
                self._diff.apply,
                ApplyRequest(diff=diff, mounts=[mount.message() for mount in mounts]),
                about=f"unpack layer {facts.digest}",
                timeout_s=limits.APPLY_TIMEOUT_S,
                lease=lease,
            )
            if answer.applied is None or answer.applied.digest != facts.diff_id:
                raise InvalidImage(f"layer {facts.digest} was not unpacked to what it is")
            await self._snapshots.commit(key, chain, lease=lease)
        except BaseException as error:
            with contextlib.suppress(NotFound):
                await self._snapshots.remove(key)
            if isinstance(error, AlreadyExists):
                return  # somebody else has unpacked the same layer meanwhile
            raise


async def _in_thread(cancelled: threading.Event, work: Callable[[], T]) -> T:
    """Run ``work``, which looks at ``cancelled`` now and then, and never leave before it has ended."""
    running = asyncio.get_running_loop().run_in_executor(None, work)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        # It reads from files that we are about to close.
        cancelled.set()
        await asyncio.wait([running])
        if running.exception() is None and isinstance(opened := running.result(), Archive):
            opened.close()
        raise


def _open(path: pathlib.Path, spool_dir: pathlib.Path, cancelled: threading.Event) -> Archive:
    try:
        return Archive(path, spool_dir, cancelled)
    except OSError as error:
        raise InvalidRequest(f"cannot read {path}: {error.strerror or error}") from error


async def _chunks(archive: Archive, layer: ArchiveLayer) -> AsyncIterator[bytes]:
    place = layer.place
    for start in range(0, place.size_bytes, limits.CONTENT_CHUNK_BYTES):
        count = min(limits.CONTENT_CHUNK_BYTES, place.size_bytes - start)
        yield await asyncio.to_thread(os.pread, archive.handle, count, place.offset + start)
