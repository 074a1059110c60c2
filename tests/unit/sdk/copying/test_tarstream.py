"""Archives of every form are read as tarfile reads them; broken ones are refused in words."""

from __future__ import annotations

import random
import tarfile

import pytest
from tests.unit.sdk.copying.archives import MTIME, archive, entry, folder, link, members, stream

from cloudless.sdk.copying import tarstream
from cloudless.sdk.copying.tarstream import BadArchive

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
LONG = "/".join(["a-rather-long-name"] * 12)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("seed", range(5))
async def test_every_form(form: str, seed: int) -> None:
    data = archive(
        folder("top", mode=0o750),
        entry("top/empty", b""),
        entry("top/file", b"x" * 1000, mode=0o640),
        entry("top/even", b"y" * 1024),
        link("top/link", "file"),
        *([] if form == "ustar" else [entry(LONG, b"long"), link("top/far", LONG), entry("ü\udcff", b"z")]),
        format=FORMATS[form],
    )
    found = await members(data, seed=seed, largest=700)
    told = {member.name: (member.kind, member.mode, content) for member, content in found}
    assert told["top"] == ("folder", 0o750, b"")
    assert told["top/file"] == ("file", 0o640, b"x" * 1000)
    assert told["top/even"] == ("file", 0o644, b"y" * 1024)
    assert (told["top/empty"][0], told["top/empty"][2]) == ("file", b"")
    if form != "ustar":
        assert told[LONG][2] == b"long"
        assert told["ü\udcff"][2] == b"z"
    targets = {member.name: member.target for member, _ in found if member.kind == "link"}
    assert targets == {"top/link": "file"} | ({} if form == "ustar" else {"top/far": LONG})
    assert {member.mtime_ns for member, _ in found} == {MTIME * 10**9}


async def test_times_with_fractions_and_large_sizes() -> None:
    data = archive(entry("a", b"abc", mtime=1.25), format=tarfile.PAX_FORMAT)
    ((member, _),) = await members(data)
    assert member.mtime_ns == 1_250_000_000
    data = archive(entry("a", b"abc", pax_headers={"size": "2"}), format=tarfile.PAX_FORMAT)
    assert (await members(data))[0][1] in (b"ab", b"abc")


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        (tarfile.LNKTYPE, "hard link"),
        (tarfile.CHRTYPE, "device"),
        (tarfile.BLKTYPE, "device"),
        (tarfile.FIFOTYPE, "named pipe"),
        (b"Z", "member of an unknown type"),
    ],
)
async def test_other_members_are_named_and_passed_over(kind: bytes, what: str) -> None:
    data = archive(entry("bad", b"", type=kind, linkname="x"), entry("good", b"yes"))
    found = await members(data)
    assert [(member.kind, member.what) for member, _ in found] == [("other", what), ("file", "")]
    assert found[1][1] == b"yes"


async def test_data_that_nobody_reads_is_passed_over() -> None:
    source = stream(archive(entry("a", b"x" * 5000), entry("b", b"y")))
    assert await source.next()
    second = await source.next()
    assert second is not None
    assert [piece async for piece in source.data()] == [b"y"]
    assert await source.next() is None


async def test_an_empty_archive_and_one_without_its_end() -> None:
    assert await members(b"") == []
    assert await members(bytes(10240)) == []
    whole = archive(entry("a", b"abc"))
    assert len(await members(whole[:1024])) == 1, "tar of old ends so"


@pytest.mark.parametrize("size", [1, 511, 513, 1023, 1500])
async def test_an_archive_that_is_cut_off(size: int) -> None:
    with pytest.raises(BadArchive, match="cut off"):
        await members(archive(entry("a", b"x" * 2000))[:size])


async def test_what_is_no_archive() -> None:
    with pytest.raises(BadArchive, match="broken"):
        await members(b"this is not a tar archive" * 100)


async def test_headers_that_want_all_memory() -> None:
    for kind in (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE):
        huge = entry("x", None, type=kind, size=2**40)[0].tobuf(tarfile.GNU_FORMAT)
        with pytest.raises(BadArchive, match="header of"):
            await members(huge)


async def test_endless_padding() -> None:
    with pytest.raises(BadArchive, match="goes on after its end"):
        await members(archive(entry("a", b"x")) + bytes(tarstream.MAX_PADDING_BYTES + 1))


@pytest.mark.parametrize(
    "records", [b"5 a\n", b"999 path=x\n", b"x path=a\n", b"12 path=a/bc", b"-1 a=b\n", b"10 size=-1\n"]
)
async def test_broken_pax_headers(records: bytes) -> None:
    header = entry("x", None, type=tarfile.XHDTYPE, size=len(records))[0].tobuf(tarfile.USTAR_FORMAT)
    data = header + records + bytes(-len(records) % 512) + archive(entry("a", b"x"))
    with pytest.raises(BadArchive, match="pax"):
        await members(data)


@pytest.mark.parametrize("seed", range(200))
async def test_no_bytes_raise_anything_else(seed: int) -> None:
    chance = random.Random(seed)
    data = bytearray(archive(folder("d"), entry("d/f", b"x" * 600), link("d/l", "f"), entry(LONG, b"long")))
    for _ in range(chance.randint(1, 8)):
        data[chance.randrange(len(data))] = chance.randrange(256)
    try:
        await members(bytes(data))
    except BadArchive:
        return
