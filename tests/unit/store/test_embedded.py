"""The durable store: what a restart finds, what a damaged or busy directory says."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import stat
from pathlib import Path

import pytest
from tests.unit.store.subject import delete, keys, open_files, put, revision_of, short, take

from cloudless.aio.clock import ManualClock
from cloudless.store.errors import Compacted, Corrupted, DataDirInUse, LeaseExpired
from cloudless.store.model import Bounds
from cloudless.store.port import Delete, DeletePrefix, KeyValue, Put


async def test_a_restart_finds_everything(tmp_path: Path, clock: ManualClock) -> None:
    async with open_files(tmp_path, clock, identity="first") as store:
        first = await put(store, "k", b"1")
        await put(store, "k", b"2")
        gone = await put(store, "gone", b"x")
        last = await delete(store, Delete("gone"))
        before = await store.range("")
    async with open_files(tmp_path, clock, identity="second") as store:
        assert await store.range("") == before
        assert await store.get("k", revision=first) == KeyValue("k", b"1", first, first, 1)
        assert await store.get("gone", revision=gone) is not None
        async with store.watch("", start_revision=first + 1) as batches:
            seen = [short(batch) for batch in await take(batches, 3)]
        assert seen[1:] == [(gone, [("put", "gone", b"x")]), (last, [("delete", "gone", b"")])]
        assert (await store.status()).identity == "first"
        assert store.exclusive
        assert store.opened_revision == last
        assert await put(store, "k") == last + 1


async def test_an_answered_write_survives_without_closing(tmp_path: Path, clock: ManualClock) -> None:
    async with open_files(tmp_path / "a", clock) as store:
        await asyncio.gather(*(put(store, f"k/{n:02}") for n in range(50)))
        shutil.copytree(tmp_path / "a", tmp_path / "b")
        async with open_files(tmp_path / "b", clock) as copy:
            assert await keys(copy) == [f"k/{n:02}" for n in range(50)]


async def test_leases_get_their_full_time_after_a_restart(tmp_path: Path, clock: ManualClock) -> None:
    async with open_files(tmp_path, clock) as store:
        lease, revoked = await store.grant(10), await store.grant(10)
        await put(store, "k", b"", lease.id)
        await store.revoke(revoked)
        clock.advance(9)
    clock.advance(1000)
    async with open_files(tmp_path, clock) as store:
        clock.advance(9)
        await store.keep_alive(lease)
        assert await keys(store) == ["k"]
        with pytest.raises(LeaseExpired):
            await store.keep_alive(revoked)
        assert (await store.grant(10)).id > lease.id
        async with store.watch("", start_revision=await revision_of(store) + 1) as batches:
            clock.advance(10)
            await take(batches, 1)
        assert await keys(store) == []


async def test_a_directory_has_one_owner(tmp_path: Path, clock: ManualClock) -> None:
    async with open_files(tmp_path, clock):
        with pytest.raises(DataDirInUse) as caught:
            async with open_files(tmp_path, clock):
                pass
        assert caught.value.pid == os.getpid()
        assert str(os.getpid()) in str(caught.value)
    async with open_files(tmp_path, clock) as store:
        await put(store, "k")


async def test_only_the_owner_can_read_the_files(tmp_path: Path, clock: ManualClock) -> None:
    old = os.umask(0)
    try:
        async with open_files(tmp_path / "new" / "store", clock) as store:
            await put(store, "k")
            folder = tmp_path / "new" / "store"
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
            modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()}
    finally:
        os.umask(old)
    assert modes == {"lock": 0o600, "store.db": 0o600, "store.db-wal": 0o600}


async def filled(path: Path, clock: ManualClock) -> bytes:
    """A closed store with data; the bytes of its file."""
    async with open_files(path, clock) as store:
        for number in range(200):
            await put(store, f"key/{number}", b"value-%d" % number + bytes(300))
    return (path / "store.db").read_bytes()


async def test_damage_is_named(tmp_path: Path, clock: ManualClock) -> None:
    content = await filled(tmp_path, clock)
    place = content.index(b"value-77")
    flipped = content[: place + 7] + bytes([content[place + 7] ^ 1]) + content[place + 8 :]
    damaged = {
        "a flipped bit in a value": flipped,
        "cut in half": content[: len(content) // 2],
        "overwritten pages": content[:8192] + os.urandom(8192) + content[16384:],
        "not a database": b"once upon a time" * 1000,
    }
    for what, bad in damaged.items():
        (tmp_path / "store.db").write_bytes(bad)
        with pytest.raises(Corrupted) as caught:
            async with open_files(tmp_path, clock):
                pass
        assert str(tmp_path / "store.db") in str(caught.value), what
        assert (tmp_path / "store.db").read_bytes() == bad, what
    (tmp_path / "store.db").write_bytes(content)
    async with open_files(tmp_path, clock) as store:
        assert len(await keys(store)) == 200


async def test_a_missing_revision_is_damage(tmp_path: Path, clock: ManualClock) -> None:
    await filled(tmp_path, clock)
    with sqlite3.connect(tmp_path / "store.db") as database:
        database.execute("DELETE FROM record WHERE key='key/99'")
    database.close()
    with pytest.raises(Corrupted, match="missing"):
        async with open_files(tmp_path, clock):
            pass


async def test_a_database_of_another_program_is_refused(tmp_path: Path, clock: ManualClock) -> None:
    with sqlite3.connect(tmp_path / "store.db") as database:
        database.execute("PRAGMA user_version=7")
    database.close()
    with pytest.raises(Corrupted, match="not a store of this version"):
        async with open_files(tmp_path, clock):
            pass


def rows(path: Path) -> int:
    database = sqlite3.connect(path / "store.db")
    try:
        return int(database.execute("SELECT count(*) FROM record").fetchone()[0])
    finally:
        database.close()


async def test_compaction_reaches_the_disk(tmp_path: Path, clock: ManualClock) -> None:
    async with open_files(tmp_path, clock) as store:
        for number in range(300):
            await put(store, f"k/{number % 10}", b"%d" % number)
        for start in range(0, 400, 100):
            await store.txn((), [Put(f"many/{n:03}", b"") for n in range(start, start + 100)])
        await delete(store, DeletePrefix("many/"))
        await put(store, "k/0", b"last")
        at = await revision_of(store)
        await store.compact(at)
        state = await store.range("")
    assert rows(tmp_path) == 10
    async with open_files(tmp_path, clock) as store:
        assert await store.range("") == state
        with pytest.raises(Compacted):
            await store.range("", revision=at - 1)
        assert await put(store, "new") == at + 1


async def test_history_stays_within_its_bounds(tmp_path: Path, clock: ManualClock) -> None:
    async with open_files(tmp_path, clock, bounds=Bounds(history_revisions=300)) as store:
        for _ in range(50):
            await asyncio.gather(*(put(store, f"k/{n}") for n in range(40)))
        newest = await revision_of(store)
        await store.range("", revision=newest - 250)
        with pytest.raises(Compacted) as caught:
            await store.range("", revision=2)
        assert newest - 600 < caught.value.oldest <= newest - 300
    assert rows(tmp_path) < 700


async def test_big_values_are_forgotten_sooner(tmp_path: Path, clock: ManualClock) -> None:
    async with open_files(tmp_path, clock, bounds=Bounds(history_bytes=1_000_000)) as store:
        for _ in range(60):
            await put(store, "k", bytes(100_000))
        with pytest.raises(Compacted):
            await store.range("", revision=3)
    assert rows(tmp_path) < 20


async def test_rows_left_by_an_interrupted_compaction_are_dropped(tmp_path: Path, clock: ManualClock) -> None:
    async with open_files(tmp_path, clock) as store:
        for number in range(20):
            await put(store, "k", b"%d" % number)
        await put(store, "gone")
        await delete(store, Delete("gone"))
        state = await store.range("")
    with sqlite3.connect(tmp_path / "store.db") as database:
        database.execute("UPDATE meta SET value=? WHERE name='compacted'", (state.revision,))
    database.close()
    async with open_files(tmp_path, clock) as store:
        assert await store.range("") == state
    assert rows(tmp_path) == 1
