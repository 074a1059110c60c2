"""``cloudless reset`` on a containerd that others use too: what this node brought goes, and nothing else."""

from __future__ import annotations

import asyncio
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

import pytest
from tests.integration.conftest import RunningContainerd, open_client, running_containerd
from tests.integration.containerd.registry import Registry
from tests.integration.program.conftest import IMAGE
from tests.integration.program.served import Served, run_cli
from tests.integration.program.test_images import built


@pytest.fixture
def foreign() -> Iterator[RunningContainerd]:
    """Not the one that all tests share: what that holds depends on which were run before."""
    with running_containerd() as daemon:
        yield daemon


@pytest.fixture
def guest(foreign: RunningContainerd) -> Iterator[Served]:
    """A program that uses somebody else's containerd."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="cls-"))
    made = Served(folder / "guest", containerd=str(foreign.socket))
    try:
        made.start()
        yield made
    finally:
        made.end()
        shutil.rmtree(folder)


def names(socket: pathlib.Path) -> set[str]:
    """All names in the image store."""

    async def read() -> set[str]:
        async with open_client(socket) as client:
            return {one.name for one in await client.images.list()}

    return asyncio.run(read())


def asked(socket: pathlib.Path, what: str, *words: str) -> None:
    """Somebody else does something with this containerd."""

    async def ask() -> None:
        async with open_client(socket) as client:
            match what:
                case "pull":
                    await client.puller.pull(words[0])
                case "run":
                    name, image = words
                    await client.containers.create(name, image=image, spec=b"{}", snapshot_key="", labels={})
                case "remove":
                    await client.containers.delete(words[0])

    asyncio.run(ask())


def test_a_foreign_containerd_keeps_what_is_not_ours(
    guest: Served,
    foreign: RunningContainerd,
    image_archive: pathlib.Path,
    registry: Registry,
) -> None:
    socket = foreign.socket
    theirs = registry.push("team/theirs", "v", built("theirs"))
    asked(socket, "pull", theirs)
    before = names(socket)
    assert theirs in before
    guest.cli("image", "pull", theirs)  # was there before: it stays theirs
    ours = registry.push("team/ours", "v", built("one"))
    guest.cli("image", "pull", ours)
    registry.push("team/ours", "v", built("two"))
    guest.cli("image", "pull", ours)  # the tag moves, and what it meant is kept by its digest
    used = registry.push("team/used", "v", built("used"))
    guest.cli("image", "pull", used)
    guest.cli("image", "import", str(image_archive))
    assert {ours, used, IMAGE} <= names(socket)
    asked(socket, "run", "somebody-elses", used)
    guest.kill(15)
    result = run_cli("reset", "--data-dir", str(guest.data_dir), "--containerd", str(socket), "--yes")
    try:
        assert result.code == 0, result.said
        left = names(socket)
        assert before <= left
        new = {name for name in left - before if "team/used" not in name}
        assert all(name.startswith("sha256:") for name in new), new  # that of the used one
        assert len(new) <= 1
        assert not {ours, IMAGE} & left
        assert f"left image {used}: a container that is not ours uses it" in result.out
        assert f"images that this node did not bring to {socket} (ctr --address {socket}" in result.out
        assert f"removed 2 images from {socket}" in result.out
    finally:
        asked(socket, "remove", "somebody-elses")
