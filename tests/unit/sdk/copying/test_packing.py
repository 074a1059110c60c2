"""What is packed here is what comes out there, by our reader and by tar itself."""

from __future__ import annotations

import os
import pathlib
import subprocess

import pytest
from tests.unit.sdk.copying.archives import members, unpack

from cloudless.sdk.copying.packing import Packer
from cloudless.sdk.copying.places import below
from cloudless.sdk.copying.unpacking import Unpacker

LONG = "a-rather-long-name" * 10


@pytest.fixture
def tree(tmp_path: pathlib.Path) -> pathlib.Path:
    top = tmp_path / "tree"
    (top / "sub").mkdir(parents=True)
    (top / "file").write_bytes(b"content" * 100_000)
    (top / "sub" / LONG).write_text("long")
    (top / "sub" / "-x").write_text("no option")
    (top / "empty").touch(mode=0o600)
    (top / "link").symlink_to("sub/-x")
    (top / "away").symlink_to("/etc/passwd")
    os.utime(top / "file", (1_600_000_000, 1_600_000_000))
    return top


def seen(top: pathlib.Path) -> dict[str, tuple[int, int, bytes | str]]:
    """Everything below a folder: mode, time in seconds, content or target."""
    found: dict[str, tuple[int, int, bytes | str]] = {}
    for path in sorted(top.rglob("*")):
        status = path.lstat()
        content: bytes | str = ""
        if path.is_symlink():
            content = os.readlink(path)
        elif path.is_file():
            content = path.read_bytes()
        mode = 0 if path.is_symlink() else status.st_mode
        found[path.relative_to(top).as_posix()] = (mode, int(status.st_mtime), content)
    return found


async def test_there_and_back(tree: pathlib.Path, tmp_path: pathlib.Path) -> None:
    packer = Packer(str(tree), "copy")
    data = b"".join(packer.pieces())
    assert len(data) % 10240 == 0
    (tmp_path / "out").mkdir()
    with Unpacker(str(tmp_path / "out"), below(""), max_bytes=10**9, all_links=True) as unpacker:
        await unpack(data, unpacker)
    assert seen(tmp_path / "out" / "copy") == seen(tree)
    assert (packer.files, packer.size_bytes) == (unpacker.files, unpacker.size_bytes)


@pytest.mark.parametrize("program", ["tar", "busybox"])
def test_tar_understands_it(tree: pathlib.Path, tmp_path: pathlib.Path, program: str) -> None:
    (tmp_path / "out").mkdir()
    argv = [*(["busybox"] if program == "busybox" else []), "tar", "-x", "-o", "-p", "-f", "-", "-C"]
    data = b"".join(Packer(str(tree), ".").pieces())
    subprocess.run([*argv, str(tmp_path / "out")], input=data, check=True, timeout=30)
    assert seen(tmp_path / "out") == seen(tree)


async def test_a_source_that_is_a_link_is_followed(tree: pathlib.Path, tmp_path: pathlib.Path) -> None:
    (tmp_path / "current").symlink_to("tree/file")
    ((member, content),) = await members(b"".join(Packer(str(tmp_path / "current"), "app").pieces()))
    assert (member.name, member.kind, len(content)) == ("app", "file", 700_000)


async def test_what_is_no_file_is_left_out(tree: pathlib.Path) -> None:
    os.mkfifo(tree / "pipe")
    packer = Packer(str(tree), "tree")
    found = await members(b"".join(packer.pieces()))
    assert "tree/pipe" not in {member.name for member, _ in found}
    assert [(one.name, one.why) for one in packer.left_out] == [
        (str(tree / "pipe"), "is neither file, folder nor link")
    ]


async def test_a_file_that_shrinks_meanwhile(tree: pathlib.Path) -> None:
    packer = Packer(str(tree / "file"), "f")
    pieces = packer.pieces()
    data = next(pieces)
    os.truncate(tree / "file", 0)
    ((_, content),) = await members(data + b"".join(pieces))
    assert len(content) == 700_000
    assert "became shorter" in packer.left_out[0].why


async def test_parents_come_first(tree: pathlib.Path) -> None:
    found = await members(b"".join(Packer(str(tree / "empty"), ".aside/empty", (".aside",)).pieces()))
    assert [member.name for member, _ in found] == [".aside", ".aside/empty"]
