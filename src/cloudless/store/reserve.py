"""Space that is kept so that a full disk can still be told of: a file that is given up then.

``database`` owns it. Whoever fills the disk, deletes, leadership and the news that a node
has no space can be written after that; the file is made again when there is room.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from cloudless.store.limits import RESERVE_BYTES

_MODE = 0o600


class Reserve:
    """``spent`` says that the space is in use. Every method may block."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.spent = True

    def keep(self) -> None:
        """Take the space, if there is clearly more than that."""
        with contextlib.suppress(OSError):
            stat = os.statvfs(self._path.parent)
            held = self._path.stat().st_blocks * 512 if self._path.exists() else 0
            if held < RESERVE_BYTES and stat.f_bavail * stat.f_frsize + held < RESERVE_BYTES * 3 // 2:
                return
            fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, _MODE)
            try:
                os.posix_fallocate(fd, 0, RESERVE_BYTES)
            finally:
                os.close(fd)
            self.spent = False

    def spend(self) -> bool:
        """Give the space up; whether there was any."""
        self.spent = True
        try:
            self._path.unlink()
        except OSError:
            return False
        return True
