"""The SQLite file of an embedded store: its tables, and one batch as one transaction.

``journal`` runs all of this in its own thread; nothing here knows asyncio. One row is one
version of one key, numbered by revision, with a checksum of its own (SQLite checks the
shape of a page, not its bytes). ``synchronous=FULL`` with a write-ahead log: when a
batch returns, it has been fsynced.
"""

from __future__ import annotations

import contextlib
import sqlite3
import zlib
from collections import defaultdict
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cloudless.store.errors import Corrupted, NoSpace, StoreError, Unavailable
from cloudless.store.history import History
from cloudless.store.limits import CHECKPOINT_PAGES
from cloudless.store.model import Change
from cloudless.store.port import KeyValue, Lease

#: "CLDL": says in the file's header whose it is.
APPLICATION_ID: Final = 0x434C444C
SCHEMA_VERSION: Final = 1
#: A row's number is its revision times this, plus its place in the revision.
ROWS_PER_REVISION: Final = 1 << 24
#: Rows in one INSERT: fewer statements mean fewer hand-overs between threads.
ROWS_PER_INSERT: Final = 32
#: From so many dropped rows of one revision on, its rows are listed once.
LIST_ROWS_FROM: Final = 8
#: The log file is cut to this after a checkpoint.
LOG_BYTES: Final = 16 * 1024 * 1024

_SCHEMA: Final = (
    "CREATE TABLE record (id INTEGER PRIMARY KEY, key TEXT NOT NULL, value BLOB NOT NULL,"
    " created INTEGER NOT NULL, version INTEGER NOT NULL, lease INTEGER NOT NULL, checksum INTEGER NOT NULL)",
    "CREATE TABLE lease (id INTEGER PRIMARY KEY AUTOINCREMENT, ttl_s INTEGER NOT NULL)",
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID",
)
_ROW: Final = "(?,?,?,?,?,?,?)"
_INSERT: Final = "INSERT INTO record VALUES "
_FULL: Final = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE)
_DAMAGED: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)

Row = tuple[int, str, bytes, int, int, int, int]


@dataclass(frozen=True, slots=True)
class Contents:
    """What an existing file held when it was opened."""

    history: History
    leases: tuple[Lease, ...]
    last_lease: int  # the highest number ever given
    identity: str


class Database:
    """An open file; every method may block, and belongs to one thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection = sqlite3.connect(path, isolation_level=None, timeout=0)

    @classmethod
    def open(cls, path: Path, identity: str) -> tuple[Database, Contents]:
        """Open or create the file, check it, and read all of it.

        Raises ``Corrupted``; ``NoSpace`` when a new file does not fit on the disk.
        """
        database = cls(path)
        try:
            database._configure()
            database._migrate(identity)
            return database, database._load()
        except sqlite3.Error as error:
            database.close()
            raise sorted_error(path, error) from error
        except BaseException:
            database.close()
            raise

    def write(self, changes: Sequence[Change]) -> None:
        """Store all changes in one transaction. Raises a ``StoreError``; then nothing happened."""
        rows = [row for change in changes for row in _rows(change)]
        only_rows = not any(change.granted or change.revoked or change.compacted for change in changes)
        run = self._connection.execute
        try:
            if only_rows and len(rows) <= ROWS_PER_INSERT:
                self._insert(rows)  # one statement is its own transaction
                return
            run("BEGIN IMMEDIATE")
            self._insert(rows)
            for change in changes:
                self._write_rest(change)
            run("COMMIT")
        except sqlite3.Error as error:
            self._undo()
            raise sorted_error(self._path, error) from error

    def close(self) -> None:
        """Fold the log into the file and close it."""
        self._connection.close()

    # -- opening -----------------------------------------------------------------------

    def _configure(self) -> None:
        run = self._connection.execute
        run("PRAGMA locking_mode=EXCLUSIVE")  # set before the log opens: no shared-memory file
        run("PRAGMA journal_mode=WAL")
        run("PRAGMA synchronous=FULL")
        run(f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES}")
        run(f"PRAGMA journal_size_limit={LOG_BYTES}")
        run("PRAGMA temp_store=MEMORY")

    def _migrate(self, identity: str) -> None:
        run = self._connection.execute
        found = (self._pragma("application_id"), self._pragma("user_version"))
        if found == (APPLICATION_ID, SCHEMA_VERSION):
            return
        if found != (0, 0):
            raise Corrupted(self._path, f"not a store of this version (application, schema: {found})")
        run("BEGIN IMMEDIATE")
        for statement in _SCHEMA:
            run(statement)
        run("INSERT INTO meta VALUES ('identity', ?), ('compacted', 0)", (identity,))
        run(f"PRAGMA application_id={APPLICATION_ID}")
        run(f"PRAGMA user_version={SCHEMA_VERSION}")
        run("COMMIT")

    def _load(self) -> Contents:
        run = self._connection.execute
        problem = run("PRAGMA quick_check(1)").fetchone()[0]
        if problem != "ok":
            raise Corrupted(self._path, str(problem))
        meta: dict[str, Any] = dict(run("SELECT name, value FROM meta"))
        leases = tuple(Lease(*row) for row in run("SELECT id, ttl_s FROM lease ORDER BY id"))
        last_lease = run("SELECT ifnull(max(seq), 0) FROM sqlite_sequence").fetchone()[0]
        history = History()
        try:
            with contextlib.closing(self._records()) as records:
                stale = history.load(records, int(meta["compacted"]))
        except (ValueError, KeyError, TypeError) as error:
            raise Corrupted(self._path, str(error)) from error
        if stale:
            self._clean(stale)
        return Contents(history, leases, int(last_lease), str(meta["identity"]))

    def _records(self) -> Generator[KeyValue, None, None]:
        # An open cursor would keep the file locked after the connection is closed.
        with contextlib.closing(self._connection.execute("SELECT * FROM record ORDER BY id")) as rows:
            for number, key, value, created, version, lease, checksum in rows:
                if checksum != _checksum(number, key, value, created, version, lease):
                    raise Corrupted(self._path, f"checksum of row {number} does not match")
                yield KeyValue(key, value, created, number // ROWS_PER_REVISION, version, lease)

    def _clean(self, stale: Iterable[tuple[int, str]]) -> None:
        """Drop rows that no longer count; on a full disk they stay until the next time."""
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            self._drop(stale)
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._undo()
            if error.sqlite_errorcode not in _FULL:
                raise

    def _undo(self) -> None:
        # SQLite may have rolled back by itself already; the first error is the one to tell.
        with contextlib.suppress(sqlite3.Error):
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")

    def _pragma(self, name: str) -> int:
        return int(self._connection.execute(f"PRAGMA {name}").fetchone()[0])

    # -- writing -----------------------------------------------------------------------

    def _insert(self, rows: Sequence[Row]) -> None:
        for first in range(0, len(rows), ROWS_PER_INSERT):
            part = rows[first : first + ROWS_PER_INSERT]
            statement = _INSERT + ",".join([_ROW] * len(part))
            self._connection.execute(statement, [column for row in part for column in row])

    def _write_rest(self, change: Change) -> None:
        run = self._connection.execute
        if change.granted is not None:
            run("INSERT INTO lease VALUES (?,?)", (change.granted.lease.id, change.granted.lease.ttl_s))
        if change.revoked is not None:
            run("DELETE FROM lease WHERE id=?", (change.revoked.lease.id,))
        if change.compacted:
            run("UPDATE meta SET value=? WHERE name='compacted'", (change.compacted,))
            self._drop(change.dropped)

    def _drop(self, rows: Iterable[tuple[int, str]]) -> None:
        run = self._connection.execute
        keys_of: dict[int, list[str]] = defaultdict(list)
        for revision, key in rows:
            keys_of[revision].append(key)
        for revision, keys in keys_of.items():
            span = (revision * ROWS_PER_REVISION, (revision + 1) * ROWS_PER_REVISION - 1)
            if len(keys) < LIST_ROWS_FROM:
                for key in keys:
                    run("DELETE FROM record WHERE id BETWEEN ? AND ? AND key=?", (*span, key))
                continue
            number_of = {
                key: n for n, key in run("SELECT id, key FROM record WHERE id BETWEEN ? AND ?", span)
            }
            numbers = [(number_of[key],) for key in keys if key in number_of]
            self._connection.executemany("DELETE FROM record WHERE id=?", numbers)


def sorted_error(path: Path, error: sqlite3.Error) -> StoreError:
    """SQLite's error as what the caller must do about it."""
    code = getattr(error, "sqlite_errorcode", 0)
    if code in _FULL:
        return NoSpace(f"no space left for {path}")
    if code & 0xFF in _DAMAGED:
        return Corrupted(path, str(error))
    # After a failed fsync nobody knows what the disk holds.
    return Unavailable(f"cannot write {path}: {error}", outcome_unknown=True)


def _rows(change: Change) -> Iterator[Row]:
    for place, record in enumerate(change.records):
        number = record.mod_revision * ROWS_PER_REVISION + place
        columns = (number, record.key, record.value, record.create_revision, record.version, record.lease)
        yield (*columns, _checksum(*columns))


def _checksum(number: int, key: str, value: bytes, created: int, version: int, lease: int) -> int:
    return zlib.crc32(value, zlib.crc32(f"{number} {created} {version} {lease} {key}".encode()))
