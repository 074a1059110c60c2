"""Which replica explains most, and what it is waited for: words about a census."""

from __future__ import annotations

from cloudless.domain.replica import ExitStatus, ReplicaPhase
from cloudless.planning.bounds import Bounds
from cloudless.planning.census import Census, Standing
from cloudless.planning.limits import MAX_QUOTED

_TROUBLE = (
    ReplicaPhase.FAILED,
    ReplicaPhase.BACKING_OFF,
    ReplicaPhase.PENDING,
    ReplicaPhase.UNKNOWN,
    ReplicaPhase.STARTING,
    ReplicaPhase.RUNNING,
)


def worst_of(standings: list[Standing]) -> Standing | None:
    """Of replicas that have not settled, the one that explains most."""
    open_ones = [one for one in standings if not one.settled and one.phase in _TROUBLE]
    return min(open_ones, key=lambda one: _TROUBLE.index(one.phase), default=None)


def counted(number: int, what: str = "replica") -> str:
    """
    >>> counted(1), counted(2, "old replica")
    ('1 replica', '2 old replicas')
    """
    return f"{number} {what}{'' if number == 1 else 's'}"


def waiting_for(census: Census, bounds: Bounds) -> str:
    """What has to happen next, in words that change only when that does."""
    worst = worst_of(census.new)
    if worst is not None:
        return f"{worst.title} ({worst.phase.lower().replace('_', ' ')}) of revision {worst.record.revision}"
    if census.leaving:
        return f"{counted(len(census.leaving), 'old replica')} to stop"
    if census.old:
        return f"{counted(len(census.old), 'old replica')} to be replaced"
    return f"{counted(bounds.desired - len(census.new))} to be created"


def trouble_of(one: Standing) -> str:
    """Why a replica is not well, from what its node said."""
    seen = one.observation
    if seen is None:
        return "no word from its node yet"
    text = seen.message or (exit_text(seen.last_exit) if seen.last_exit else "")
    return (text or "no reason given")[:MAX_QUOTED]


def exit_text(last: ExitStatus) -> str:
    """How a container ended: its exit code always, and in brackets what that does not say.

    >>> import datetime
    >>> at = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    >>> exit_text(ExitStatus(code=3, reason="Error", finished_at=at))
    'exit code 3'
    >>> exit_text(ExitStatus(code=137, reason="OOMKilled", oom_killed=True, finished_at=at))
    'exit code 137 (out of memory)'
    """
    code = f"exit code {last.code}"
    if last.oom_killed:
        return f"{code} (out of memory)"
    return code if last.reason in ("", "Error", "Completed", code) else f"{code} ({last.reason})"
