"""What makes an answer durable, seen from SQLite itself."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from cloudless.store.database import Database, sorted_error
from cloudless.store.errors import Corrupted, NoSpace, StoreError, Unavailable
from cloudless.store.model import Change
from cloudless.store.port import KeyValue


def test_every_commit_is_synced(tmp_path: Path) -> None:
    database, _ = Database.open(tmp_path / "store.db", "id")
    try:
        run = database._connection.execute
        assert run("PRAGMA journal_mode").fetchone() == ("wal",)
        assert run("PRAGMA synchronous").fetchone() == (2,)
        assert run("PRAGMA locking_mode").fetchone() == ("exclusive",)
    finally:
        database.close()


@pytest.mark.parametrize("rows", [1, 32, 33, 500])
def test_a_batch_of_any_size_is_one_transaction(tmp_path: Path, rows: int) -> None:
    def change(revision: int, keys: range) -> Change:
        return Change(revision, tuple(KeyValue(f"k{n}", b"v", revision, revision, 1) for n in keys))

    database, _ = Database.open(tmp_path / "store.db", "id")
    try:
        database.write([change(2, range(rows))])
        with pytest.raises(StoreError):
            # The last row's number is taken: everything before it must go as well.
            database.write([change(3, range(rows)), change(2, range(1))])
        database.write([change(3, range(rows, rows + 1))])
    finally:
        database.close()
    database, contents = Database.open(tmp_path / "store.db", "other")
    database.close()
    assert contents.identity == "id"
    assert contents.history.revision == 3
    assert len(contents.history.scan("", 3).items) == rows + 1


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (sqlite3.SQLITE_FULL, NoSpace),
        (sqlite3.SQLITE_CORRUPT, Corrupted),
        (sqlite3.SQLITE_NOTADB, Corrupted),
        (sqlite3.SQLITE_IOERR_FSYNC, Unavailable),
        (sqlite3.SQLITE_IOERR_WRITE, Unavailable),
        (sqlite3.SQLITE_READONLY, Unavailable),
    ],
)
def test_errors_are_sorted(code: int, kind: type[StoreError]) -> None:
    error = sqlite3.OperationalError("text")
    error.sqlite_errorcode = code
    found = sorted_error(Path("/data/store.db"), error)
    assert type(found) is kind
    assert "/data/store.db" in str(found)
