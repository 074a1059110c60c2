"""How a container's output gets to its log: the logger program and the address that names it.

The program is copied out of the package once per version, so that replicas that run keep
theirs when the package is upgraded or gone.
"""

from __future__ import annotations

import hashlib
import os
import sys
import urllib.parse
from pathlib import Path

from cloudless.agent.logs import logger
from cloudless.agent.logs.limits import FILE_BYTES, FILES

#: The kernel takes no longer first line.
_MAX_SHEBANG_BYTES = 120
_FALLBACK = "/usr/bin/python3"


def install_logger(directory: Path, interpreter: str = sys.executable) -> Path:
    """Put the logger program into ``directory`` and return its path; repeating it changes nothing.

    ``interpreter`` runs it, without anything but its standard library. Raises ``OSError``.
    """
    source = Path(logger.__file__).read_text()
    python = os.path.realpath(interpreter)
    if not python or len(python) > _MAX_SHEBANG_BYTES or " " in python:
        python = _FALLBACK
    text = f"#!{python} -IS\n{source}"
    path = directory / f"logger-{hashlib.blake2s(text.encode(), digest_size=8).hexdigest()}"
    if path.exists() and path.read_text() == text:
        return path
    directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    fresh = path.with_suffix(f".{os.getpid()}")
    with fresh.open("w") as file:
        file.write(text)
        os.fchmod(file.fileno(), 0o755)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    return path


def logger_uri(program: Path, directory: Path, *, file_bytes: int = FILE_BYTES, files: int = FILES) -> str:
    """What containerd takes as a task's stdout and stderr, to have it logged in ``directory``.

    The one query key and its value become the program's two arguments; several keys would
    come in random order.

    >>> logger_uri(Path("/var/lib/c/logger-1"), Path("/var/lib/c/logs/r/0"))
    'binary:///var/lib/c/logger-1?/var/lib/c/logs/r/0=10485760-5'
    """
    quoted = urllib.parse.quote(str(directory), safe="/")
    return f"binary://{urllib.parse.quote(str(program), safe='/')}?{quoted}={file_bytes}-{files}"


def holding(uri: str, pipe: Path) -> str:
    """The same logger, which also holds the container's standard input open.

    >>> holding("binary:///l?/logs/r/0=1-2", Path("/inputs/c"))
    'binary:///l?/logs/r/0=1-2-/inputs/c'
    """
    return f"{uri}-{urllib.parse.quote(str(pipe), safe='/')}" if uri else ""
