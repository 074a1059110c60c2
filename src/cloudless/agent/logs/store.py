"""All logs of one node: where they lie, reading them, letting go of old ones.

The entrance of the room: the replica's life asks for directories and addresses, the
AgentService reads, the node's housekeeping collects. Layout: ``<root>/<replica>/<attempt>/``.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import os
import re
import shutil
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from cloudless.agent.logs import files, index
from cloudless.agent.logs.begin import KnownRun
from cloudless.agent.logs.capture import install_logger, logger_uri
from cloudless.agent.logs.index import LogAbout
from cloudless.agent.logs.limits import FILE_BYTES, FILES, KEEP_DEAD_BYTES, KEEP_DEAD_S
from cloudless.agent.logs.live import LiveLog
from cloudless.agent.logs.reader import ReadOptions, read_log
from cloudless.agent.logs.record import LogBatch
from cloudless.agent.logs.watch import LogWatcher
from cloudless.domain.errors import Invalid
from cloudless.domain.replica import ExitStatus

log = logging.getLogger(__name__)

_REPLICA = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


class _Dead(NamedTuple):
    last_written_s: float
    path: Path
    size_bytes: int


class LogStore:
    """Logs under ``root``; the logger program is put into ``program_directory``. ``close`` it.

    Of each attempt's log ``files`` of ``file_bytes`` are kept.
    """

    def __init__(
        self, root: Path, program_directory: Path, *, file_bytes: int = FILE_BYTES, files: int = FILES
    ) -> None:
        self._root = root
        self._program_directory = program_directory
        self._file_bytes, self._files = file_bytes, files
        self._watcher = LogWatcher()
        self._abouts: dict[str, LogAbout] | None = None
        self._listeners: list[Callable[[str], None]] = []
        self._live: dict[Path, LiveLog] = {}

    def prepare(
        self, replica_id: str, attempt: int, about: LogAbout | None = None, *, started_ns: int = 0
    ) -> str:
        """Make the directory of one attempt and return the address for containerd's stdout and stderr.

        Raises ``Invalid`` for an id that cannot be a directory name, and ``OSError``.
        """
        directory = self.directory(replica_id, attempt)
        directory.mkdir(mode=0o750, parents=True, exist_ok=True)
        if about is not None:
            self._keep_about(about)
        if started_ns:
            index.write_run(directory, started_ns)
        for listener in tuple(self._listeners):
            listener(replica_id)
        program = install_logger(self._program_directory)
        return logger_uri(program, directory.resolve(), file_bytes=self._file_bytes, files=self._files)

    def exited(self, replica_id: str, attempt: int, status: ExitStatus) -> None:
        """Keep how an attempt ended; raises ``OSError``."""
        directory = self.directory(replica_id, attempt)
        if directory.is_dir():
            index.write_exit(directory, status)

    def ended(self, replica_id: str, at_ns: int) -> None:
        """Nothing is left of the replica but its logs; raises ``OSError``."""
        parent = self.directory(replica_id, 0).parent
        if parent.is_dir():
            about = self.about(replica_id) or index.read_about(parent) or LogAbout(replica_id)
            self._keep_about(dataclasses.replace(about, ended_ns=at_ns))
        for listener in tuple(self._listeners):
            listener(replica_id)

    def about(self, replica_id: str) -> LogAbout | None:
        """Whose log it is, as far as that is in memory: ``abouts`` was called, or it began to run since."""
        return None if self._abouts is None else self._abouts.get(replica_id)

    async def abouts(self) -> Mapping[str, LogAbout]:
        """Whose logs are kept, by replica; what is not known of one is empty."""
        if self._abouts is None:
            found = await asyncio.to_thread(self._read_all_abouts)
            self._abouts = {**found, **(self._abouts or {})}
        return self._abouts

    @contextmanager
    def listening(self, listener: Callable[[str], None]) -> Iterator[None]:
        """Call ``listener`` with the id of every replica that begins an attempt, or has ended."""
        self._listeners.append(listener)
        try:
            yield
        finally:
            self._listeners.remove(listener)

    def directory(self, replica_id: str, attempt: int) -> Path:
        """Where the log of one attempt lies, or would; raises ``Invalid``."""
        if _REPLICA.fullmatch(replica_id) is None or attempt < 0:
            raise Invalid.field("replica_id", f"no replica has the id {replica_id[:128]!r}")
        return self._root / replica_id / str(attempt)

    def attempts(self, replica_id: str) -> tuple[int, ...]:
        """The attempts of a replica whose logs are kept, oldest first; raises ``Invalid``."""
        parent = self.directory(replica_id, 0).parent
        return tuple(sorted(int(name) for name in _names_in(parent) if name.isdigit()))

    def known_run(self, replica_id: str, attempt: int) -> KnownRun:
        """Where the log of an attempt ends now, and what is known of it."""
        directory = self.directory(replica_id, attempt)
        info = index.read_run(directory)
        return KnownRun(directory, files.find_end(directory), info.started_ns, info.exit)

    def follow(self, replica_id: str, attempt: int) -> LiveLog:
        """The growing end of a log, one for all who follow it; give it back with ``unfollow``."""
        directory = self.directory(replica_id, attempt)
        live = self._live.get(directory)
        if live is None:
            live = self._live[directory] = LiveLog(directory, self._watcher)
        live.followers += 1
        return live

    def unfollow(self, live: LiveLog) -> None:
        """The last one closes it."""
        live.followers -= 1
        if not live.followers:
            live.close()
            del self._live[live.directory]

    def close_if_orphaned(self, replica_id: str, attempt: int, now_ns: int) -> bool:
        """Whether an attempt's logger was found dead: its log is closed then, and says so.

        Blocking; raises ``OSError``.
        """
        directory = self.directory(replica_id, attempt)
        if not files.has_lost_its_logger(directory):
            return False
        files.close_for_dead_logger(directory, now_ns)
        return True

    def read(
        self,
        replica_id: str,
        attempt: int,
        options: ReadOptions,
        finished: asyncio.Future[None] | None = None,
    ) -> AsyncGenerator[LogBatch, None]:
        """Batches of one attempt's log, to be closed with ``contextlib.aclosing``; see ``read_log``.

        ``finished``: done when the container's task is gone, in case its logger was killed.
        """
        return read_log(self.directory(replica_id, attempt), options, self._watcher, finished)

    async def remove(self, replica_id: str) -> None:
        """Delete every log of a replica."""
        parent = self.directory(replica_id, 0).parent
        await asyncio.to_thread(shutil.rmtree, parent, ignore_errors=True)
        self._forget(replica_id)

    async def collect(
        self,
        current: Mapping[str, int],
        now_s: float,
        *,
        max_age_s: float = KEEP_DEAD_S,
        max_bytes: int = KEEP_DEAD_BYTES,
    ) -> int:
        """Delete logs of the dead that are too old or, oldest first, too much; returns how many.

        ``current``: the attempt that runs, for each replica that lives; it and the one before
        it (which explains the restart) are never touched. ``now_s``: wall time in seconds.
        """
        return await asyncio.to_thread(self._collect, dict(current), now_s, max_age_s, max_bytes)

    def close(self) -> None:
        """Let go of the watcher; readers end when they look next."""
        self._watcher.close()

    def _collect(self, current: dict[str, int], now_s: float, max_age_s: float, max_bytes: int) -> int:
        dead = sorted(self._dead(current))
        total = sum(one.size_bytes for one in dead)
        removed = 0
        for one in dead:
            if total <= max_bytes and now_s - one.last_written_s <= max_age_s:
                break  # they come oldest first
            shutil.rmtree(one.path, ignore_errors=True)
            total -= one.size_bytes
            removed += 1
        if self._root.is_dir():
            for parent in self._root.iterdir():
                if parent.name not in current and parent.is_dir() and not _has_attempts(parent):
                    shutil.rmtree(parent, ignore_errors=True)
                    self._forget(parent.name)
        return removed

    def _forget(self, replica_id: str) -> None:
        if self._abouts is not None:
            self._abouts.pop(replica_id, None)

    def _keep_about(self, about: LogAbout) -> None:
        index.write_about(self.directory(about.replica_id, 0).parent, about)
        if self._abouts is not None:
            self._abouts[about.replica_id] = about

    def _read_all_abouts(self) -> dict[str, LogAbout]:
        if not self._root.is_dir():
            return {}
        return {
            parent.name: index.read_about(parent) or LogAbout(parent.name)
            for parent in self._root.iterdir()
            if parent.is_dir() and not parent.is_symlink() and _REPLICA.fullmatch(parent.name)
        }

    def _dead(self, current: dict[str, int]) -> list[_Dead]:
        found: list[_Dead] = []
        if not self._root.is_dir():
            return found
        for parent in self._root.iterdir():
            if parent.is_symlink() or not parent.is_dir():
                continue
            kept_from = current.get(parent.name)
            for name in _names_in(parent):
                if not name.isdigit() or (kept_from is not None and int(name) >= kept_from - 1):
                    continue
                with contextlib.suppress(FileNotFoundError):  # its logger rotates: the next time, then
                    found.append(_dead_at(parent / name))
        return found


def _dead_at(path: Path) -> _Dead:
    written_s = max((entry.stat().st_mtime for entry in path.iterdir()), default=path.stat().st_mtime)
    return _Dead(written_s, path, files.size_bytes(path))


def _has_attempts(parent: Path) -> bool:
    return any(name.isdigit() for name in _names_in(parent))


def _names_in(folder: Path) -> list[str]:
    """What is in a folder; nothing when somebody has removed it."""
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
