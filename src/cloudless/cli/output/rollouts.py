"""A rollout in words and bars: what ``rollout status``, the live view and errors show of it.

Reads messages and answers lines; who writes them, and when, is decided elsewhere.
"""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from cloudless import api
from cloudless.cli.output.words import phase_cell, span
from cloudless.cli.terminal import Terminal, neutral
from cloudless.sdk.objects import enum_name

if TYPE_CHECKING:
    from cloudless.sdk.explaining import Explanation

BAR_WIDTH = 20
#: Parts of a bar: available, there but not available, missing.
_BLOCKS = {True: "█▒░", False: "#=-"}
_STYLES = ("green", "yellow", "dim")


#: Phases of replicas that ended badly, whether they are tried again or not.
_FAILING = frozenset({"BACKING_OFF", "FAILED"})


class RevisionCount(NamedTuple):
    """The replicas of one revision; ``percent`` of new connections, None where nobody counts them."""

    number: int
    available: int
    existing: int
    percent: int | None
    failing: int = 0


def strategy_text(rollout: api.RolloutStatus) -> str:
    """The strategy as people say it.

    >>> strategy_text(api.RolloutStatus(strategy=api.RolloutStrategyStrategy.BLUE_GREEN))
    'blue-green'
    """
    name = enum_name(rollout.strategy)
    return "blue-green" if name == "BLUE_GREEN" else name.lower().replace("_", " ")


def way_text(rollout: api.RolloutStatus) -> str:
    """From where to where.

    >>> way_text(api.RolloutStatus(revision=4, from_revision=3, target_revision=4))
    'revision 3 -> 4'
    >>> way_text(api.RolloutStatus(revision=4, from_revision=3, target_revision=3))
    'revision 4 -> 3 (back)'
    """
    if rollout.target_revision and rollout.target_revision != rollout.revision:
        return f"revision {rollout.revision} -> {rollout.target_revision} (back)"
    if rollout.from_revision:
        return f"revision {rollout.from_revision} -> {rollout.revision}"
    return f"revision {rollout.revision}"


def phase_text(rollout: api.RolloutStatus) -> str:
    """The phase in one word, for example ``RolledBack``."""
    return phase_cell(enum_name(rollout.phase)).text


def revision_counts(workload: api.Workload) -> list[RevisionCount]:
    """Replicas by revision: the one that is made now first, then the others, newest first.

    Replicas of an older revision with the same template (an undo that found them still there)
    count as those that are made now.
    """
    status = workload.status or api.WorkloadStatus()
    rollout = status.rollout or api.RolloutStatus()
    target = rollout.target_revision or status.revision
    existing = Counter(replica.revision for replica in status.replicas)
    available = Counter(replica.revision for replica in status.replicas if replica.available)
    failing = Counter(one.revision for one in status.replicas if enum_name(one.phase) in _FAILING)
    shares = traffic_of(workload)
    percent = Counter(shares)
    if rollout.target_revision:
        for number in _same_as_target(existing, target, rollout.old_replicas):
            for counts in (existing, available, percent, failing):
                counts[target] += counts.pop(number, 0)
    return [
        RevisionCount(
            number,
            available[number],
            existing[number],
            percent[number] if shares else None,
            failing[number],
        )
        for number in sorted({*existing, target}, key=lambda number: (number != target, -number))
    ]


def _same_as_target(existing: Counter[int], target: int, old: int) -> list[int]:
    """The revisions whose replicas the coordinator counts as new, though they have another number.

    >>> _same_as_target(Counter({2: 3}), 4, 0), _same_as_target(Counter({4: 1, 3: 2}), 4, 2)
    ([2], [])
    """
    others = {number: count for number, count in existing.items() if number != target}
    more = sum(others.values()) - old
    if more <= 0:
        return []
    same = [number for number, count in others.items() if count == more]
    return same[:1] or (list(others) if not old else [])


def traffic_of(workload: api.Workload) -> dict[int, int]:
    """Revision -> percent of new connections to published ports; empty when there are no such ports.

    Without shares of its own every ready replica gets as many as any other.
    """
    status, spec = workload.status, workload.spec
    if status is None or spec is None or not any(port.publish for port in spec.ports):
        return {}
    if status.rollout is not None and status.rollout.traffic:
        return {share.revision: share.percent for share in status.rollout.traffic}
    ready: dict[int, int] = {}
    for replica in status.replicas:
        if replica.ready and enum_name(replica.phase) == "RUNNING":
            ready[replica.revision] = ready.get(replica.revision, 0) + 1
    total = sum(ready.values())
    return {number: round(100 * count / total) for number, count in ready.items()}


def traffic_text(workload: api.Workload) -> str:
    """Who gets new connections; empty when it is one revision alone, or nobody."""
    shares = traffic_of(workload)
    if len(shares) < 2:
        return ""
    return ", ".join(f"{percent} % revision {number}" for number, percent in sorted(shares.items()))


def bars(workload: api.Workload, terminal: Terminal) -> list[str]:
    """A line with a bar for each revision that has replicas."""
    counts = revision_counts(workload)
    desired = (workload.status or api.WorkloadStatus()).desired_replicas
    total = max([desired, *(one.existing for one in counts)])
    width = max(len(str(one.number)) for one in counts)
    told = [_told(one, desired, made=not index) for index, one in enumerate(counts)]
    lines = []
    for one, said in zip(counts, told, strict=True):
        shown = bar(terminal, one.available, one.existing, total)
        traffic = "" if one.percent is None else f"{one.percent:>3} % of traffic"
        lines.append(
            f"  revision {one.number:<{width}}  {shown}  {said:<{max(map(len, told))}}  {traffic}".rstrip()
        )
    return lines


def _told(one: RevisionCount, desired: int, *, made: bool) -> str:
    if not made:
        return f"{one.existing} left"
    coming = one.existing - one.available - one.failing
    parts = ((coming, "coming"), (one.failing, "failing"))
    more = "".join(f", {count} {what}" for count, what in parts if count > 0)
    return f"{one.available}/{desired} available{more}"


def bar(terminal: Terminal, available: int, existing: int, total: int, width: int = BAR_WIDTH) -> str:
    """``available`` of ``existing`` of ``total`` as a bar; a part that is not 0 can be seen."""
    full = _cells(available, total, width)
    there = max(full, _cells(existing, total, width))
    if existing > available and there == full:
        there, full = there, max(full - 1, 0)
    lengths = (full, there - full, width - there)
    parts = zip(_BLOCKS[terminal.draws], lengths, _STYLES, strict=True)
    return "".join(terminal.paint(sign * length, style) for sign, length, style in parts)


def _cells(count: int, total: int, width: int) -> int:
    """
    >>> _cells(1, 1000, 24), _cells(999, 1000, 24), _cells(5, 5, 24), _cells(0, 0, 24)
    (1, 23, 24, 0)
    """
    if not count or not total:
        return 0
    return width if count >= total else min(max(width * count // total, 1), width - 1)


def countdowns(rollout: api.RolloutStatus, now: datetime.datetime) -> list[str]:
    """What time will do: when it goes on by itself, and when it fails."""
    lines = []
    paused = enum_name(rollout.phase) == "PAUSED"  # nothing goes on by itself then
    if rollout.waits_until is not None and not paused:
        left_s = (rollout.waits_until - now).total_seconds()
        leaving = rollout.from_revision if rollout.target_revision == rollout.revision else rollout.revision
        gone = f"the replicas of revision {leaving} go" if leaving else "the old replicas go"
        what = {"retire": gone, "bake": "counts as healthy"}.get(rollout.stage, "goes on")
        lines.append(f"{what} in {span(left_s)}" if left_s >= 0 else f"{what} now")
    if rollout.deadline is not None:
        left_s = (rollout.deadline - now).total_seconds()
        unless = {"PAUSED": "somebody resumes it", "WAITING_PROMOTION": "somebody promotes it"}
        lines.append(
            f"fails in {span(left_s)} unless {unless.get(enum_name(rollout.phase), 'it gets further')}"
        )
    return lines


def reason_lines(reasons: Sequence[api.Reason]) -> list[str]:
    """A tree of reasons, indented."""
    return [f"{'  ' * min(reason.depth, 10)}{neutral(reason.text)}" for reason in reasons]


def failure_lines(told: Explanation, terminal: Terminal, *, said: str = "") -> list[str]:
    """Everything about a failure that ``said`` does not say already."""
    fields = [("result", told.outcome if told.outcome not in said else "")]
    where = f"{told.replica}{f' on {told.node}' if told.node else ''}" if told.replica else ""
    if where:
        how = told.exit_text or "its container never ended"
        fields.append(("replica", f"{where}: {how}" if told.exit_text or not told.detail else where))
    if told.detail and told.detail not in (told.exit_text, said):
        fields.append(("detail", told.detail if told.detail not in said else ""))
    fields += [("changed", change) for change in told.changes]
    shown = [(name, neutral(value)) for name, value in fields if value]
    lines = []
    for index, (name, value) in enumerate(shown):
        label = name if index == 0 or shown[index - 1][0] != name else ""
        lines.append(f"{label:<8} {value}")
    if told.log_lines:
        lines.append(f"last lines of {neutral(told.replica) or 'the replica'}:")
        lines += [terminal.paint(f"  | {neutral(text, tabs=True)}", "dim") for text in told.log_lines]
    return lines
