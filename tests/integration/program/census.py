"""Counts what one node left on the machine; after ``cloudless reset`` that is nothing."""

from __future__ import annotations

import glob
import pathlib
import subprocess
import time

from tests.integration.program.served import POLL_S, Served, processes

from cloudless.agent.network.names import Names

#: A process that was killed is there for a moment longer; nothing that is left by mistake ever goes.
GONE_S = 10.0


def leftovers(data_dir: pathlib.Path, node_id: str) -> list[str]:
    """One line for each thing that is still there of the node that served from ``data_dir``, and stays."""
    end_s = time.monotonic() + GONE_S
    while (found := _look(data_dir, node_id)) and time.monotonic() < end_s:
        time.sleep(POLL_S)
    return found


def _look(data_dir: pathlib.Path, node_id: str) -> list[str]:
    names = Names.of(str(data_dir / "agent"))
    marks = (str(data_dir), names.mark)
    found = [
        f"process {pid}: {' '.join(words)}" for pid, words in processes() if str(data_dir) in " ".join(words)
    ]
    mounts = pathlib.Path("/proc/self/mountinfo").read_text().splitlines()
    found += [f"mount {line}" for line in mounts if any(mark in line for mark in marks)]
    interfaces = [path.name for path in pathlib.Path("/sys/class/net").iterdir()]
    found += [f"interface {name}" for name in interfaces if names.mark in name]
    tables = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout
    found += [f"nft {line}" for line in tables.splitlines() if names.mark in line]
    for folder in (pathlib.Path("/run"), pathlib.Path("/sys/fs/cgroup"), pathlib.Path("/var/run/netns")):
        for pattern in (
            f"cloudless/{names.mark}*",
            f"*{names.mark}*",
            f"*/cloudless/{node_id}",
            f"cloudless/{node_id}",
        ):
            # Not ``Path.glob``: that raises when what is of another node goes while it looks.
            found += [f"path {folder / name}" for name in glob.glob(pattern, root_dir=folder)]
    if data_dir.exists():
        found.append(f"path {data_dir}")
    return found


def open_files(served: Served) -> int:
    """How many file descriptors the program has."""
    assert served.process is not None
    return len(list(pathlib.Path(f"/proc/{served.process.pid}/fd").iterdir()))


def tasks_of(served: Served) -> int:
    """How many threads the program has."""
    assert served.process is not None
    return len(list(pathlib.Path(f"/proc/{served.process.pid}/task").iterdir()))
