"""Builds small image archives for tests: layers as tars, in both archive formats."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import pathlib
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

BUSYBOX = pathlib.Path("/bin/busybox")
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


@dataclass(frozen=True)
class Entry:
    """One file of a layer; a link when ``link`` is given, a folder when ``data`` is None."""

    data: bytes | None = b""
    mode: int = 0o644
    link: str = ""


def layer(entries: Mapping[str, Entry]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, entry in entries.items():
            info = tarfile.TarInfo(name)
            info.mode = entry.mode
            if entry.link:
                info.type, info.linkname = tarfile.SYMTYPE, entry.link
                archive.addfile(info)
            elif entry.data is None:
                info.type = tarfile.DIRTYPE
                archive.addfile(info)
            else:
                info.size = len(entry.data)
                archive.addfile(info, io.BytesIO(entry.data))
    return buffer.getvalue()


def busybox_layer(applets: Sequence[str] = ()) -> bytes:
    names = (
        applets
        or subprocess.run([str(BUSYBOX), "--list"], check=True, capture_output=True, text=True).stdout.split()
    )
    entries = {
        "bin": Entry(None, 0o755),
        "etc": Entry(None, 0o755),
        "tmp": Entry(None, 0o1777),
        "root": Entry(None, 0o700),
        "bin/busybox": Entry(BUSYBOX.read_bytes(), 0o755),
        "etc/passwd": Entry(b"root:x:0:0:root:/root:/bin/sh\nweb:x:1001:1002:web:/home/web:/bin/sh\n"),
        "etc/group": Entry(b"root:x:0:\nweb:x:1002:\nlog:x:1005:web,root\n"),
    }
    entries |= {f"bin/{name}": Entry(link="busybox") for name in names if name != "busybox"}
    return layer(entries)


def config(layers: Sequence[bytes], **settings: Any) -> bytes:
    defaults = {"Env": ["PATH=/bin", "FROM_IMAGE=yes"], "Cmd": ["sh"], "WorkingDir": "/"}
    body = {
        "architecture": "amd64",
        "os": "linux",
        "config": {**defaults, **settings},
        "rootfs": {"type": "layers", "diff_ids": [sha256(one) for one in layers]},
    }
    return json.dumps(body).encode()


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def docker_archive(path: pathlib.Path, name: str, layers: Sequence[bytes], **settings: Any) -> pathlib.Path:
    """As ``docker save`` writes it."""
    body = config(layers, **settings)
    files = {f"{sha256(one)[7:]}/layer.tar": Entry(one) for one in layers}
    config_name = f"{sha256(body)[7:]}.json"
    files[config_name] = Entry(body)
    manifest = [{"Config": config_name, "RepoTags": [name], "Layers": [*list(files)[: len(layers)]]}]
    files["manifest.json"] = Entry(json.dumps(manifest).encode())
    path.write_bytes(layer(files))
    return path


@dataclass(frozen=True)
class OciImage:
    """Blobs by digest, and the manifest that ties them."""

    blobs: Mapping[str, bytes]
    manifest: bytes

    @property
    def digest(self) -> str:
        return sha256(self.manifest)


def oci_image(layers: Sequence[bytes], **settings: Any) -> OciImage:
    body = config(layers, **settings)
    packed = [gzip.compress(one, 1, mtime=0) for one in layers]
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": OCI_CONFIG, "digest": sha256(body), "size": len(body)},
        "layers": [{"mediaType": OCI_LAYER, "digest": sha256(one), "size": len(one)} for one in packed],
    }
    return OciImage(
        {sha256(body): body, **{sha256(one): one for one in packed}}, json.dumps(manifest).encode()
    )


def oci_archive(path: pathlib.Path, name: str, layers: Sequence[bytes], **settings: Any) -> pathlib.Path:
    """An OCI image layout in a tar."""
    image = oci_image(layers, **settings)
    entry = {
        "mediaType": OCI_MANIFEST,
        "digest": image.digest,
        "size": len(image.manifest),
        "platform": {"os": "linux", "architecture": "amd64"},
        "annotations": {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name},
    }
    index = {"schemaVersion": 2, "manifests": [entry]}
    files = {
        "oci-layout": Entry(b'{"imageLayoutVersion":"1.0.0"}'),
        "index.json": Entry(json.dumps(index).encode()),
    }
    for digest, data in {**image.blobs, image.digest: image.manifest}.items():
        files[f"blobs/sha256/{digest[7:]}"] = Entry(data)
    path.write_bytes(layer(files))
    return path
