"""One program, started by somebody careless: no umask, and its own folder among the allowed ones."""

from __future__ import annotations

import io
import os
import pathlib
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator

import pytest
from tests.integration.containerd import imagebuild
from tests.integration.program.conftest import image_archive as image_archive
from tests.integration.program.conftest import serve_all as serve_all
from tests.integration.program.served import Served


@pytest.fixture(scope="session")
def shared() -> Iterator[pathlib.Path]:
    """An allowed folder of the node; not in /tmp, which is allowed as a whole."""
    parent = pathlib.Path(tempfile.mkdtemp(prefix="cls-", dir="/var/tmp"))
    for name in ("shared", "shared-evil"):
        (parent / name).mkdir()
    (parent / "shared" / "link").symlink_to("/etc")
    yield parent / "shared"
    shutil.rmtree(parent)


@pytest.fixture(scope="session")
def victim(serve_all: Callable[..., Served], shared: pathlib.Path) -> Served:
    """The program under attack: its data directory lies in /tmp."""
    before = os.umask(0)
    try:
        return serve_all("--host-path", str(shared), "--host-path", tempfile.gettempdir(), name="victim")
    finally:
        os.umask(before)


@pytest.fixture
def attacked(victim: Served) -> Iterator[Served]:
    """The program; what a test made is gone after it."""
    yield victim
    items = victim.cli("get", "workloads", "-o", "json").json["items"]
    names = [one["name"] for one in items]
    if names:
        victim.cli("delete", *names, "--grace", "0s", "--wait", "--ignore-missing", "-q")


def tar(*entries: tuple[str, bytes, str]) -> bytes:
    """A layer of raw entries: name, type, and the target of a link."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, kind, target in entries:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            archive.addfile(info)
    return buffer.getvalue()


@pytest.fixture
def image(attacked: Served, tmp_path: pathlib.Path) -> Callable[..., str]:
    """Makes and imports an image: busybox, further layers, settings of its config."""

    def make(name: str, *layers: bytes, **settings: object) -> str:
        full = f"docker.io/attack/{name}:1"
        path = tmp_path / f"{name}.tar"
        imagebuild.docker_archive(path, full, [imagebuild.busybox_layer(), *layers], **settings)
        attacked.cli("image", "import", str(path))
        return full

    return make
