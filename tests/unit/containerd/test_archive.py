"""Archives of strangers: what is in them, and what they may not do."""

from __future__ import annotations

import dataclasses
import gzip
import io
import json
import pathlib
import tarfile
import threading
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.integration.containerd import imagebuild
from tests.integration.containerd.imagebuild import Entry

from cloudless.containerd import archiveimages, limits
from cloudless.containerd.archive import Archive
from cloudless.containerd.archiveimages import ArchiveImage, read_images
from cloudless.containerd.errors import ImageNotFound, InvalidImage

LAYERS = [imagebuild.layer({"a": Entry(b"one")}), imagebuild.layer({"b": Entry(b"two" * 1000)})]


def read(path: pathlib.Path, architecture: str = "amd64") -> tuple[ArchiveImage, ...]:
    cancelled = threading.Event()
    with Archive(path, path.parent, cancelled) as archive:
        return read_images(archive, architecture, cancelled)


def rewrite(path: pathlib.Path, changes: dict[str, bytes | None]) -> pathlib.Path:
    """The archive with files replaced, added or removed."""
    with tarfile.open(path) as archive:
        files = {}
        for member in archive.getmembers():
            data = archive.extractfile(member)
            assert data is not None
            files[member.name] = Entry(data.read())
    for name, content in changes.items():
        files.pop(name, None)
        if content is not None:
            files[name] = Entry(content)
    path.write_bytes(imagebuild.layer(files))
    return path


def change_json(path: pathlib.Path, name: str, **changes: Any) -> pathlib.Path:
    with tarfile.open(path) as archive:
        data = archive.extractfile(name)
        assert data is not None
        body = json.loads(data.read())
    target = body[0] if isinstance(body, list) else body
    target.update(changes)
    return rewrite(path, {name: json.dumps(body).encode()})


def test_both_kinds_give_the_same_image(tmp_path: pathlib.Path) -> None:
    (docker,) = read(imagebuild.docker_archive(tmp_path / "d.tar", "example.com/x:v1", LAYERS))
    (oci,) = read(imagebuild.oci_archive(tmp_path / "o.tar", "example.com/x:v1", LAYERS))
    assert docker.names == oci.names == ("example.com/x:v1",)
    assert docker.config == oci.config
    assert [one.facts.diff_id for one in docker.layers] == [one.facts.diff_id for one in oci.layers]
    assert [one.facts.compressed for one in docker.layers] == [False, False]
    assert [one.facts.compressed for one in oci.layers] == [True, True]


def test_a_manifest_is_written_for_docker(tmp_path: pathlib.Path) -> None:
    (image,) = read(imagebuild.docker_archive(tmp_path / "d.tar", "nginx", LAYERS))
    manifest = json.loads(image.manifest)
    assert image.names == ("docker.io/library/nginx:latest",)
    assert manifest["mediaType"] == archiveimages.OCI_MANIFEST
    assert manifest["config"]["digest"] == imagebuild.sha256(image.config)
    assert [one["digest"] for one in manifest["layers"]] == [imagebuild.sha256(one) for one in LAYERS]
    assert [one["size"] for one in manifest["layers"]] == [len(one) for one in LAYERS]
    assert image.digest == imagebuild.sha256(image.manifest)


def test_links_between_layers_of_old_archives(tmp_path: pathlib.Path) -> None:
    body = imagebuild.config([LAYERS[0], LAYERS[0]])
    files = {
        "first/layer.tar": Entry(LAYERS[0]),
        "second/layer.tar": Entry(link="../first/layer.tar"),
        "c.json": Entry(body),
        "manifest.json": Entry(
            json.dumps(
                [{"Config": "c.json", "RepoTags": None, "Layers": ["first/layer.tar", "second/layer.tar"]}]
            ).encode()
        ),
    }
    path = tmp_path / "d.tar"
    path.write_bytes(imagebuild.layer(files))
    (image,) = read(path)
    assert image.names == ()
    assert image.layers[0].place == image.layers[1].place


def test_a_gzipped_archive(tmp_path: pathlib.Path) -> None:
    path = imagebuild.docker_archive(tmp_path / "d.tar", "x", LAYERS)
    path.write_bytes(gzip.compress(path.read_bytes()))
    assert len(read(path)) == 1
    assert [one.name for one in tmp_path.iterdir()] == ["d.tar"]


def test_the_right_one_of_an_index_of_platforms(tmp_path: pathlib.Path) -> None:
    path = imagebuild.oci_archive(tmp_path / "o.tar", "x", LAYERS)
    image = imagebuild.oci_image(LAYERS)
    platforms = [{"os": "unknown", "architecture": "unknown"}, {"os": "linux", "architecture": "amd64"}]
    inner = {
        "manifests": [
            {"digest": "sha256:" + "0" * 64 if n == 0 else image.digest, "platform": platform}
            for n, platform in enumerate(platforms)
        ]
    }
    data = json.dumps(inner).encode()
    entry = {"digest": imagebuild.sha256(data), "annotations": {"io.containerd.image.name": "multi"}}
    rewrite(path, {f"blobs/sha256/{imagebuild.sha256(data)[7:]}": data})
    change_json(path, "index.json", manifests=[entry])
    (found,) = read(path)
    assert found.digest == image.digest
    with pytest.raises(ImageNotFound, match="arm64"):
        read(path, "arm64")


@pytest.mark.parametrize(
    "changes",
    [
        {"index.json": None, "oci-layout": None},
        {"index.json": b"{"},
        {"index.json": b"[]"},
        {"index.json": b'{"manifests": 5}'},
        {"index.json": b'{"manifests": [5]}'},
        {"index.json": b'{"manifests": [{"digest": "sha256:../../etc/passwd"}]}'},
        {"index.json": b'{"manifests": [{"digest": "md5:00"}]}'},
    ],
)
def test_malformed_layouts(tmp_path: pathlib.Path, changes: dict[str, bytes | None]) -> None:
    with pytest.raises(InvalidImage):
        read(rewrite(imagebuild.oci_archive(tmp_path / "o.tar", "x", LAYERS), changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"Config": "../../etc/passwd"},
        {"Config": 5},
        {"Layers": ["nowhere"]},
        {"Layers": "text"},
        {"Layers": []},
        {"Layers": ["x"] * 1000},
        {"RepoTags": ["UPPER:case"]},
        {"RepoTags": 7},
    ],
)
def test_malformed_docker_archives(tmp_path: pathlib.Path, changes: dict[str, Any]) -> None:
    path = imagebuild.docker_archive(tmp_path / "d.tar", "x", LAYERS)
    with pytest.raises(InvalidImage):
        read(change_json(path, "manifest.json", **changes))


def test_a_changed_blob_is_noticed(tmp_path: pathlib.Path) -> None:
    path = imagebuild.oci_archive(tmp_path / "o.tar", "x", LAYERS)
    image = imagebuild.oci_image(LAYERS)
    for digest, data in {**image.blobs, image.digest: image.manifest}.items():
        name = f"blobs/sha256/{digest[7:]}"
        other = gzip.compress(LAYERS[1], 9) if data[:2] == b"\x1f\x8b" else data + b" "
        rewrite(path, {name: other})
        with pytest.raises(InvalidImage):
            read(path)
        rewrite(path, {name: data})
    assert read(path)


def test_a_layer_that_is_not_what_the_config_says(tmp_path: pathlib.Path) -> None:
    path = imagebuild.docker_archive(tmp_path / "d.tar", "x", LAYERS)
    name = f"{imagebuild.sha256(LAYERS[0])[7:]}/layer.tar"
    with pytest.raises(InvalidImage, match="damaged"):
        read(rewrite(path, {name: LAYERS[1]}))


def test_a_bomb_is_refused_by_its_ratio(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "RATIO_FLOOR_BYTES", 1 << 20)
    bomb = imagebuild.layer({"zeros": Entry(bytes(8 << 20))})
    with pytest.raises(InvalidImage, match="times its size"):
        read(imagebuild.oci_archive(tmp_path / "o.tar", "x", [bomb]))
    path = imagebuild.docker_archive(tmp_path / "d.tar", "x", [bomb])
    path.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(InvalidImage, match="unpacks to more"):
        read(path)


def test_the_size_of_all_layers_counts_together(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_UNPACKED_BYTES", sum(map(len, LAYERS)) - 1)
    with pytest.raises(InvalidImage, match="unpacks to more"):
        read(imagebuild.docker_archive(tmp_path / "d.tar", "x", LAYERS))
    monkeypatch.setattr(limits, "MAX_UNPACKED_BYTES", sum(map(len, LAYERS)))
    assert read(imagebuild.docker_archive(tmp_path / "d.tar", "x", LAYERS))


def test_too_many_entries(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    many = imagebuild.layer({f"f{n}": Entry(b"") for n in range(50)})
    path = imagebuild.docker_archive(tmp_path / "d.tar", "x", [many])
    monkeypatch.setattr(limits, "MAX_LAYER_ENTRIES", 49)
    with pytest.raises(InvalidImage, match="49 entries"):
        read(path)
    monkeypatch.setattr(limits, "MAX_LAYER_ENTRIES", 50)
    monkeypatch.setattr(limits, "MAX_ARCHIVE_ENTRIES", 2)
    with pytest.raises(InvalidImage, match="2 entries"):
        read(path)


def test_a_huge_manifest_is_not_read(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_MANIFEST_BYTES", 100)
    with pytest.raises(InvalidImage, match="larger than 100 bytes"):
        read(imagebuild.docker_archive(tmp_path / "d.tar", "x", LAYERS))


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_of_both_dialects(tmp_path: pathlib.Path, form: int) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for name in ("n" * 300, "é" * 120, "d/" * 90 + "f"):
            info = tarfile.TarInfo(name)
            info.size = 3
            archive.addfile(info, io.BytesIO(b"abc"))
    (image,) = read(imagebuild.docker_archive(tmp_path / "d.tar", "x", [buffer.getvalue()]))
    assert len(image.layers) == 1


def test_sizes_beyond_octal(tmp_path: pathlib.Path) -> None:
    """Nine gigabytes in a header are believed, and then missed."""
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        info = tarfile.TarInfo("big")
        info.size = 9 << 30
        path = imagebuild.docker_archive(tmp_path / "d.tar", "x", [info.tobuf(form) + bytes(1024)])
        with pytest.raises(InvalidImage, match="ends in the middle"):
            read(path)


def test_a_long_header_is_bounded(tmp_path: pathlib.Path) -> None:
    info = tarfile.TarInfo("x")
    info.pax_headers = {"comment": "c" * limits.MAX_TAR_HEADER_BYTES}
    path = tmp_path / "d.tar"
    path.write_bytes(info.tobuf(tarfile.PAX_FORMAT) + bytes(1024))
    with pytest.raises(InvalidImage, match="header larger"):
        read(path)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, 6000), value=st.binary(min_size=1, max_size=8))
def test_any_damage_is_noticed_or_harmless(tmp_path: pathlib.Path, position: int, value: bytes) -> None:
    path = imagebuild.docker_archive(tmp_path / "d.tar", "x", LAYERS)
    (whole,) = read(path)
    data = bytearray(path.read_bytes())
    data[position : position + len(value)] = value
    path.write_bytes(data)
    try:
        found = read(path)
    except InvalidImage:
        return
    for image in found:
        # Whatever was read is exactly what it says it is.
        assert [one.facts for one in image.layers] == [one.facts for one in whole.layers]
        assert dataclasses.replace(image, names=()).config_digest == imagebuild.sha256(image.config)
