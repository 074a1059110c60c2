"""Hostile archives: whatever they say, nothing is written outside of the folder that was named."""

from __future__ import annotations

import errno
import os
import pathlib
import stat
import tarfile
from collections.abc import Iterator
from typing import Any

import pytest
from tests.unit.sdk.copying.archives import MTIME, archive, entry, folder, link, stream, unpack

from cloudless.domain.errors import Exhausted
from cloudless.sdk.copying import unpacking
from cloudless.sdk.copying.places import below, renamed
from cloudless.sdk.copying.unpacking import Unpacker

KIB = 1024


@pytest.fixture
def place(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    """The folder to unpack in; what is beside it is the same afterwards."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "precious").write_text("precious")
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "place").mkdir()
    yield tmp_path / "place"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["outside", "place", "victim"]
    assert [path.name for path in (tmp_path / "outside").iterdir()] == ["precious"]
    assert (tmp_path / "outside" / "precious").read_text() == "precious"
    assert (tmp_path / "victim").read_text() == "precious"


async def made(data: bytes, place: pathlib.Path, where: Any = None, **options: Any) -> Unpacker:
    options.setdefault("max_bytes", KIB * KIB)
    with Unpacker(str(place), where or below(""), **options) as unpacker:
        await unpack(data, unpacker)
    return unpacker


def left_out(unpacker: Unpacker) -> dict[str, str]:
    assert len(unpacker.left_out) == unpacker.left_out_count
    return {one.name: one.why for one in unpacker.left_out}


async def test_files_folders_and_links_are_as_they_were(place: pathlib.Path) -> None:
    data = archive(
        folder("./", mode=0o700),
        folder("./d", mode=0o550, mtime=MTIME - 5),
        entry("./d/f", b"content", mode=0o640),
        entry("./run", b"#!", mode=0o4755),
        link("./d/l", "f"),
        link("./d/up", "../run"),
        entry("no/folder/was/told/of", b"x"),
    )
    unpacker = await made(data, place)
    assert left_out(unpacker) == {}
    assert (unpacker.files, unpacker.size_bytes) == (5, 10)
    assert (place / "d" / "f").read_text() == "content"
    assert stat.S_IMODE((place / "d" / "f").stat().st_mode) == 0o640
    assert stat.S_IMODE((place / "run").stat().st_mode) == 0o755, "never setuid"
    assert stat.S_IMODE((place / "d").stat().st_mode) == 0o750, "its owner may always come in"
    assert (place / "d").stat().st_mtime == MTIME - 5
    assert (place / "d" / "f").stat().st_mtime == MTIME
    assert (place / "d" / "l").readlink() == pathlib.Path("f")
    assert (place / "d" / "l").lstat().st_mtime == MTIME
    assert (place / "d" / "up").resolve() == place / "run"
    assert (place / "no/folder/was/told/of").exists()


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("../victim", "has a name with .."),
        ("a/../../victim", "has a name with .."),
        ("..", "has a name with .."),
        ("a/b/../c", "has a name with .."),
        ("/tmp/victim", "has an absolute name"),
        ("//victim", "has an absolute name"),
        ("a" * 300, "has an impossible name"),
        ("/".join("a" * 250 for _ in range(20)), "has an impossible name"),
        ("/".join("a" for _ in range(300)), "has an impossible name"),
    ],
)
async def test_names_that_lead_out(place: pathlib.Path, name: str, why: str) -> None:
    for format in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        data = archive(entry(name, b"evil"), folder(name + "/x"), entry("good", b"good"), format=format)
        unpacker = await made(data, place)
        assert set(left_out(unpacker).values()) == {why}
        assert [path.name for path in place.iterdir()] == ["good"]


@pytest.mark.parametrize("all_links", [False, True])
async def test_no_write_goes_through_a_link_of_the_archive(place: pathlib.Path, all_links: bool) -> None:
    """With all links allowed too: they are made, and never followed."""
    data = archive(
        link("away", "../outside"),
        entry("away/evil", b"evil"),
        folder("away/evil-folder"),
        link("away/evil-link", "x"),
        link("here", "."),
        entry("here/evil", b"evil"),
        link("victim", "../victim"),
        entry("victim", b"mine"),
        link("abs", "/"),
        entry("abs/evil", b"evil"),
    )
    unpacker = await made(data, place, all_links=all_links)
    reasons = left_out(unpacker)
    assert (place / "victim").read_text() == "mine", "the link was replaced, not followed"
    assert "here/evil" in reasons
    assert {"away/evil", "away/evil-folder", "away/evil-link", "abs/evil"} <= reasons.keys() or not all_links
    assert ("away" in reasons) == (not all_links)
    assert (place / "away").is_symlink() == (place / "abs").is_symlink() == all_links


async def test_no_write_goes_through_a_link_that_was_there(place: pathlib.Path) -> None:
    (place / "away").symlink_to("../outside")
    unpacker = await made(archive(entry("away/evil", b"evil"), folder("away"), entry("good", b"")), place)
    assert left_out(unpacker) == {
        "away/evil": "away on its way is no folder here",
        "away": "something that is no folder is there",
    }


@pytest.mark.parametrize(
    "target",
    [
        "/etc/passwd",
        "..",
        "../victim",
        "../../x",
        "sub/../../victim",
        "sub/up/../x",
        "./../victim",
        "",
    ],
)
async def test_links_that_lead_out_are_left_out(place: pathlib.Path, target: str) -> None:
    unpacker = await made(archive(folder("sub"), link("l", target)), place)
    assert unpacker.left_out_count == 1
    assert not (place / "l").is_symlink()


async def test_links_that_are_good_by_name_do_not_lead_out_together(place: pathlib.Path) -> None:
    data = archive(
        folder("x"),
        folder("x/y"),
        link("x/y/up", "../.."),
        link("q", "x/y/up/../outside"),
        link("r", "x/y/up/place"),
    )
    unpacker = await made(data, place)
    assert set(left_out(unpacker)) == {"q"}
    for path in place.rglob("*"):
        assert place == path.resolve() or place in path.resolve().parents


async def test_of_what_was_asked_for_only(place: pathlib.Path) -> None:
    """The replica sends more than the file that was asked for."""
    data = archive(entry("./app.conf", b"good"), entry("./.bashrc", b"evil"), folder("x"), entry("x/y", b""))
    unpacker = await made(data, place, renamed("app.conf", "mine"))
    assert left_out(unpacker) == {
        "./.bashrc": "was not asked for",
        "x": "was not asked for",
        "x/y": "was not asked for",
    }
    assert [path.name for path in place.iterdir()] == ["mine"]
    data = archive(folder("src"), link("src/l", "../other"), link("src/k", "f"), link("src/m", ".."))
    unpacker = await made(data, place, renamed("src", "copy"))
    assert set(left_out(unpacker)) == {"src/l", "src/m"}, "beside the copy is outside as well"


@pytest.mark.parametrize("kind", [tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, b"Z"])
async def test_neither_hard_links_nor_devices(place: pathlib.Path, kind: bytes) -> None:
    data = archive(entry("bad", None, type=kind, linkname="../victim", devmajor=1), entry("bad", b"fine"))
    unpacker = await made(data, place)
    assert unpacker.left_out_count == 1
    assert (place / "bad").read_text() == "fine"


async def test_a_hard_link_is_no_way_to_write_elsewhere(place: pathlib.Path) -> None:
    hard = entry("l", None, type=tarfile.LNKTYPE, linkname="../victim")
    await made(archive(hard, entry("l", b"evil")), place)
    assert (place / "l").stat().st_nlink == 1


async def test_sizes_are_bounded(place: pathlib.Path) -> None:
    with pytest.raises(Exhausted, match="more than 1000 bytes"):
        await made(archive(entry("a", bytes(600)), entry("b", bytes(600))), place, max_bytes=1000)
    assert [path.name for path in place.iterdir()] == ["a"]
    lie = entry("huge", None, size=2**60)[0].tobuf(tarfile.GNU_FORMAT)
    with pytest.raises(Exhausted):
        await made(lie, place)


async def test_members_are_bounded(place: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpacking, "MAX_MEMBERS", 10)
    monkeypatch.setattr(unpacking, "MAX_NAMED", 3)
    with pytest.raises(Exhausted, match="more than 10 members"):
        await made(archive(*(entry(f"{number}", b"") for number in range(20))), place)
    with Unpacker(str(place), below(""), max_bytes=1) as unpacker:
        await unpack(archive(*(entry(f"../{number}", b"") for number in range(5))), unpacker)
    assert (len(unpacker.left_out), unpacker.left_out_count) == (3, 5)


async def test_a_file_is_there_whole_or_not_at_all(place: pathlib.Path) -> None:
    (place / "f").write_text("before")
    source = stream(archive(entry("f", b"x" * 5000)))
    member = await source.next()
    assert member is not None
    with Unpacker(str(place), below(""), max_bytes=KIB * KIB) as unpacker:

        async def broken() -> Any:
            async for piece in source.data():
                yield piece[:100]
                names = sorted(path.name for path in place.iterdir())
                assert (place / "f").read_text() == "before"
                assert len(names) == 2
                assert names[0].startswith(".f.")
                raise ConnectionError

        with pytest.raises(ConnectionError):
            await unpacker.make(member, broken())
    assert [path.name for path in place.iterdir()] == ["f"]
    assert (place / "f").read_text() == "before"


async def test_what_is_in_the_way(place: pathlib.Path) -> None:
    (place / "folder").mkdir()
    (place / "folder" / "kept").touch()
    (place / "file").touch()
    os.mkfifo(place / "pipe")
    data = archive(
        entry("folder", b"x"), link("folder", "x"), folder("file"), entry("file/x", b""), entry("pipe", b"p")
    )
    unpacker = await made(data, place)
    assert sorted(one.name for one in unpacker.left_out) == ["file", "file/x", "folder", "folder"]
    assert (place / "folder" / "kept").exists()
    assert (place / "file").read_bytes() == b""
    assert (place / "pipe").read_text() == "p"
    assert sorted(path.name for path in place.iterdir()) == ["file", "folder", "pipe"]


async def test_folders_that_were_there_keep_their_modes(place: pathlib.Path) -> None:
    (place / "d").mkdir(mode=0o700)
    await made(archive(folder("d", mode=0o777), entry("d/f", b"")), place)
    assert stat.S_IMODE((place / "d").stat().st_mode) == 0o700


async def test_a_disk_that_is_full_leaves_no_pieces(
    place: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(unpacking, "_write", full)
    with pytest.raises(OSError, match="No space"):
        await made(archive(entry("f", b"x")), place)
    assert not list(place.iterdir())


async def test_nothing_stays_open(place: pathlib.Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    await made(archive(folder("a"), entry("a/b/c", b"x"), link("a/l", "b"), entry("../x", b"")), place)
    assert len(os.listdir("/proc/self/fd")) == before
