"""Copies as users mean them, with the programs of this machine in place of a replica's."""

from __future__ import annotations

import asyncio
import os
import pathlib
import shutil
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from tests.unit.sdk.copying.archives import archive, entry, folder, link

from cloudless.domain.errors import Exhausted, NotFound
from cloudless.sdk.copying.copier import Copied, Copier, CopyFailed, NoTar
from cloudless.sdk.copying.tarstream import BadArchive
from cloudless.sdk.exec import ExecExit

PROGRAMS = {"gnu": {}, "busybox": {name: ["busybox", name] for name in ("tar", "mv", "rm")}}


class Process:
    """What ``open_exec`` gives, of a program of this machine."""

    def __init__(self, argv: list[str]) -> None:
        self._argv = argv
        self.started: Any = SimpleNamespace(replica_id="r1")
        self.replica = "web/0"
        self.stdin = self.stdout = self.stderr = self

    async def __aenter__(self) -> Process:
        if shutil.which(self._argv[0]) is None:
            self.started, self._process = None, None
            return self
        pipe = asyncio.subprocess.PIPE
        self._process = await asyncio.create_subprocess_exec(
            *self._argv, stdin=pipe, stdout=pipe, stderr=pipe, env={"PATH": os.environ["PATH"], "LC_ALL": "C"}
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process is not None:
            if self._process.returncode is None:
                self._process.kill()
            await self._process.communicate()

    async def write(self, data: bytes) -> None:
        try:
            self._process.stdin.write(data)
            await self._process.stdin.drain()
        except OSError:
            return  # as exec does: what nobody reads is thrown away

    async def close(self) -> None:
        self._process.stdin.close()

    async def read(self) -> bytes:
        return await self._process.stdout.read(100_000) if self._process is not None else b""

    async def collect(self, limit_bytes: int) -> bytes:
        return (await self._process.stderr.read())[:limit_bytes] if self._process is not None else b""

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._pieces()

    async def _pieces(self) -> AsyncIterator[bytes]:
        while piece := await self.read():
            yield piece

    async def wait(self) -> ExecExit:
        if self._process is None:
            return ExecExit(127, reason="CannotExecute", message=f"{self._argv[0]} is not in the image")
        return ExecExit(await self._process.wait())


class Replica:
    """A client whose only replica is this machine."""

    def __init__(self, programs: dict[str, list[str]]) -> None:
        self.programs = programs
        self.ran: list[list[str]] = []
        self.named: list[str] = []

    def open_exec(self, name: str, argv: list[str], *, replica: str, **_: Any) -> Process:
        self.ran.append(argv)
        self.named.append(replica)
        return Process([*self.programs.get(argv[0], argv[:1]), *argv[1:]])


@pytest.fixture(params=PROGRAMS)
def replica(request: pytest.FixtureRequest) -> Replica:
    return Replica(PROGRAMS[request.param])


@pytest.fixture
def there(tmp_path: pathlib.Path) -> pathlib.Path:
    """A folder "in the replica"."""
    top = tmp_path / "there"
    (top / "data" / "sub").mkdir(parents=True)
    (top / "data" / "app.conf").write_text("conf")
    (top / "data" / "app.conf").chmod(0o640)
    (top / "data" / "sub" / "-x").write_text("no option")
    (top / "data" / "l").symlink_to("app.conf")
    (top / "to-folder").symlink_to("data")
    (top / "to-file").symlink_to("data/app.conf")
    (top / "to-nothing").symlink_to("nothing")
    return top


@pytest.fixture
def here(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def copier(replica: Any) -> Copier:
    return Copier(replica, "web", namespace=None, replica="", on_progress=None)


async def down(replica: Any, path: object, local: str, **options: Any) -> Copied:
    options = {"max_bytes": 10**9, "all_links": False} | options
    return await copier(replica).download(str(path), local, **options)


async def up(replica: Any, local: str, path: object) -> Copied:
    return await copier(replica).upload(local, str(path))


def names(top: pathlib.Path) -> list[str]:
    return sorted(path.relative_to(top).as_posix() for path in top.rglob("*"))


TREE = ["app.conf", "l", "sub", "sub/-x"]


async def test_a_file(replica: Replica, there: pathlib.Path, here: pathlib.Path) -> None:
    copied = await down(replica, there / "data/app.conf", ".")
    assert (copied.replica, copied.files, copied.size_bytes) == ("web/0", 1, 4)
    assert (here / "app.conf").stat().st_mode & 0o777 == 0o640
    await down(replica, there / "data/app.conf", "new-name")
    assert (here / "new-name").read_text() == "conf"
    await down(replica, there / "data/sub/-x", "./")
    assert (here / "-x").read_text() == "no option"
    assert len(replica.ran) == 3, "one program for each"


async def test_a_folder(replica: Replica, there: pathlib.Path, here: pathlib.Path) -> None:
    await down(replica, there / "data", "new")
    assert names(here / "new") == TREE
    await down(replica, there / "data", "new")
    assert names(here / "new" / "data") == TREE, "into the folder that is there now"
    await down(replica, f"{there}/data/.", "contents")
    assert names(here / "contents") == TREE
    (here / "into").mkdir()
    await down(replica, f"{there}/data/.", "into")
    assert names(here / "into") == TREE
    await down(replica, f"{there}/data/", "slash")
    assert names(here / "slash") == TREE


async def test_a_source_that_is_a_link_is_followed(
    replica: Replica, there: pathlib.Path, here: pathlib.Path
) -> None:
    await down(replica, there / "to-file", "file")
    assert (here / "file").read_text() == "conf"
    assert not (here / "file").is_symlink()
    await down(replica, there / "to-folder", "folder")
    assert names(here / "folder") == TREE
    assert (here / "folder" / "l").is_symlink(), "links inside stay"
    with pytest.raises(NotFound):
        await down(replica, there / "to-nothing", "nothing")


async def test_where_nothing_can_go(replica: Replica, there: pathlib.Path, here: pathlib.Path) -> None:
    with pytest.raises(NotFound, match="does not exist"):
        await down(replica, there / "nope", ".")
    with pytest.raises(NotFound, match="no folder nope here"):
        await down(replica, there / "data", "nope/below")
    with pytest.raises(NotFound, match="no folder nope/ here"):
        await down(replica, there / "data/app.conf", "nope/")
    assert names(here) == []
    (here / "taken").touch()
    with pytest.raises(CopyFailed, match="is a folder, but"):
        await down(replica, there / "data", "taken")
    assert (here / "taken").read_bytes() == b""


async def test_a_file_without_a_size_is_not_copied_as_an_empty_one(
    replica: Replica, here: pathlib.Path
) -> None:
    for path in ("/proc/meminfo", "/etc/../proc/self/status"):
        with pytest.raises(CopyFailed, match=f"^{path} cannot be copied: what is in /proc has no size$"):
            await down(replica, path, ".")
    assert names(here) == []


async def test_limits_reach_the_reader(replica: Replica, there: pathlib.Path, here: pathlib.Path) -> None:
    with pytest.raises(Exhausted):
        await down(replica, there / "data", "x", max_bytes=3)
    (there / "data" / "out").symlink_to("/etc/passwd")
    assert (await down(replica, there / "data", "y")).left_out_count == 1
    assert (await down(replica, there / "data", "z", all_links=True)).left_out_count == 0
    assert (here / "z" / "out").is_symlink()


async def test_up_a_file(replica: Replica, there: pathlib.Path, here: pathlib.Path) -> None:
    (here / "f").write_text("new")
    (here / "f").chmod(0o600)
    copied = await up(replica, "f", there / "data")
    assert (copied.files, copied.size_bytes) == (1, 3)
    assert (there / "data/f").read_text() == "new"
    assert (there / "data/f").stat().st_mode & 0o777 == 0o600
    await up(replica, "f", there / "data/app.conf")
    assert (there / "data/app.conf").read_text() == "new"
    await up(replica, "./f", there / "data/other-name")
    assert (there / "data/other-name").read_text() == "new"
    assert names(there / "data") == ["app.conf", "f", "l", "other-name", "sub", "sub/-x"], (
        "nothing is left aside"
    )
    assert replica.named[:4] == ["", "r1", "r1", "r1"], "all in one replica"


async def test_up_a_folder(replica: Replica, there: pathlib.Path, here: pathlib.Path) -> None:
    (here / "d" / "e").mkdir(parents=True)
    (here / "d" / "e" / "f").touch()
    (here / "d" / "l").symlink_to("e/f")
    tree = ["e", "e/f", "l"]
    await up(replica, "d", there / "new")
    assert names(there / "new") == tree
    await up(replica, "d", there / "new")
    assert names(there / "new" / "d") == tree, "into the folder that is there now"
    (there / "new" / "d" / "kept").touch()
    await up(replica, "d", there / "new")
    assert names(there / "new" / "d") == [*tree[:2], "kept", "l"], "filled, not replaced"
    await up(replica, "d/.", there / "data")
    assert {"e", "l", "app.conf"} <= set(names(there / "data"))
    await up(replica, "d/", f"{there}/slash/")
    assert names(there / "slash") == tree
    (here / "current").symlink_to("d")
    await up(replica, "current", there / "of-link")
    assert names(there / "of-link") == tree
    assert not [name for name in names(there) if "cloudless" in name]


async def test_up_where_nothing_can_go(replica: Replica, there: pathlib.Path, here: pathlib.Path) -> None:
    before = names(there)
    (here / "f").touch()
    (here / "d").mkdir()
    with pytest.raises(NotFound, match="nope does not exist here"):
        await up(replica, "nope", there)
    with pytest.raises(NotFound, match=rf"^web/0: there is no folder {there}/no$"):
        await up(replica, "f", there / "no/such")
    with pytest.raises(NotFound, match=rf"^web/0: there is no folder {there}/no$"):
        await up(replica, "d", there / "no/such")
    with pytest.raises(NotFound, match="there is no folder"):
        await up(replica, "f", f"{there}/no/")
    with pytest.raises(CopyFailed, match=r"^web/0: \S+/data/app.conf is a file, and d is a folder$"):
        await up(replica, "d", there / "data/app.conf")
    (there / "data" / "f").mkdir()
    with pytest.raises(CopyFailed, match=r"^web/0: \S+/data/f is a folder, and f is a file$"):
        await up(replica, "f", there / "data")
    (there / "data" / "f").rmdir()
    assert names(there) == before


async def test_a_disk_that_refuses_is_told_by_the_name_that_was_typed(
    replica: Replica, there: pathlib.Path, here: pathlib.Path
) -> None:
    """/proc takes no new files, whoever asks; "." is nothing that anybody typed."""
    with pytest.raises(FileNotFoundError) as caught:
        await down(replica, there / "data/app.conf", "/proc/nothere")
    assert caught.value.filename == "/proc/nothere"
    with pytest.raises(OSError, match="No such file") as missing:
        await down(replica, there / "data", "/proc/nothere")
    assert missing.value.filename == "/proc/nothere"


async def test_archives_as_they_are(replica: Replica, there: pathlib.Path, here: pathlib.Path) -> None:
    pieces = [piece async for piece in copier(replica).export(f"{there}/data")]

    async def again() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    (there / "copy").mkdir()
    await copier(replica).restore(again(), str(there / "copy"))
    assert names(there / "copy" / "data") == TREE
    with pytest.raises(NotFound):
        await copier(replica).restore(again(), str(there / "nope"))
    with pytest.raises(NotFound):
        _ = [piece async for piece in copier(replica).export(f"{there}/nope")]


async def test_an_image_without_tar(there: pathlib.Path, here: pathlib.Path) -> None:
    bare = Replica({"tar": ["/no/such/tar"]})
    (here / "f").touch()
    for copying in (down(bare, there / "data", "."), up(bare, "f", there)):
        with pytest.raises(NoTar, match="is not in the image") as caught:
            await copying
        assert "tar, mv and rm" in caught.value.hint


def lying(tmp_path: pathlib.Path, data: bytes, then: str = "") -> Replica:
    """A replica whose tar sends this, whatever it is asked."""
    (tmp_path / "evil.tar").write_bytes(data)
    (tmp_path / "evil").write_text(f"#!/bin/sh\ncat {tmp_path}/evil.tar\n{then}\n")
    (tmp_path / "evil").chmod(0o755)
    return Replica({"tar": [str(tmp_path / "evil")]})


async def test_a_replica_that_lies(tmp_path: pathlib.Path, here: pathlib.Path) -> None:
    evil = archive(
        entry("./app.conf", b"good"),
        entry("./.bashrc", b"evil"),
        entry("../escaped", b"evil"),
        entry(f"{tmp_path}/absolute", b"evil"),
        link("./x", ".."),
        entry("./x/through", b"evil"),
    )
    copied = await down(lying(tmp_path, evil), "/etc/app.conf", ".")
    assert copied.left_out_count == 5
    assert names(here) == ["app.conf"]
    assert not (tmp_path / "escaped").exists()
    assert not (tmp_path / "absolute").exists()
    assert not (tmp_path / "through").exists()


async def test_a_replica_whose_archive_ends_in_the_middle(tmp_path: pathlib.Path, here: pathlib.Path) -> None:
    whole = archive(folder("./d"), entry("./d/first", b"x"), entry("./d/second", b"y" * 5000))
    with pytest.raises(BadArchive, match="cut off"):
        await down(lying(tmp_path, whole[:5000]), "/d", ".")
    assert names(here) == ["d", "d/first"]
    with pytest.raises(CopyFailed, match="killed by nobody"):
        await down(lying(tmp_path, whole[:5000], "echo killed by nobody >&2; exit 3"), "/d", ".")


async def test_a_replica_that_never_ends(tmp_path: pathlib.Path, here: pathlib.Path) -> None:
    endless = lying(tmp_path, archive(entry("./d", b"x")), "exec cat /dev/zero")
    with pytest.raises(BadArchive, match="goes on after its end"):
        async with asyncio.timeout(20):
            await down(endless, "/d", ".")


async def test_a_tar_that_complains_is_believed(tmp_path: pathlib.Path, here: pathlib.Path) -> None:
    whole = archive(entry("./d", b"x"))
    with pytest.raises(CopyFailed, match="web/0: something went wrong"):
        await down(lying(tmp_path, whole, "echo something went wrong >&2; exit 2"), "/d", ".")
