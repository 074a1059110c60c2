"""All versions of all keys since the last compaction, in memory; plain code, no waiting.

Used by ``model`` only. Versions are appended in the order of revisions; the newest of
them may be *staged*: evaluated, but not durable yet. Readers see up to ``visible``;
``rollback`` takes the staged ones away again. A deleted key has a last version with
``version`` 0 until compaction drops it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator

from cloudless.store.errors import Compacted, InvalidRequest
from cloudless.store.port import KeyValue, Page

Records = tuple[KeyValue, ...]

#: What one version costs besides its key and value; an estimate for the limits.
RECORD_OVERHEAD_BYTES = 200
#: Above so many removed keys it is cheaper to build the index anew.
FORGET_AT_ONCE = 64


def prefix_end(prefix: str) -> str | None:
    """The first text after all that start with ``prefix``; ``None`` when there is none.

    >>> prefix_end("ab"), prefix_end("a\\U0010ffff"), prefix_end("")
    ('ac', 'b', None)
    """
    stem = prefix.rstrip("\U0010ffff")
    return stem[:-1] + chr(ord(stem[-1]) + 1) if stem else None


class History:
    """Versions by key, keys in order, and changes by revision."""

    def __init__(self) -> None:
        self.revision = 1  # the newest one, staged or not
        self.visible = 1
        self.compacted = 0  # the oldest readable revision, 0: all of them
        self.live_bytes = 0
        self.total_bytes = 0
        self._versions: dict[str, list[KeyValue]] = {}
        self._index: list[str] = []  # every key with a version, in order
        self._log: list[Records] = []  # _log[i] made revision _log_start + i
        self._log_start = 2
        self._leased: dict[int, set[str]] = {}
        self._open: list[KeyValue] = []

    def __len__(self) -> int:
        """Revisions that a watch can still ask for."""
        return len(self._log)

    # -- writing ---------------------------------------------------------------------

    def latest(self, key: str) -> KeyValue | None:
        """The newest version, staged ones included; ``None`` when deleted or never there."""
        versions = self._versions.get(key)
        return versions[-1] if versions and versions[-1].version else None

    def write(self, key: str, value: bytes, lease: int) -> None:
        """Add a version that belongs to the next revision; ``seal`` ends that revision."""
        revision = self.revision + 1
        old = self.latest(key)
        created, version = (old.create_revision, old.version + 1) if old else (revision, 1)
        self._push(KeyValue(key, value, created, revision, version, lease))

    def delete(self, key: str) -> int:
        """Add a deletion to the next revision; the number of keys deleted, 0 or 1."""
        if self.latest(key) is None:
            return 0
        self._push(KeyValue(key, b"", 0, self.revision + 1, 0))
        return 1

    def seal(self) -> Records:
        """End the revision: what was written in it; without writes there is no new one."""
        records = tuple(self._open)
        if records:
            self._open.clear()
            self._log.append(records)
            self.revision += 1
        return records

    def settle(self, revision: int) -> None:
        """Show everything up to ``revision`` to readers."""
        self.visible = revision

    def rollback(self) -> None:
        """Take away every revision after ``visible``."""
        while self.revision > self.visible:
            for record in reversed(self._log.pop()):
                self._pop(record.key)
            self.revision -= 1

    def leased(self, lease_id: int) -> list[str]:
        """Keys attached to a lease, in order."""
        return sorted(self._leased.get(lease_id, ()))

    def scan_newest(self, prefix: str, limit: int) -> Page:
        """Like ``scan``, but of the newest state, the open revision included."""
        return self.scan(prefix, self.revision + bool(self._open), limit=limit)

    # -- reading ---------------------------------------------------------------------

    def check(self, revision: int | None) -> int:
        """The revision to read at. Raises ``Compacted`` or ``InvalidRequest``."""
        if revision is None:
            return self.visible
        if revision > self.visible:
            raise InvalidRequest(f"revision {revision} is in the future, the newest is {self.visible}")
        if revision < self.compacted:
            raise Compacted(self.compacted)
        return revision

    def at(self, key: str, revision: int) -> KeyValue | None:
        """The version of a key at a revision that ``check`` has passed."""
        for version in reversed(self._versions.get(key, ())):
            if version.mod_revision <= revision:
                return version if version.version else None
        return None

    def scan(self, prefix: str, revision: int, *, start_after: str | None = None, limit: int = 0) -> Page:
        """Keys under a prefix as they were at ``revision``, in order."""
        items: list[KeyValue] = []
        index, versions = self._index, self._versions
        for position in range(*self._span(prefix, start_after)):
            found = versions[index[position]][-1]
            if found.mod_revision > revision:
                older = self.at(index[position], revision)
                if older is None:
                    continue
                found = older
            elif not found.version:
                continue
            if limit and len(items) == limit:
                return Page(revision, tuple(items), more=True)
            items.append(found)
        return Page(revision, tuple(items))

    def keys(self, prefix: str) -> list[str]:
        """Keys under a prefix that have any version, deleted ones included."""
        first, end = self._span(prefix)
        return self._index[first:end]

    def changes(self, first: int, last: int) -> Iterator[tuple[int, Records]]:
        """What revisions ``first`` to ``last`` changed. Raises ``Compacted``."""
        if first <= self.compacted:
            raise Compacted(self.compacted)
        start = self._log_start
        return zip(range(first, last + 1), self._log[first - start : last + 1 - start], strict=True)

    # -- compaction and loading --------------------------------------------------------

    def compact(self, revision: int) -> list[tuple[int, str]]:
        """Drop what was superseded before ``revision``; (revision, key) of what is gone.

        The caller has made sure that ``revision`` is visible; an older one does nothing.
        """
        if revision <= self.compacted:
            return []
        count = revision + 1 - self._log_start
        touched = {record.key for records in self._log[:count] for record in records}
        del self._log[:count]
        self._log_start = revision + 1
        self.compacted = revision
        return self._trim(sorted(touched), revision)

    def load(self, records: Iterable[KeyValue], compacted: int) -> list[tuple[int, str]]:
        """Fill an empty history with versions in the order of revisions.

        Answers (revision, key) of rows that an interrupted compaction left behind.
        Raises ``ValueError`` when a revision is missing.
        """
        self.compacted = compacted
        self.revision = max(compacted, 1)
        self._log_start = self.revision + 1
        for record in records:
            self._versions.setdefault(record.key, []).append(record)
            self.total_bytes += _size_bytes(record)
            if record.mod_revision <= compacted:
                continue
            if record.mod_revision == self.revision + 1:
                self._log.append(())
                self.revision += 1
            if record.mod_revision != self.revision:
                raise ValueError(f"revision {self.revision + 1} is missing")
            self._log[-1] += (record,)
        self._index = sorted(self._versions)
        stale = self._trim(self._index, compacted)
        for versions in self._versions.values():
            self._live(versions[-1], +1)
        self.visible = self.revision
        return stale

    # -- inside ------------------------------------------------------------------------

    def _push(self, record: KeyValue) -> None:
        versions = self._versions.get(record.key)
        if versions is None:
            self._versions[record.key] = [record]
            insort(self._index, record.key)
        else:
            self._live(versions[-1], -1)
            versions.append(record)
        self._live(record, +1)
        self.total_bytes += _size_bytes(record)
        self._open.append(record)

    def _pop(self, key: str) -> None:
        versions = self._versions[key]
        gone = versions.pop()
        self._live(gone, -1)
        self.total_bytes -= _size_bytes(gone)
        if versions:
            self._live(versions[-1], +1)
        else:
            self._forget([key])

    def _live(self, record: KeyValue, sign: int) -> None:
        if record.version:
            self.live_bytes += sign * _size_bytes(record)
        if record.lease and sign > 0:
            self._leased.setdefault(record.lease, set()).add(record.key)
        elif record.lease:
            keys = self._leased[record.lease]
            keys.discard(record.key)
            if not keys:
                del self._leased[record.lease]

    def _trim(self, keys: Iterable[str], revision: int) -> list[tuple[int, str]]:
        """Keep of each key what is readable at ``revision`` or later."""
        rows: list[tuple[int, str]] = []
        empty: list[str] = []
        for key in keys:
            versions = self._versions[key]
            keep = bisect_right(versions, revision, key=_mod_revision)
            if keep and versions[keep - 1].version:
                keep -= 1
            for version in versions[:keep]:
                rows.append((version.mod_revision, key))
                self.total_bytes -= _size_bytes(version)
            del versions[:keep]
            if not versions:
                empty.append(key)
        self._forget(empty)
        return rows

    def _forget(self, keys: list[str]) -> None:
        for key in keys:
            del self._versions[key]
        if len(keys) > FORGET_AT_ONCE:
            self._index = [key for key in self._index if key in self._versions]
        else:
            for key in keys:
                del self._index[bisect_left(self._index, key)]

    def _span(self, prefix: str, start_after: str | None = None) -> tuple[int, int]:
        """Where the keys of a prefix stand in the index."""
        first = bisect_left(self._index, prefix)
        if start_after is not None:
            first = max(first, bisect_right(self._index, start_after))
        end = prefix_end(prefix)
        return first, len(self._index) if end is None else bisect_left(self._index, end)


def _mod_revision(version: KeyValue) -> int:
    return version.mod_revision


def _size_bytes(record: KeyValue) -> int:
    return len(record.key) + len(record.value) + RECORD_OVERHEAD_BYTES
