"""The directory of an embedded store: private to its owner, held by one process.

``embedded`` opens it first and closes it last. The lock is the kernel's (``flock``): it
ends with the process however that ends, which is what proves that a former holder is
gone. Never reads or writes the database itself.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from typing import Final

from cloudless.store.errors import DataDirInUse

LOCK_NAME: Final = "lock"
DATABASE_NAME: Final = "store.db"
DIRECTORY_MODE: Final = 0o700
FILE_MODE: Final = 0o600


class DataDir:
    """A locked directory; ``release`` gives it back."""

    def __init__(self, path: Path) -> None:
        """Create ``path`` if needed and lock it.

        Raises ``DataDirInUse`` when another process (or this one) holds it, ``OSError`` when
        it cannot be made.
        """
        self.path = path
        self.database = path / DATABASE_NAME
        path.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        self._lock = os.open(path / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = _read_pid(self._lock)
            os.close(self._lock)
            raise DataDirInUse(path, pid) from None
        try:
            self._prepare()
        except BaseException:
            self.release()
            raise

    def _prepare(self) -> None:
        # Only whoever is refused reads the pid: a full disk is no reason not to start.
        with contextlib.suppress(OSError):
            os.ftruncate(self._lock, 0)
            os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)
        # The database and its log get this mode: SQLite gives the log the mode of the file.
        os.close(os.open(self.database, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE))
        os.chmod(self.database, FILE_MODE)
        directory = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def size_bytes(self) -> int:
        """Bytes of the database and its log."""
        size_bytes = 0
        for suffix in ("", "-wal"):
            with contextlib.suppress(FileNotFoundError):
                size_bytes += os.stat(f"{self.database}{suffix}").st_size
        return size_bytes

    def release(self) -> None:
        """Let the next process in."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def _read_pid(lock: int) -> int:
    text = os.pread(lock, 32, 0).strip()
    return int(text) if text.isdigit() else 0
