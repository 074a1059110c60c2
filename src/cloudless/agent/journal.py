"""What this node was told, and what it must not forget of its replicas: one append log.

The node loop writes it, and reads it once at the start. Each line carries a checksum;
a last line that was cut short is dropped, anything else that is wrong makes the whole
content untrusted: the file is set aside, and the node keeps what runs until the
coordinator has spoken. An append survives the death of the process at once, and a
power cut after ``sync``. A disk that refuses (it is full) ends nothing: what could not be
written is known in memory, and the log is written anew as soon as it can be.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from cloudless.domain.errors import Fatal
from cloudless.domain.model import Model
from cloudless.domain.replica import Assignment, ExitStatus, ReplicaPhase
from cloudless.domain.rollout import TrafficShare

log = logging.getLogger(__name__)

FORMAT = 1
#: The log is written anew when it is this large and mostly history, in bytes.
COMPACT_BYTES = 1024 * 1024
COMPACT_RATIO = 4
#: Damaged journals that are kept for a person to look at.
KEPT_DAMAGED = 3


class Progress(Model):
    """What this node did for a replica so far; counters never fall.

    ``attempt`` is the number of the newest container (0: none yet). ``ended`` is set once
    the replica is over and must not be started again.
    """

    replica_id: str
    attempt: int = 0
    restarts: int = 0
    failures: int = 0
    failed_starts: int = 0
    last_exit: ExitStatus | None = None
    image_digest: str = ""
    ended: ReplicaPhase | None = None
    message: str = ""


class Journal:
    """Open with ``Journal.open``; one per data directory (the agent holds its lock)."""

    def __init__(self, path: Path, node_id: str) -> None:
        self._path = path
        self._node_id = node_id
        self._fd = -1
        self._size_bytes = 0
        self._live_bytes = 0
        self._late: list[bytes] | None = None
        #: Whether the file lacks something that was refused.
        self._behind = False
        self._syncing = asyncio.Lock()
        self.assignments: dict[str, Assignment] = {}
        #: Replicas that are no longer assigned, and of which something may be left; with what
        #: they were, if that is known: their stop signal and grace still count.
        self.doomed: dict[str, Assignment | None] = {}
        self.progress: dict[str, Progress] = {}
        #: Who gets new connections, by workload id; a workload without an entry has no shares.
        self.traffic: dict[str, tuple[TrafficShare, ...]] = {}
        #: Highest leader epoch heard of; a lower one is refused.
        self.epoch = 0
        #: Why earlier content could not be trusted; empty when it could.
        self.damage = ""

    @classmethod
    def open(cls, path: Path, node_id: str) -> Journal:
        """Read what is there, or begin anew. Raises ``Fatal`` when the disk refuses."""
        journal = cls(path, node_id)
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            journal._load()
            journal._rewrite()
        except OSError as error:
            raise Fatal(f"cannot use the journal {path}: {error.strerror or error}") from error
        return journal

    def tell(
        self,
        *,
        epoch: int,
        whole: bool,
        assignments: Iterable[Assignment],
        removed: Iterable[str],
        traffic: Mapping[str, tuple[TrafficShare, ...]] | None = None,
    ) -> None:
        """Write down a message of the coordinator; ``whole`` dooms whatever it does not name.

        Shares come before replicas: no prefix of the log has a replica that gets connections
        which its message did not give it.
        """
        lines: list[dict[str, Any]] = []
        given = {assignment.replica_id: assignment for assignment in assignments}
        dropped = set(removed)
        splits = dict(traffic or {})
        if whole:
            dropped |= self.assignments.keys() - given.keys()
            splits |= dict.fromkeys(self.traffic.keys() - splits.keys(), ())
        if epoch > self.epoch:
            lines.append({"epoch": epoch})
        for workload_id, shares in splits.items():
            if self.traffic.get(workload_id, ()) != shares:
                lines.append(_share_line(workload_id, shares))
        for replica_id, assignment in given.items():
            if self.assignments.get(replica_id) != assignment:
                lines.append({"assign": assignment.model_dump(mode="json", exclude_defaults=True)})
        lines += [{"drop": replica_id} for replica_id in sorted(dropped & self.assignments.keys())]
        self._append(lines)

    def known(self) -> Iterator[Assignment]:
        """Everything known of replicas that may be here, those that are to go included."""
        yield from self.assignments.values()
        yield from filter(None, self.doomed.values())

    def note(self, progress: Progress) -> None:
        """Remember how far a replica got."""
        if self.progress.get(progress.replica_id) != progress:
            self._append([{"seen": progress.model_dump(mode="json", exclude_defaults=True)}])

    def forget(self, replica_id: str) -> None:
        """Nothing is left of a replica that is no longer assigned."""
        if replica_id in self.doomed or replica_id in self.progress:
            self._append([{"gone": replica_id}])

    async def sync(self) -> None:
        """Make everything written so far survive a power cut; rewrites the log when it has grown."""
        async with self._syncing:
            try:
                if self._behind or self._size_bytes > max(COMPACT_BYTES, COMPACT_RATIO * self._live_bytes):
                    await self._compact()
                fd = os.dup(self._fd)
                try:
                    await asyncio.to_thread(os.fdatasync, fd)
                finally:
                    os.close(fd)
            except OSError as error:
                self._refused(error)

    def close(self) -> None:
        """Let go of the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _load(self) -> None:
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return
        try:
            for record in read_lines(data, self._node_id):
                self._apply(record)
        except ValueError as error:
            self.damage = f"journal {self._path.name} cannot be trusted: {error}"
            log.warning("the journal is damaged", extra={"path": str(self._path), "why": str(error)})
            self.assignments, self.doomed, self.progress = {}, {}, {}
            self.traffic, self.epoch = {}, 0
            self._set_aside()

    def _set_aside(self) -> None:
        taken = sorted(self._path.parent.glob(f"{self._path.name}.damaged-*"))
        for old in taken[: max(len(taken) - KEPT_DAMAGED + 1, 0)]:
            old.unlink()
        number = int(taken[-1].name.rpartition("-")[2]) + 1 if taken else 1
        os.replace(self._path, self._path.with_name(f"{self._path.name}.damaged-{number:06d}"))

    def _apply(self, record: dict[str, Any]) -> None:
        kind, value = next(iter(record.items()))
        if kind == "epoch":
            self.epoch = int(value)
        elif kind == "assign":
            assignment = Assignment.model_validate(value)
            self.assignments[assignment.replica_id] = assignment
            self.doomed.pop(assignment.replica_id, None)
        elif kind == "share":
            shares = tuple(TrafficShare.model_validate(share) for share in value["shares"])
            self.traffic.pop(value["workload_id"], None)
            if shares:
                self.traffic[value["workload_id"]] = shares
        elif kind == "drop":
            self.doomed[value] = self.assignments.pop(value, None)
        elif kind == "seen":
            progress = Progress.model_validate(value)
            self.progress[progress.replica_id] = progress
        elif kind == "gone":
            self.doomed.pop(value, None)
            if value not in self.assignments:
                self.progress.pop(value, None)
        else:
            raise ValueError(f"unknown record {kind!r}")

    def _append(self, records: list[dict[str, Any]]) -> None:
        if not records:
            return
        data = b"".join(map(encode_line, records))
        for record in records:
            self._apply(record)
        if self._late is not None:
            self._late.append(data)
        try:
            if not self._behind:
                _write_all(self._fd, data)
                self._size_bytes += len(data)
            elif self._late is None:
                self._rewrite()
        except OSError as error:
            self._refused(error)

    def _refused(self, error: OSError) -> None:
        """Something is not in the file: nothing may come after it but a whole new one."""
        if not self._behind:
            why = error.strerror or str(error)
            log.warning("the journal cannot be written", extra={"path": str(self._path), "why": why})
        self._behind = True
        with contextlib.suppress(OSError):
            os.ftruncate(self._fd, self._size_bytes)  # half a line would damage what comes after it

    def _snapshot(self) -> bytes:
        records: list[dict[str, Any]] = [{"format": FORMAT, "node_id": self._node_id}]
        records.append({"epoch": self.epoch})
        records += [_share_line(workload_id, shares) for workload_id, shares in self.traffic.items()]
        for assignment in self.known():
            records.append({"assign": assignment.model_dump(mode="json", exclude_defaults=True)})
        records += [{"drop": replica_id} for replica_id in sorted(self.doomed)]
        for progress in self.progress.values():
            records.append({"seen": progress.model_dump(mode="json", exclude_defaults=True)})
        return b"".join(map(encode_line, records))

    def _rewrite(self) -> None:
        data = self._snapshot()
        with self._fresh_file() as fd:
            _write_and_sync(fd, data)
            self._replace(fd, len(data))
        _sync_folder(self._path.parent)

    async def _compact(self) -> None:
        data, self._late = self._snapshot(), []
        try:
            with self._fresh_file() as fd:
                await asyncio.to_thread(_write_and_sync, fd, data)
                # From here on nothing is awaited: no append can come between.
                late = b"".join(self._late)
                _write_all(fd, late)
                self._replace(fd, len(data) + len(late))
        finally:
            self._late = None
        await asyncio.to_thread(_sync_folder, self._path.parent)

    @contextlib.contextmanager
    def _fresh_file(self) -> Iterator[int]:
        """A new file beside the old one; gone afterwards, unless it has replaced it."""
        fresh = self._path.with_name(f"{self._path.name}.new")
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            yield fd
        finally:
            os.close(fd)
            with contextlib.suppress(OSError):
                fresh.unlink()

    def _replace(self, fd: int, size_bytes: int) -> None:
        own = os.dup(fd)
        try:
            os.replace(self._path.with_name(f"{self._path.name}.new"), self._path)
        except OSError:
            os.close(own)
            raise
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._size_bytes, self._live_bytes = own, size_bytes, size_bytes
        if self._behind:
            log.info("the journal is whole again", extra={"path": str(self._path)})
        self._behind = False


def _share_line(workload_id: str, shares: Iterable[TrafficShare]) -> dict[str, Any]:
    return {"share": {"workload_id": workload_id, "shares": [share.model_dump() for share in shares]}}


def node_of(path: Path) -> str:
    """The node whose journal this is; "" when it does not say."""
    try:
        with path.open("rb") as file:
            checksum, _, payload = file.readline().rstrip(b"\n").partition(b" ")
        if checksum != b"%08x" % zlib.crc32(payload):
            return ""
        return str(json.loads(payload)["node_id"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def encode_line(record: dict[str, Any]) -> bytes:
    """A record with its checksum.

    >>> encode_line({"epoch": 3})
    b'e44cf0fb {"epoch":3}\\n'
    """
    data = json.dumps(record, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(data), data)


def read_lines(data: bytes, node_id: str) -> Iterator[dict[str, Any]]:
    """The records of a journal of this node; raises ``ValueError`` saying what is wrong where.

    A last line without its end was being written when the process died: it is left out.
    """
    lines = data.split(b"\n")[:-1]
    for number, line in enumerate(lines, 1):
        checksum, _, payload = line.partition(b" ")
        if checksum != b"%08x" % zlib.crc32(payload):
            raise ValueError(f"line {number} does not match its checksum")
        record = json.loads(payload)
        if not isinstance(record, dict) or not record:
            raise ValueError(f"line {number} is not a record")
        if number == 1:
            if record.get("format") != FORMAT:
                raise ValueError("it is not a journal of this version")
            if record.get("node_id") != node_id:
                raise ValueError(f"it belongs to another node ({str(record.get('node_id'))[:40]})")
            continue
        yield record
    if not lines and data:
        raise ValueError("its first line is cut short")


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _write_and_sync(fd: int, data: bytes) -> None:
    _write_all(fd, data)
    os.fsync(fd)


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
