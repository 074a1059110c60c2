"""All logs of one node: where they lie, reading them, letting go of old ones.

The entrance of the room: the replica's life asks for directories and addresses, the
AgentService reads, the node's housekeeping collects. Layout: ``<root>/<replica>/<attempt>/``.
"""

from __future__ import annotations

import asyncio
import logging
import re
import shutil
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import NamedTuple

from cloudless.agent.logs import files
from cloudless.agent.logs.capture import install_logger, logger_uri
from cloudless.agent.logs.limits import KEEP_DEAD_BYTES, KEEP_DEAD_S
from cloudless.agent.logs.reader import ReadOptions, read_log
from cloudless.agent.logs.record import LogBatch
from cloudless.agent.logs.watch import LogWatcher
from cloudless.domain.errors import Invalid

log = logging.getLogger(__name__)

_REPLICA = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


class _Dead(NamedTuple):
    last_written_s: float
    path: Path
    size_bytes: int


class LogStore:
    """Logs under ``root``; the logger program is put into ``program_directory``. ``close`` it."""

    def __init__(self, root: Path, program_directory: Path) -> None:
        self._root = root
        self._program_directory = program_directory
        self._watcher = LogWatcher()

    def prepare(self, replica_id: str, attempt: int) -> str:
        """Make the directory of one attempt and return the address for containerd's stdout and stderr.

        Raises ``Invalid`` for an id that cannot be a directory name, and ``OSError``.
        """
        directory = self.directory(replica_id, attempt)
        directory.mkdir(mode=0o750, parents=True, exist_ok=True)
        return logger_uri(install_logger(self._program_directory), directory.resolve())

    def directory(self, replica_id: str, attempt: int) -> Path:
        """Where the log of one attempt lies, or would; raises ``Invalid``."""
        if _REPLICA.fullmatch(replica_id) is None or attempt < 0:
            raise Invalid.field("replica_id", f"no replica has the id {replica_id[:128]!r}")
        return self._root / replica_id / str(attempt)

    def attempts(self, replica_id: str) -> tuple[int, ...]:
        """The attempts of a replica whose logs are kept, oldest first; raises ``Invalid``."""
        parent = self.directory(replica_id, 0).parent
        if not parent.is_dir():
            return ()
        return tuple(sorted(int(path.name) for path in parent.iterdir() if path.name.isdigit()))

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
                if parent.name not in current and parent.is_dir() and not any(parent.iterdir()):
                    parent.rmdir()
        return removed

    def _dead(self, current: dict[str, int]) -> list[_Dead]:
        found: list[_Dead] = []
        if not self._root.is_dir():
            return found
        for parent in self._root.iterdir():
            if parent.is_symlink() or not parent.is_dir():
                continue
            kept_from = current.get(parent.name)
            for path in parent.iterdir():
                if not path.name.isdigit() or (kept_from is not None and int(path.name) >= kept_from - 1):
                    continue
                written_s = max(
                    (entry.stat().st_mtime for entry in path.iterdir()), default=path.stat().st_mtime
                )
                found.append(_Dead(written_s, path, files.size_bytes(path)))
        return found
