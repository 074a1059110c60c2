"""Short words for cells: ages, sizes, counts, phases with their colours."""

from __future__ import annotations

import datetime
from collections.abc import Sequence

from cloudless.cli.output.table import Cell

_STYLES = {
    "Available": "green",
    "Succeeded": "green",
    "READY": "green",
    "RUNNING": "green",
    "SUCCEEDED": "green",
    "Normal": "",
    "Progressing": "yellow",
    "Pending": "yellow",
    "PENDING": "yellow",
    "STARTING": "yellow",
    "STOPPING": "yellow",
    "BACKING_OFF": "red",
    "Deleting": "yellow",
    "Degraded": "red",
    "Failed": "red",
    "Paused": "yellow",
    "WaitingPromotion": "yellow",
    "RollingBack": "red",
    "RolledBack": "yellow",
    "Aborted": "yellow",
    "PROGRESSING": "yellow",
    "PAUSED": "yellow",
    "WAITING_PROMOTION": "yellow",
    "COMPLETED": "green",
    "ROLLING_BACK": "red",
    "ROLLED_BACK": "red",
    "ABORTED": "yellow",
    "Unplaced": "red",
    "FAILED": "red",
    "UNKNOWN": "red",
    "LOST": "red",
    "DISCONNECTED": "red",
    "NOT_READY": "red",
    "Warning": "yellow",
}


def phase_cell(phase: str, shown: str = "") -> Cell:
    """A phase in its colour; ``shown`` replaces the word."""
    return Cell(shown or pretty(phase), _STYLES.get(phase, ""))


def pretty(phase: str) -> str:
    """API names as words.

    >>> pretty("BACKING_OFF"), pretty("Available")
    ('BackingOff', 'Available')
    """
    if not phase.isupper():
        return phase
    return "".join(part.capitalize() for part in phase.split("_"))


def age(at: datetime.datetime | None, now: datetime.datetime) -> str:
    """How long ago, in one or two units.

    >>> now = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)
    >>> age(now - datetime.timedelta(minutes=3, seconds=5), now), age(None, now)
    ('3m5s', '-')
    """
    if at is None:
        return "-"
    return span((now - at).total_seconds())


def span(total_s: float) -> str:
    """A length of time in one or two units.

    >>> span(0.4), span(59), span(3700), span(200_000)
    ('0s', '59s', '61m', '2d7h')
    """
    seconds = max(int(total_s), 0)
    if seconds < 120:
        return f"{seconds}s"
    if seconds < 600:
        return f"{seconds // 60}m{seconds % 60}s" if seconds % 60 else f"{seconds // 60}m"
    if seconds < 7200:
        return f"{seconds // 60}m"
    if seconds < 172_800:
        return f"{seconds // 3600}h"
    days, hours = seconds // 86_400, seconds % 86_400 // 3600
    return f"{days}d{hours}h" if days < 10 and hours else f"{days}d"


def size(number: int) -> str:
    """Bytes with a binary unit and three digits.

    >>> size(0), size(1536), size(67108864)
    ('0', '1.5Ki', '64Mi')
    """
    amount, unit = float(number), ""
    for unit in ("", "Ki", "Mi", "Gi", "Ti", "Pi"):
        if abs(amount) < 1024 or unit == "Pi":
            break
        amount /= 1024
    text = f"{amount:.1f}".removesuffix(".0") if amount < 100 else f"{amount:.0f}"
    return f"{text}{unit}"


def cpu(millicores: int) -> str:
    """Cores.

    >>> cpu(250), cpu(2000)
    ('0.25', '2')
    """
    return f"{millicores / 1000:.3f}".rstrip("0").rstrip(".")


def joined(labels: dict[str, str]) -> str:
    """Labels in one cell."""
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items()))


def command_line(words: Sequence[str], *, cut: bool = False, limit: int = 60) -> str:
    """A command as one would type it, of limited width; ``cut``: it was longer than these words.

    >>> command_line(["sh", "-c", "sleep 5"]), command_line(["sleep", "1000"], limit=7)
    ("sh -c 'sleep 5'", 'sleep 1...')
    """
    import shlex  # what a list of workloads need not pay for

    text = shlex.join(words)
    return f"{text[:limit]}..." if cut or len(text) > limit else text
