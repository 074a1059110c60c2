"""The machine under the benchmark: is it quiet, what do processes use, where may things lie."""

from __future__ import annotations

import asyncio
import os
import platform
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

#: The machine is quiet when less than this share of all cores is busy.
QUIET_SHARE = 0.15
QUIET_LOOK_S = 0.5
QUIET_WAIT_S = 30.0
MIB = 1024 * 1024


@dataclass(frozen=True)
class Load:
    """Busy and all CPU seconds of the whole machine since its start."""

    busy_s: float
    total_s: float


def load() -> Load:
    fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    ticks = os.sysconf("SC_CLK_TCK")
    idle = fields[3] + fields[4]
    return Load((sum(fields) - idle) / ticks, sum(fields) / ticks)


class Quiet:
    """Waits for the machine to be quiet; remembers how often it gave up."""

    def __init__(self, wait_s: float = QUIET_WAIT_S) -> None:
        self.wait_s = wait_s
        self.waited = 0
        self.gave_up = 0

    async def __call__(self) -> None:
        """Return when the machine is quiet, or after ``wait_s``."""
        self.waited += 1
        deadline_s = time.monotonic() + self.wait_s
        while True:
            before = load()
            await asyncio.sleep(QUIET_LOOK_S)
            after = load()
            if (after.busy_s - before.busy_s) / max(after.total_s - before.total_s, 1e-9) < QUIET_SHARE:
                return
            if time.monotonic() > deadline_s:
                self.gave_up += 1
                return


def pss_mib(pids: Iterable[int]) -> float:
    """Proportional set size of processes, in MiB; those that have ended count nothing.

    Pages of a file count in parts when other processes map it too: of another containerd,
    another Python. ``rss_mib`` counts them in full, once for each process.
    """
    return _memory_mib(pids, "Pss:")


def rss_mib(pids: Iterable[int]) -> float:
    """Resident set size of processes, in MiB."""
    return _memory_mib(pids, "Rss:")


def _memory_mib(pids: Iterable[int], kind: str) -> float:
    total_kib = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total_kib += sum(int(line.split()[1]) for line in lines if line.startswith(kind))
    return total_kib / 1024


def cpu_s(pids: Iterable[int]) -> float:
    """CPU time that processes have used themselves, in seconds."""
    total = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


def descendants(pid: int) -> list[int]:
    """All processes below one, without it."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except OSError:
                continue
            children.setdefault(parent, []).append(int(entry.name))
    found, left = [], [pid]
    while left:
        below = children.get(left.pop(), [])
        found += below
        left += below
    return found


def with_argument(program: str, argument: str) -> list[int]:
    """Processes whose program ends with ``program`` and whose arguments name ``argument``."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue
            if words[0].endswith(program) and any(argument in word for word in words[1:]):
                found.append(int(entry.name))
    return found


def calibration_ms() -> float:
    """How long one thread takes for a fixed piece of Python: to compare days and machines."""
    times = []
    for _ in range(5):
        began = time.perf_counter()
        sum(i * i for i in range(200_000))
        times.append((time.perf_counter() - began) * 1000)
    return min(times)


def description() -> str:
    """One line about the machine."""
    words = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":", 1)[1].strip() for line in words if line.startswith("model name")), "?")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3
    return (
        f"{os.cpu_count()} cores ({model}), {memory:.0f} GiB, Linux {platform.release()}, "
        f"Python {platform.python_version()}, calibration {calibration_ms():.1f} ms"
    )
