"""Images on this node: find, describe, list, delete.

An image is a name that points at a manifest (or an index of manifests, one for each
platform). ``resolve`` answers everything that is needed to run it; manifests never
change under their digest, so their answers are remembered. What a tag means is also
named by its digest, so that it can still be run when the tag has moved on.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cloudless.api.containerd.services.images.v1 import (
    CreateImageRequest,
    DeleteImageRequest,
    GetImageRequest,
    ImagesStub,
    ListImagesRequest,
    UpdateImageRequest,
)
from cloudless.api.containerd.services.images.v1 import Image as ImageMessage
from cloudless.api.containerd.types import ContentDescriptor
from cloudless.containerd import limits, references
from cloudless.containerd.content import Content
from cloudless.containerd.errors import AlreadyExists, ImageNotFound, InvalidImage, InvalidRequest, NotFound
from cloudless.containerd.imageconfig import ImageConfig, parse_config
from cloudless.containerd.rpc import Connection

#: The CRI plugin sees only images that carry this label.
CRI_LABEL = {"io.cri-containerd.image": "managed"}

#: The digest that an archive brought under this name. Where a pull moves the name, the label
#: stays and no longer fits, so that what came with credentials never passes for an import.
IMPORTED_LABEL = "cloudless.io/imported-digest"

#: Who brought it here (see ``imageowners``).
OWNER_LABEL = "cloudless.io/owner"

OCI_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "riscv64": "riscv64"}


@dataclass(frozen=True)
class Image:
    """An image that can run here.

    ``digest`` is what the name points at (what a registry calls the image's digest);
    ``config_digest`` its id; ``chain_id`` the snapshot to prepare containers from;
    ``size_bytes`` the packed size of config and layers. ``imported``: an archive brought it.
    """

    name: str
    digest: str
    config_digest: str
    chain_id: str
    size_bytes: int
    config: ImageConfig
    imported: bool = False


@dataclass(frozen=True)
class ImageRecord:
    """A name in the image store."""

    name: str
    digest: str
    media_type: str
    labels: Mapping[str, str]
    created_at: datetime.datetime | None
    #: Of the manifest.
    size_bytes: int = 0

    @property
    def imported(self) -> bool:
        """Whether what the name means now came from an archive."""
        return bool(self.digest) and self.labels.get(IMPORTED_LABEL) == self.digest


@dataclass(frozen=True)
class _Described:
    config_digest: str
    chain_id: str
    size_bytes: int
    config: ImageConfig


class Images:
    """The images of this client's namespace."""

    def __init__(self, connection: Connection, content: Content, *, architecture: str = "") -> None:
        self._connection = connection
        self._content = content
        self._stub = connection.stub(ImagesStub)
        machine = platform.machine()
        self.architecture = architecture or OCI_ARCHITECTURES.get(machine, machine)
        self._described: dict[str, _Described] = {}

    async def resolve(self, reference: str) -> Image:
        """Everything needed to run an image that is on this node.

        A digest is also found under another name of its repository, and under any name when
        an archive brought it. Not under other names of what was pulled: whoever may pull one
        repository may not therefore use another one's images.

        Raises ``ImageNotFound`` (no such name, content is missing, or not for this platform),
        ``InvalidImage``, ``InvalidRequest`` (the reference), ``Unavailable``.
        """
        wanted = references.parse(reference)
        name = wanted.name
        try:
            record = await self.get(name)
        except NotFound:
            record = await self._adopt(wanted)
        known = self._described.get(record.digest)
        if known is None:
            try:
                known = await self._describe(record.digest)
            except NotFound as error:
                raise ImageNotFound(f"image {name} is not complete on this node: {error.message}") from error
            if len(self._described) >= limits.MAX_CACHED_IMAGES:
                self._described.pop(next(iter(self._described)))
            self._described[record.digest] = known
        return Image(
            name=name,
            digest=record.digest,
            config_digest=known.config_digest,
            chain_id=known.chain_id,
            size_bytes=known.size_bytes,
            config=known.config,
            imported=record.imported,
        )

    async def get(self, name: str) -> ImageRecord:
        """The record of a full name. Raises ``NotFound``, ``Unavailable``."""
        answer = await self._connection.call(
            self._stub.get, GetImageRequest(name=name), about=f"image {name}"
        )
        assert answer.image is not None
        return _read(answer.image)

    async def list(self) -> tuple[ImageRecord, ...]:
        """All records; one image may have several names (tag, digest, id)."""
        answer = await self._connection.call(self._stub.list, ListImagesRequest(), about="list images")
        return tuple(_read(message) for message in answer.images)

    async def put(
        self,
        name: str,
        *,
        digest: str,
        media_type: str,
        size_bytes: int,
        imported: bool = False,
        owner: str = "",
    ) -> None:
        """Point a name at a manifest that is in the content store, whether or not it is taken."""
        target = ContentDescriptor(media_type=media_type, digest=digest, size=size_bytes)
        labels = {**CRI_LABEL, IMPORTED_LABEL: digest} if imported else dict(CRI_LABEL)
        if owner:
            labels[OWNER_LABEL] = owner
        message = ImageMessage(name=name, labels=labels, target=target)
        try:
            await self._connection.call(
                self._stub.create, CreateImageRequest(image=message), about=f"create image {name}"
            )
        except AlreadyExists:
            await self._connection.call(
                self._stub.update, UpdateImageRequest(image=message), about=f"update image {name}"
            )

    async def pin(self, name: str) -> None:
        """Name what a tag means now by its digest as well: that name stays when the tag moves.

        A tag that is not there has nothing to keep.
        """
        wanted = references.parse(name)
        if wanted.digest:
            return
        try:
            record = await self.get(wanted.name)
        except NotFound:
            return
        await self._put_like(record, references.pinned(name, record.digest))

    async def delete(self, reference: str) -> tuple[str, ...]:
        """Remove a name, and the image's other machine-made names when no tag is left.

        Returns the names that were removed; space is free when this returns. Containers
        that run from it go on. Raises ``ImageNotFound``, ``Unavailable``.
        """
        name = references.parse(reference).name
        records = await self.list()
        record = next((one for one in records if one.name == name), None)
        if record is None:
            raise ImageNotFound(f"image {name} is not on this node")
        others = [one.name for one in records if one.digest == record.digest and one.name != name]
        doomed = [name] if any(is_tag(other) for other in others) else [*others, name]
        for one in doomed:
            await self._delete_record(one, sync=one == doomed[-1])
        return tuple(doomed)

    async def unused(self, used: Iterable[str]) -> tuple[ImageRecord, ...]:
        """Records whose image none of the names or digests in ``used`` means."""
        wanted = set(used)
        records = await self.list()
        busy = {record.digest for record in records if record.name in wanted or record.digest in wanted}
        return tuple(record for record in records if record.digest not in busy)

    async def _adopt(self, wanted: references.Reference) -> ImageRecord:
        """The digest that somebody asks for, from a name that may lend it; named for good then."""
        lenders = [
            one
            for one in (await self.list() if wanted.digest else ())
            if one.digest == wanted.digest and (one.imported or _home(one.name) == wanted.home)
        ]
        if not lenders:
            raise ImageNotFound(f"image {wanted.name} is not on this node")
        lender = max(lenders, key=lambda one: one.imported)
        await self._put_like(lender, wanted.name)
        return dataclasses.replace(lender, name=wanted.name)

    async def _put_like(self, record: ImageRecord, name: str) -> None:
        await self.put(
            name,
            digest=record.digest,
            media_type=record.media_type,
            size_bytes=record.size_bytes,
            imported=record.imported,
            owner=record.labels.get(OWNER_LABEL, ""),
        )

    async def _delete_record(self, name: str, *, sync: bool) -> None:
        try:
            await self._connection.call(
                self._stub.delete,
                DeleteImageRequest(name=name, sync=sync),
                about=f"delete image {name}",
                timeout_s=limits.IMAGE_DELETE_TIMEOUT_S,
            )
        except NotFound:
            return  # somebody else was faster

    async def _describe(self, digest: str) -> _Described:
        manifest = await self._content.read_json(digest)
        if "manifests" in manifest:
            chosen = choose_manifest(manifest["manifests"], self.architecture)
            manifest = await self._content.read_json(chosen)
        config_digest, size_bytes = manifest_facts(manifest)
        config, diff_ids = parse_config(await self._content.read(config_digest))
        return _Described(config_digest, chain_id(diff_ids), size_bytes, config)


def is_tag(name: str) -> bool:
    """Whether a record's name was given by a person, not made from a digest or an id."""
    return "@" not in name and not name.startswith("sha256:")


def _home(name: str) -> str:
    """Registry and repository of a record's name; empty for an id.

    >>> _home("docker.io/library/hello:1")
    'docker.io/library/hello'
    """
    if name.startswith("sha256:"):
        return ""
    try:
        return references.parse(name).home
    except InvalidRequest:
        return ""  # another program's name: it lends nothing


def chain_id(diff_ids: Sequence[str]) -> str:
    """The name of the snapshot that holds these layers, lowest first (image-spec, config.md).

    >>> chain_id(["sha256:aa"])
    'sha256:aa'
    """
    if not diff_ids:
        return ""
    chain = diff_ids[0]
    for diff_id in diff_ids[1:]:
        chain = f"sha256:{hashlib.sha256(f'{chain} {diff_id}'.encode()).hexdigest()}"
    return chain


def choose_manifest(manifests: Any, architecture: str) -> str:
    """The digest of the entry for linux on this architecture. Raises ``ImageNotFound``.

    An entry without a platform fits everywhere; attestations have the platform "unknown".
    """
    if not isinstance(manifests, list):
        raise InvalidImage("the image's index has no list of manifests")
    fallback = ""
    offered: list[str] = []
    for entry in manifests:
        if not isinstance(entry, dict) or not isinstance(entry.get("digest"), str):
            raise InvalidImage("the image's index has a malformed entry")
        target = entry.get("platform")
        if not isinstance(target, dict):
            fallback = fallback or entry["digest"]
            continue
        offered.append(f"{target.get('os')}/{target.get('architecture')}")
        if target.get("os") == "linux" and target.get("architecture") == architecture:
            digest: str = entry["digest"]
            return digest
    if fallback:
        return fallback
    raise ImageNotFound(
        f"the image is not for linux/{architecture}, only for {', '.join(offered) or 'nothing'}"
    )


def manifest_facts(manifest: Mapping[str, Any]) -> tuple[str, int]:
    """The config's digest, and the packed size of config and layers in bytes."""
    try:
        parts = [manifest["config"], *manifest["layers"]]
        sizes = [int(part["size"]) for part in parts]
        digest = str(manifest["config"]["digest"])
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidImage(f"the image's manifest is malformed: {error!r}") from error
    return digest, sum(sizes)


def _read(message: ImageMessage) -> ImageRecord:
    target = message.target or ContentDescriptor()
    return ImageRecord(
        message.name, target.digest, target.media_type, dict(message.labels), message.created_at, target.size
    )
