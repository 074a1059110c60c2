"""The images of an archive, in the form of the OCI image spec.

Both kinds of archive end up as ``ArchiveImage``: an OCI layout has a manifest already,
for ``docker save`` one is written here. Which layers are really there, and whether they
are what the config says, is checked before anything is stored.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cloudless.containerd import limits, references
from cloudless.containerd.archive import Archive, Place, blob_name, checked_list, checked_object
from cloudless.containerd.errors import InvalidImage, InvalidRequest
from cloudless.containerd.imageconfig import parse_config
from cloudless.containerd.images import choose_manifest
from cloudless.containerd.layers import LayerFacts, inspect_layer
from cloudless.containerd.untrusted import read_json

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
OCI_LAYER_GZIP = f"{OCI_LAYER}+gzip"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"

#: Where tools put an image's full name in an OCI layout, the more reliable first.
NAME_ANNOTATIONS = ("io.containerd.image.name", "org.opencontainers.image.ref.name")


@dataclass(frozen=True)
class ArchiveLayer:
    """One layer: where it is, and what it was found to be."""

    place: Place
    facts: LayerFacts


@dataclass(frozen=True)
class ArchiveImage:
    """Ready to be stored; ``names`` are full ones and may be none."""

    names: tuple[str, ...]
    manifest: bytes
    media_type: str
    config: bytes
    layers: tuple[ArchiveLayer, ...]

    @property
    def digest(self) -> str:
        """Of the manifest."""
        return _sha256(self.manifest)

    @property
    def config_digest(self) -> str:
        """Of the config: the image's id."""
        return _sha256(self.config)


def read_images(archive: Archive, architecture: str, cancelled: threading.Event) -> tuple[ArchiveImage, ...]:
    """Every image in the archive that runs on linux and ``architecture``; slow, for a thread.

    Raises ``InvalidImage``, ``ImageNotFound`` (an image is for other platforms only).
    """
    if "index.json" in archive:
        return _read_layout(archive, architecture, cancelled)
    if "manifest.json" in archive:
        return _read_docker(archive, cancelled)
    raise InvalidImage("this is neither an OCI nor a docker image archive: no index.json, no manifest.json")


def _read_layout(archive: Archive, architecture: str, cancelled: threading.Event) -> tuple[ArchiveImage, ...]:
    index = checked_object(archive.read_json("index.json"), "index.json")
    entries = checked_list(index.get("manifests"), "index.json: manifests", limits.MAX_IMAGES_IN_ARCHIVE)
    docker_names = _docker_names(archive)
    found: dict[str, ArchiveImage] = {}
    for raw in entries:
        entry = checked_object(raw, "index.json: a manifest")
        digest = str(entry.get("digest"))
        data = archive.read_blob(digest)
        manifest = _decode(data, digest)
        if "manifests" in manifest:
            digest = choose_manifest(manifest["manifests"], architecture)
            data = archive.read_blob(digest)
            manifest = _decode(data, digest)
        names = _annotated_names(entry)
        image = found.get(digest) or _read_manifest(archive, data, manifest, cancelled)
        names = names or docker_names.get(image.config_digest, ())
        found[digest] = ArchiveImage(
            names=tuple(dict.fromkeys((*image.names, *names))),
            manifest=image.manifest,
            media_type=image.media_type,
            config=image.config,
            layers=image.layers,
        )
    return tuple(found.values())


def _read_manifest(
    archive: Archive, data: bytes, manifest: Mapping[str, Any], cancelled: threading.Event
) -> ArchiveImage:
    config_entry = checked_object(manifest.get("config"), "the manifest's config")
    config = archive.read_blob(str(config_entry.get("digest")))
    entries = checked_list(manifest.get("layers"), "the manifest's layers", limits.MAX_LAYERS)
    wanted = [str(checked_object(entry, "a layer").get("digest")) for entry in entries]
    layers = _inspect(archive, [archive.place(blob_name(digest)) for digest in wanted], config, cancelled)
    for digest, one in zip(wanted, layers, strict=True):
        if one.facts.digest != digest:
            raise InvalidImage(f"blob {digest} is damaged")
    media_type = str(manifest.get("mediaType") or OCI_MANIFEST)
    if media_type not in (OCI_MANIFEST, DOCKER_MANIFEST):
        raise InvalidImage(f"a manifest of type {media_type!r} is not an image")
    return ArchiveImage((), data, media_type, config, layers)


def _read_docker(archive: Archive, cancelled: threading.Event) -> tuple[ArchiveImage, ...]:
    images = []
    for raw in _docker_manifest(archive):
        entry = checked_object(raw, "manifest.json: an image")
        config = archive.read(str(entry.get("Config")))
        names = checked_list(entry.get("Layers"), "manifest.json: Layers", limits.MAX_LAYERS)
        layers = _inspect(archive, [archive.place(str(name)) for name in names], config, cancelled)
        manifest = write_manifest(config, [one.facts for one in layers])
        images.append(ArchiveImage(_repo_tags(entry), manifest, OCI_MANIFEST, config, layers))
    return tuple(images)


def write_manifest(config: bytes, layers: list[LayerFacts]) -> bytes:
    """The OCI manifest of an image that came without one. The same image gives the same bytes."""
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": OCI_CONFIG, "digest": _sha256(config), "size": len(config)},
        "layers": [
            {
                "mediaType": OCI_LAYER_GZIP if layer.compressed else OCI_LAYER,
                "digest": layer.digest,
                "size": layer.size_bytes,
            }
            for layer in layers
        ],
    }
    return json.dumps(manifest, separators=(",", ":")).encode()


def _inspect(
    archive: Archive, places: list[Place], config: bytes, cancelled: threading.Event
) -> tuple[ArchiveLayer, ...]:
    _, diff_ids = parse_config(config)
    if len(diff_ids) != len(places):
        raise InvalidImage(f"the config names {len(diff_ids)} layers, the archive {len(places)}")
    layers: list[ArchiveLayer] = []
    unpacked = 0
    for place, diff_id in zip(places, diff_ids, strict=True):
        facts = inspect_layer(
            archive.handle, place.offset, place.size_bytes, cancelled, unpacked_before=unpacked
        )
        if facts.diff_id != diff_id:
            raise InvalidImage(f"a layer is damaged: it is {facts.diff_id}, the config says {diff_id}")
        unpacked += facts.unpacked_bytes
        layers.append(ArchiveLayer(place, facts))
    return tuple(layers)


def _docker_manifest(archive: Archive) -> list[Any]:
    return checked_list(archive.read_json("manifest.json"), "manifest.json", limits.MAX_IMAGES_IN_ARCHIVE)


def _docker_names(archive: Archive) -> dict[str, tuple[str, ...]]:
    """Config digest -> names, of an archive that is both a layout and a ``docker save``."""
    if "manifest.json" not in archive:
        return {}
    names: dict[str, tuple[str, ...]] = {}
    for raw in _docker_manifest(archive):
        entry = checked_object(raw, "manifest.json: an image")
        names[_sha256(archive.read(str(entry.get("Config"))))] = _repo_tags(entry)
    return names


def _repo_tags(entry: Mapping[str, Any]) -> tuple[str, ...]:
    tags = checked_list(entry.get("RepoTags") or [], "manifest.json: RepoTags", limits.MAX_IMAGES_IN_ARCHIVE)
    return tuple(_full_name(str(tag)) for tag in tags)


def _annotated_names(entry: Mapping[str, Any]) -> tuple[str, ...]:
    annotations = checked_object(entry.get("annotations") or {}, "index.json: annotations")
    for key in NAME_ANNOTATIONS:
        value = annotations.get(key)
        # The second may be a bare tag, which names nothing.
        if isinstance(value, str) and ("/" in value or ":" in value):
            return (_full_name(value),)
    return ()


def _full_name(name: str) -> str:
    try:
        return references.parse(name).name
    except InvalidRequest as error:
        raise InvalidImage(f"the archive names an image badly: {error.message}") from error


def _decode(data: bytes, digest: str) -> Mapping[str, Any]:
    what = f"manifest {digest}"
    return checked_object(read_json(data, what), what)


def _sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
