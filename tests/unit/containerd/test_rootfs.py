from __future__ import annotations

import os
import pathlib

import pytest

from cloudless.containerd.errors import InvalidImage
from cloudless.containerd.rootfs import layer_folders, read_container, read_layers
from cloudless.containerd.snapshots import Mount


@pytest.fixture
def layers(tmp_path: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """An upper and a lower layer, and a secret beside them."""
    upper, lower = tmp_path / "upper", tmp_path / "lower"
    (upper / "etc").mkdir(parents=True)
    (lower / "etc").mkdir(parents=True)
    (lower / "etc/passwd").write_text("lower")
    (tmp_path / "secret").write_text("secret")
    return upper, lower


def read(
    layers: tuple[pathlib.Path, pathlib.Path], path: str = "/etc/passwd", limit: int = 100
) -> bytes | None:
    return read_layers([str(layer) for layer in layers], path, limit)


def test_the_upper_layer_wins(layers: tuple[pathlib.Path, pathlib.Path]) -> None:
    assert read(layers) == b"lower"
    (layers[0] / "etc/passwd").write_text("upper")
    assert read(layers) == b"upper"


def test_links_stay_inside(layers: tuple[pathlib.Path, pathlib.Path]) -> None:
    upper, lower = layers
    (upper / "etc/passwd").symlink_to("../../../../secret")
    assert read(layers) is None
    (upper / "etc/passwd").unlink()
    (upper / "etc/passwd").symlink_to(str(lower.parent / "secret"))
    assert read(layers) is None
    (upper / "etc/passwd").unlink()
    (upper / "etc/passwd").symlink_to("/usr/lib/accounts")
    (lower / "usr").mkdir()
    (lower / "usr/lib").symlink_to("share")
    (lower / "usr/share").mkdir()
    (lower / "usr/share/accounts").write_text("linked")
    assert read(layers) == b"linked"


def test_a_link_to_itself_ends(layers: tuple[pathlib.Path, pathlib.Path]) -> None:
    (layers[0] / "etc/passwd").symlink_to("passwd")
    assert read(layers) is None


def test_a_file_above_hides_a_folder_below_and_the_reverse(layers: tuple[pathlib.Path, pathlib.Path]) -> None:
    upper, lower = layers
    (lower / "x").mkdir()
    (lower / "x/f").write_text("f")
    (upper / "x").write_text("a file")
    assert read(layers, "/x") == b"a file"
    assert read(layers, "/x/f") is None
    (lower / "y").write_text("below")
    (upper / "y").mkdir()
    assert read(layers, "/y") is None


def test_whiteouts_hide(layers: tuple[pathlib.Path, pathlib.Path]) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to make a whiteout")
    os.mknod(layers[0] / "etc/passwd", 0o20600, os.makedev(0, 0))
    assert read(layers) is None


def test_opaque_folders_hide(layers: tuple[pathlib.Path, pathlib.Path]) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to mark a folder")
    os.setxattr(layers[0] / "etc", "trusted.overlay.opaque", b"y")
    assert read(layers) is None


def test_only_regular_files_up_to_the_limit(layers: tuple[pathlib.Path, pathlib.Path]) -> None:
    assert read(layers, limit=5) == b"lower"
    with pytest.raises(InvalidImage):
        read(layers, limit=4)
    os.mkfifo(layers[0] / "etc/passwd")
    assert read(layers) is None
    assert read(layers, "/etc") is None
    assert read(layers, "/" + "x" * 300) is None


def test_a_running_root_is_not_left(tmp_path: pathlib.Path) -> None:
    pid = os.getpid()
    (tmp_path / "f").write_text("here")
    assert read_container(pid, str(tmp_path / "f"), 10) == b"here"
    assert read_container(pid, "/../../../.." + str(tmp_path / "f"), 10) == b"here"
    assert read_container(pid, f"/proc/{pid}/root/etc/passwd", 10**6) is None  # through a magic link
    os.mkfifo(tmp_path / "pipe")
    assert read_container(pid, str(tmp_path / "pipe"), 10) is None
    assert read_container(pid, "/no/such/file", 10) is None


def test_kinds_of_mounts() -> None:
    assert layer_folders([Mount("bind", "/a/fs", ("ro", "rbind"))]) == ("/a/fs",)
    with pytest.raises(InvalidImage):
        layer_folders([Mount("ext4", "/dev/x", ())])
    with pytest.raises(InvalidImage):
        layer_folders([])
