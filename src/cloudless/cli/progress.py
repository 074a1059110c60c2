"""Showing how a change gets on: in place on a terminal, one line per change on a pipe.

Writes to stderr only, so that stdout stays for results. Nothing is repeated on a pipe;
on a terminal the block is repainted on every change and once a second.
"""

from __future__ import annotations

import asyncio
import re

from cloudless import api
from cloudless.cli.output.table import Cell, cut, display_width
from cloudless.cli.output.words import phase_cell, span
from cloudless.cli.terminal import Terminal, neutral
from cloudless.sdk.objects import enum_name
from cloudless.sdk.verdict import Outcome, Verdict, reason_of
from cloudless.sdk.workload import Workload

#: Replicas shown one by one; the others are counted.
MAX_REPLICAS_SHOWN = 12
REPAINT_S = 1.0


class Progress:
    """One wait; use as ``with``. ``update`` fits ``Client.follow(on_change=...)``."""

    def __init__(self, terminal: Terminal, name: str, *, quiet: bool = False) -> None:
        self._terminal = terminal
        self._name = name
        self._quiet = quiet
        #: Of each replica what was told since it was ready: tries that fail alike are one line.
        self._told: dict[str, list[str]] | None = None
        self._painted = 0
        self._block: list[str] = []
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
            self._block = self._lines(workload, verdict)
            self._repaint()
            return
        self._tell(workload, verdict)

    def _tell(self, workload: Workload, verdict: Verdict) -> None:
        """For a pipe: each line is one fact; what was so before, or was told, is not told again."""
        replicas = _ordered(workload)
        facts = {replica.id: f"{_name_of(replica)}: {_state_of(replica)}" for replica in replicas}
        if self._told is None:
            self._told = {replica.id: [facts[replica.id]] for replica in replicas if replica.ready}
        observed = workload.status.observed_generation >= workload.generation
        # A failure is told by the error that ends the wait.
        if verdict.missing and observed and verdict.outcome is not Outcome.FAILED:
            facts[""] = f"{self._name}: {_judged(verdict)}"
        ready = {replica.id for replica in replicas if replica.ready}
        for key, fact in facts.items():
            told = self._told.setdefault(key, [])
            again = told[-1:] == [fact] if key in ready or not key else fact in told
            if not again:
                self._terminal.line(fact)
                self._told[key] = [fact] if key in ready or not key else [*told, fact]

    def _lines(self, workload: Workload, verdict: Verdict) -> list[str]:
        lines = [f"{self._name}  {_judged(verdict) or 'done'}"]
        replicas = _ordered(workload)
        width = max((display_width(_name_of(replica)) for replica in replicas), default=0)
        for replica in replicas[:MAX_REPLICAS_SHOWN]:
            name = _name_of(replica)
            state = _state_cell(replica)
            text = self._terminal.paint(state.text, state.style)
            node = f" on {neutral(replica.node)}" if replica.node else ""
            why = _why(replica) if not replica.ready else ""
            line = f"  {name}{' ' * (width - display_width(name))}  {text}{node}"
            lines.append(f"{line}  {self._terminal.paint(why, 'dim')}" if why else line)
        if len(replicas) > MAX_REPLICAS_SHOWN:
            lines.append(f"  and {len(replicas) - MAX_REPLICAS_SHOWN} more")
        return lines

    def _tick(self) -> None:
        self._repaint()
        self._timer = asyncio.get_running_loop().call_later(REPAINT_S, self._tick)

    def _repaint(self) -> None:
        elapsed = span(asyncio.get_running_loop().time() - self._started_s)
        block = self._block or [f"{self._name}  asking"]
        first = f"{block[0]}  {self._terminal.paint(elapsed, 'dim')}"
        self._erase()
        lines = [_fit(line, self._terminal.width - 1) for line in [first, *block[1:]]]
        self._terminal.write("\n".join(lines) + "\n")
        self._painted = len(lines)
        self._terminal.stream.flush()

    def _erase(self) -> None:
        if self._painted:
            self._terminal.write(f"\x1b[{self._painted}A\r\x1b[J")
            self._painted = 0


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
