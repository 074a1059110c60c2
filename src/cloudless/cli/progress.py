"""Showing how a change gets on: in place on a terminal, one line per change on a pipe.

Changes write it to stderr, so that stdout stays for results; ``rollout watch`` is nothing
else, on stdout. Nothing is repeated on a pipe; on a terminal the block is repainted on
every change and once a second.
"""

from __future__ import annotations

import asyncio
import datetime
import re
from collections.abc import Callable, Iterator

from cloudless import api
from cloudless.cli.output.rollouts import bars, countdowns, strategy_text, way_text
from cloudless.cli.output.table import Cell, cut, display_width
from cloudless.cli.output.words import phase_cell, span
from cloudless.cli.terminal import Terminal, neutral
from cloudless.sdk.objects import enum_name
from cloudless.sdk.verdict import Outcome, Verdict, reason_of
from cloudless.sdk.workload import Workload

#: Replicas shown one by one; the others are counted.
MAX_REPLICAS_SHOWN = 12
REPAINT_S = 1.0
#: Phases in which a rollout is worth a line of its own.
_ON = frozenset({"PROGRESSING", "PAUSED", "WAITING_PROMOTION", "ROLLING_BACK"})


class Progress:
    """One wait; use as ``with``. ``update`` fits ``Client.follow(on_change=...)``."""

    def __init__(
        self,
        terminal: Terminal,
        name: str,
        now: Callable[[], datetime.datetime],
        *,
        quiet: bool = False,
    ) -> None:
        self._terminal = terminal
        self._name = name
        self._now = now
        self._quiet = quiet
        #: Of each replica what was told since it was ready: tries that fail alike are one line.
        self._told: dict[str, list[str]] | None = None
        self._painted = 0
        self._state: tuple[Workload, Verdict] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._started_s = asyncio.get_running_loop().time()

    def __enter__(self) -> Progress:
        if self._terminal.can_repaint and not self._quiet:
            self._tick()
        return self

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._erase()
        self._terminal.stream.flush()

    def update(self, workload: Workload, verdict: Verdict) -> None:
        """Show a new state."""
        if self._quiet:
            return
        if self._terminal.can_repaint:
            self._state = workload, verdict
            self._repaint()
            return
        self._tell(workload, verdict)

    def _tell(self, workload: Workload, verdict: Verdict) -> None:
        """For a pipe: each line is one fact; what was so before, or was told, is not told again."""
        replicas = _ordered(workload)
        facts = dict(_rollout_facts(self._name, workload, verdict))
        facts |= {replica.id: f"{_name_of(replica)}: {_state_of(replica)}" for replica in replicas}
        if self._told is None:
            self._told = {replica.id: [facts[replica.id]] for replica in replicas if replica.ready}
        # A failure is told by the error that ends the wait.
        if verdict.missing and _taken_up(workload) and verdict.outcome is not Outcome.FAILED:
            facts[""] = f"{self._name}: {_judged(verdict)}"
        trying = {replica.id for replica in replicas if not replica.ready}
        for key, fact in facts.items():
            told = self._told.setdefault(key, [])
            again = fact in told if key in trying else told[-1:] == [fact]
            if not again:
                self._terminal.line(fact)
                self._told[key] = [*told, fact] if key in trying else [fact]
        self._terminal.stream.flush()

    def _lines(self, workload: Workload, verdict: Verdict) -> list[str]:
        """The block as it is now."""
        rollout = workload.status.rollout or api.RolloutStatus()
        taken_up, deleted = _taken_up(workload), workload.message.deleted_at is not None
        on = _on(workload)
        elapsed = self._terminal.paint(span(asyncio.get_running_loop().time() - self._started_s), "dim")
        judged = _judged(verdict) or "done"
        if on:
            lines = [f"{self._name}  {way_text(rollout)}, {strategy_text(rollout)}  {elapsed}", f"  {judged}"]
        else:
            lines = [f"{self._name}  {judged}  {elapsed}"]
        if taken_up and not deleted:
            lines += bars(workload.message, self._terminal)
        if on and verdict.explanation is not None:
            lines.insert(1, f"  {self._terminal.paint(neutral(verdict.explanation.sentence), 'red')}")
        if on and rollout.step:
            lines.append(f"  step {rollout.step} of {rollout.steps}")
        told = countdowns(rollout, self._now()) if taken_up and not deleted else []
        tail = [f"  {text}" for text in told]
        room = max(self._terminal.height - len(lines) - len(tail) - 2, 1)
        lines += self._replica_lines(workload, min(room, MAX_REPLICAS_SHOWN))
        return lines + [self._terminal.paint(text, "dim") for text in tail]

    def _replica_lines(self, workload: Workload, room: int) -> Iterator[str]:
        replicas = _ordered(workload)
        if len(replicas) > room:  # those that something can be learned from
            shown = sorted(replicas, key=lambda replica: replica.available)[: room - 1 or 1]
        else:
            shown = replicas
        width = max((display_width(_name_of(replica)) for replica in shown), default=0)
        several = len({replica.revision for replica in replicas}) > 1
        for replica in sorted(shown, key=replicas.index):
            name = _name_of(replica)
            state = _state_cell(replica)
            text = self._terminal.paint(state.text, state.style)
            revision = f"revision {replica.revision}  " if several else ""
            node = f" on {neutral(replica.node)}" if replica.node else ""
            why = _why(replica) if not replica.ready else ""
            line = f"  {name}{' ' * (width - display_width(name))}  {revision}{text}{node}"
            yield f"{line}  {self._terminal.paint(why, 'dim')}" if why else line
        if len(replicas) > len(shown):
            yield f"  and {len(replicas) - len(shown)} more"

    def _tick(self) -> None:
        self._repaint()
        self._timer = asyncio.get_running_loop().call_later(REPAINT_S, self._tick)

    def _repaint(self) -> None:
        block = self._lines(*self._state) if self._state is not None else [f"{self._name}  asking"]
        lines = [_fit(line, self._terminal.width - 1) for line in block]
        self._erase()
        self._terminal.write("\n".join(lines) + "\n")
        self._painted = len(lines)
        self._terminal.stream.flush()

    def _erase(self) -> None:
        if self._painted:
            self._terminal.write(f"\x1b[{self._painted}A\r\x1b[J")
            self._painted = 0


def _taken_up(workload: Workload) -> bool:
    """Whether the status speaks of all that was asked for."""
    status = workload.status
    pending = status.rollout is not None and status.rollout.pending
    return status.observed_generation >= workload.generation and not pending


def _on(workload: Workload) -> bool:
    """Whether a rollout is on; what is being deleted has none any more, whatever its status says."""
    rollout = workload.status.rollout
    on = rollout is not None and enum_name(rollout.phase) in _ON
    return on and _taken_up(workload) and workload.message.deleted_at is None


def _rollout_facts(name: str, workload: Workload, verdict: Verdict) -> Iterator[tuple[str, str]]:
    """What a pipe is told about the rollout as a whole, by what it is about."""
    rollout = workload.status.rollout
    if rollout is None or not _on(workload):
        return
    if verdict.explanation is not None:
        yield "failure", f"{name}: {neutral(verdict.explanation.sentence)}"
    if rollout.from_revision or rollout.target_revision != rollout.revision:
        yield "way", f"{name}: {way_text(rollout)}, {strategy_text(rollout)}"
    if rollout.step:
        yield "step", f"{name}: step {rollout.step} of {rollout.steps}"
    if rollout.traffic:
        shares = ", ".join(f"{share.percent} % revision {share.revision}" for share in rollout.traffic)
        yield "traffic", f"{name}: traffic {shares}"


def _judged(verdict: Verdict) -> str:
    """What a verdict says, as part of a line."""
    text = neutral(verdict.missing)
    return f"waiting for {text}" if text and verdict.outcome is Outcome.WAIT else text


def _why(replica: api.ReplicaStatus) -> str:
    """Why a replica is not ready: its exit, what its node says, or the first refusals."""
    refused = [f"{refusal.node}: {refusal.reason}" for refusal in replica.refusals[:2]]
    return neutral(reason_of(replica) or "; ".join(refused))


def _ordered(workload: Workload) -> list[api.ReplicaStatus]:
    return sorted(
        workload.status.replicas, key=lambda replica: (replica.ordinal, replica.revision, replica.id)
    )


def _name_of(replica: api.ReplicaStatus) -> str:
    return f"{neutral(replica.workload)}/{replica.ordinal}"


def _state_of(replica: api.ReplicaStatus) -> str:
    state = _state_cell(replica).text.lower()
    where = f" on {neutral(replica.node)}" if replica.node else ""
    why = (
        neutral(reason_of(replica))
        if enum_name(replica.phase) in ("BACKING_OFF", "FAILED", "PENDING")
        else ""
    )
    revision = f" (revision {replica.revision})"
    why = re.sub(r"; (?:next try|restart \d+) after \S+ s$", "", why)
    return f"{state}{where}{revision}" + (f": {why}" if why else "")


def _state_cell(replica: api.ReplicaStatus) -> Cell:
    phase = enum_name(replica.phase)
    if phase == "RUNNING":
        return Cell("ready", "green") if replica.ready else Cell("running", "yellow")
    return phase_cell(phase, phase.lower().replace("_", " "))


def _fit(line: str, width: int) -> str:
    """Cut a line that would wrap; lines with colours are cut without them."""
    if "\x1b" not in line:
        return cut(line, width)
    bare = re.sub(r"\x1b\[[0-9;]*m", "", line)
    return line if display_width(bare) <= width else cut(bare, width)
