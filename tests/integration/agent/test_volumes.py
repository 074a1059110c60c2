"""Folders of the node in the kernel: bound, swapped under way, and never deleted."""

from __future__ import annotations

import os
import pathlib
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from cloudless.agent.replica import mounts, volumes
from cloudless.agent.runtime.errors import NotEnforced, StartFailed
from cloudless.domain.workload import Volume


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    folder = tmp_path / "replica"
    folder.mkdir()
    yield folder
    mounts.unmount_below(folder)


def volume(**source: Any) -> tuple[Volume, ...]:
    return (Volume.model_validate({"name": "v", "mount_path": "/v", **source}),)


def test_what_is_bound_survives_its_removal(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    precious = tmp_path / "shared" / "inner"
    precious.mkdir(parents=True)
    (precious / "file").write_text("keep")
    wanted = volume(host_path={"path": str(precious)})
    for _ in range(2):
        (made,) = volumes.prepare(folder, wanted, (str(tmp_path / "shared"),))
        assert made.source is not None
        assert (pathlib.Path(made.source) / "file").read_text() == "keep"
        assert len(mounts.mounted_below(folder)) == 1
    volumes.remove(folder)
    assert not folder.exists()
    assert (precious / "file").read_text() == "keep"


@pytest.mark.parametrize("asked", ["", "data", "data/agent", "alias"])
def test_the_nodes_own_folders_are_never_given(
    folder: pathlib.Path, tmp_path: pathlib.Path, asked: str
) -> None:
    """Neither they, nor what is in them, nor what they are in; an allowed link changes nothing."""
    allowed = tmp_path / "srv"
    (allowed / "data" / "agent").mkdir(parents=True)
    (allowed / "fine").mkdir()
    (tmp_path / "alias").symlink_to(allowed / "data")
    path = str(tmp_path / "alias" if asked == "alias" else allowed / asked).rstrip("/")
    prefixes = (str(allowed), str(tmp_path / "alias"))
    with pytest.raises(NotEnforced, match="the node's own"):
        volumes.prepare(folder, volume(host_path={"path": path}), prefixes, (allowed / "data",))
    assert not mounts.mounted_below(folder)
    volumes.prepare(folder, volume(host_path={"path": f"{allowed}/fine"}), prefixes, (allowed / "data",))


def test_nothing_is_deleted_while_something_stays_mounted(
    folder: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    precious = tmp_path / "shared"
    precious.mkdir()
    (precious / "file").write_text("keep")
    volumes.prepare(folder, volume(host_path={"path": str(precious)}), (str(precious),))
    with monkeypatch.context() as patched:
        patched.setattr(mounts, "_umount", lambda point: None)
        with pytest.raises(OSError, match="still mounted"):
            volumes.remove(folder)
    assert (precious / "file").read_text() == "keep"


def test_a_folder_made_anew_is_bound_anew(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    shared = tmp_path / "shared"
    wanted = volume(host_path={"path": str(shared)})
    for text in ("one", "two"):
        shared.mkdir()
        (shared / "file").write_text(text)
        (made,) = volumes.prepare(folder, wanted, (str(shared),))
        assert made.source is not None
        assert (pathlib.Path(made.source) / "file").read_text() == text
        (shared / "file").unlink()
        shared.rmdir()


def test_a_size_is_a_limit_and_lives_as_long_as_the_replica(folder: pathlib.Path) -> None:
    wanted = volume(empty_dir={"size_bytes": "64Ki"})
    (made,) = volumes.prepare(folder, wanted, ())
    assert made.source is not None
    (pathlib.Path(made.source) / "file").write_text("x")
    with pytest.raises(OSError, match="No space left"):
        (pathlib.Path(made.source) / "big").write_bytes(bytes(1 << 20))
    (pathlib.Path(made.source) / "big").unlink()
    assert volumes.prepare(folder, wanted, ()) == [made]
    assert (pathlib.Path(made.source) / "file").read_text() == "x"
    volumes.remove(folder)
    assert not folder.exists()


def test_a_path_that_is_not_there(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    with pytest.raises(StartFailed, match="No such file"):
        volumes.prepare(folder, volume(host_path={"path": f"{tmp_path}/none"}), (str(tmp_path),))


def test_a_swap_under_way_never_leads_outside(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    shared, outside = tmp_path / "shared", tmp_path / "outside"
    (shared / "real").mkdir(parents=True)
    (shared / "real" / "mark").touch()
    outside.mkdir()
    (shared / "link").symlink_to(outside)
    wanted = volume(host_path={"path": f"{shared}/name"})
    over = threading.Event()

    def swap() -> None:
        while not over.is_set():
            for name in ("real", "link"):
                os.rename(shared / name, shared / "name")
                os.rename(shared / "name", shared / name)

    swapping = threading.Thread(target=swap)
    swapping.start()
    seen = {"bound": 0, "refused": 0}
    try:
        for _ in range(3000):
            try:
                (made,) = volumes.prepare(folder, wanted, (str(shared),))
            except (NotEnforced, StartFailed):
                seen["refused"] += 1
                continue
            assert made.source is not None
            assert os.path.exists(f"{made.source}/mark")
            seen["bound"] += 1
    finally:
        over.set()
        swapping.join()
    assert all(seen.values()), seen
