"""A full disk: writes are refused whole, reads go on, and space heals it."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.store.subject import open_files, put

from cloudless.aio.clock import SystemClock
from cloudless.store.errors import NoSpace, StoreError
from cloudless.store.port import Put

SIZE_BYTES = 24 * 1024 * 1024


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a small tmpfs")
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE_BYTES}", "tmpfs", str(disk)], check=False
    )
    if mounted.returncode != 0:
        pytest.skip("cannot mount a tmpfs here")
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


async def fill(store, acked: dict[str, int]) -> None:
    """Write pairs until the disk is full; notes what was answered."""

    async def write(writer: int) -> None:
        for number in range(10_000):
            key = f"k/{writer}/{number}"
            try:
                await store.txn((), [Put(key, bytes(20_000)), Put(f"pair/{key}", b"")])
            except NoSpace:
                return
            acked[key] = number

    await asyncio.gather(*(write(writer) for writer in range(4)))


async def test_writes_are_refused_whole_and_come_back(small_disk: Path) -> None:
    (small_disk / "ballast").write_bytes(bytes(8 * 1024 * 1024))
    path = small_disk / "store"
    acked: dict[str, int] = {}
    async with open_files(path, SystemClock()) as store:
        await fill(store, acked)
        assert acked
        assert "no space" in (await store.status()).alarm
        full = await store.range("k/")
        assert {item.key for item in full.items} == set(acked)
        with pytest.raises(NoSpace):
            await put(store, "more", bytes(20_000))
        with pytest.raises(NoSpace):
            for _ in range(100):
                await store.grant(60)
                await put(store, "more", bytes(20_000))
        (small_disk / "ballast").unlink()
        await put(store, "more", bytes(20_000))
        assert (await store.status()).alarm == ""
        state = await store.range("")
    async with open_files(path, SystemClock()) as store:
        assert await store.range("") == state


def occupy(file: Path) -> None:
    """Take all the space that is left."""
    with pytest.raises(OSError, match="space"), file.open("wb", buffering=0) as stream:
        while True:
            stream.write(bytes(4096))


async def test_a_full_disk_is_no_reason_not_to_start(small_disk: Path) -> None:
    path, filler = small_disk / "store", small_disk / "filler"
    async with open_files(path, SystemClock()) as store:
        for number in range(50):
            await put(store, f"k/{number}", bytes(20_000))
        state = await store.range("")
    occupy(filler)
    async with open_files(path, SystemClock()) as store:
        assert await store.range("") == state
        with pytest.raises(NoSpace):
            await put(store, "more", bytes(20_000))
        filler.unlink()
        await put(store, "more", bytes(20_000))


async def test_a_new_store_on_a_full_disk_says_so(small_disk: Path) -> None:
    occupy(small_disk / "filler")
    with pytest.raises((OSError, StoreError)) as caught:
        async with open_files(small_disk / "store", SystemClock()):
            pass
    assert "space" in str(caught.value)
    (small_disk / "filler").unlink()
    async with open_files(small_disk / "store", SystemClock()) as store:
        await put(store, "k")
