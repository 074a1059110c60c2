"""Which programs run on this node because somebody asked for them, and ending one of them.

``Programs`` and ``CommandRunner`` say what begins and what is over; probes and hooks, which
nobody asked for, are not here. Nothing is stored: what outlives the agent is found again by
the runtime and handed to ``Programs.adopt``.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
from collections.abc import Iterator

from cloudless.agent.execs.limits import LISTED_SOON_S, LOOKED_S
from cloudless.agent.runtime.execport import RunningExec
from cloudless.aio.supervise import Supervisor
from cloudless.domain.errors import CloudlessError, DeadlineExceeded, Invalid, NotFound, Unavailable

_EPOCH = datetime.datetime.fromtimestamp(0, datetime.UTC)


class ExecRegistry:
    """``tasks`` is the agent's supervisor: what is to be ended is ended, also when its caller leaves."""

    def __init__(self, tasks: Supervisor) -> None:
        self._tasks = tasks
        self._running: dict[str, tuple[RunningExec, asyncio.Event]] = {}
        #: Ids of those that may run, though the runtime could not be asked how they ended.
        self._lost: set[str] = set()
        #: Set when the runtime has said what an earlier life left.
        self._looked = asyncio.Event()
        self._number = 0

    def add(self, process: RunningExec) -> None:
        """It runs."""
        self._lost.discard(process.exec_id)
        self._running[process.exec_id] = process, asyncio.Event()

    def remove(self, process: RunningExec) -> None:
        """It has ended."""
        _, over = self._running.pop(process.exec_id, (None, asyncio.Event()))
        over.set()

    @contextlib.contextmanager
    def holding(self, process: RunningExec) -> Iterator[None]:
        """It runs for as long as the block does."""
        self.add(process)
        try:
            yield
        finally:
            self.remove(process)

    def lose(self, process: RunningExec) -> None:
        """The runtime went away: it stays here until ``forget_lost``, or until it is added anew."""
        self._lost.add(process.exec_id)

    async def complete(self) -> None:
        """Return when what an earlier life left is here, too; raises ``Unavailable`` when that takes long."""
        try:
            async with asyncio.timeout(LOOKED_S):
                await self._looked.wait()
        except TimeoutError:
            raise Unavailable(
                "it is not known yet which programs run: containerd has not answered", hint="try again then"
            ) from None

    def forget_lost(self) -> None:
        """The runtime was asked again: what it did not find has ended."""
        self._looked.set()
        for exec_id in self._lost & self._running.keys():
            self.remove(self._running[exec_id][0])
        self._lost.clear()

    def within(self, containers: frozenset[str]) -> list[RunningExec]:
        """Those that run in these containers, the oldest first."""
        found = [one for one, _ in self._running.values() if one.fact.container_id in containers]
        return sorted(found, key=lambda one: (one.fact.started_at or _EPOCH, one.exec_id))

    def find(self, exec_id: str, containers: frozenset[str]) -> RunningExec:
        """The one whose id begins so; raises ``NotFound``, ``Invalid``."""
        if not exec_id:
            raise Invalid.field("exec_id", "is required: the id of a program, or its first letters")
        known = {one.exec_id: one for one in self.within(containers)}
        fitting = [name for name in known if name.startswith(exec_id)]
        if exec_id in known:
            return known[exec_id]
        if not fitting:
            raise NotFound(f"no program {exec_id[:80]!r} runs here", hint="list the programs that run")
        if len(fitting) > 1:
            raise Invalid.field("exec_id", f"{exec_id[:80]!r} means several: {', '.join(fitting[:4])}")
        return known[fitting[0]]

    async def end(self, process: RunningExec, grace_s: float) -> None:
        """End it with all that it started; returns when that is so.

        Raises ``DeadlineExceeded`` when something of it cannot be killed, ``RuntimeAway``.
        """
        self._number += 1
        task = self._tasks.start(f"kill {self._number}", _end(process, grace_s))
        await asyncio.wait({task})
        if task.cancelled():
            raise Unavailable("the agent is stopping", hint="again when it is back")
        ended = task.result()
        if isinstance(ended, CloudlessError):
            raise ended
        if not ended:
            raise DeadlineExceeded(f"program {process.exec_id} was killed, and something of it has not ended")
        # So that whoever lists them next does not see it; a caller may be slow to take its output.
        _, over = self._running.get(process.exec_id, (None, None))
        if over is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LISTED_SOON_S):
                    await over.wait()


async def _end(process: RunningExec, grace_s: float) -> bool | CloudlessError:
    try:
        return await process.end(grace_s)
    except CloudlessError as error:
        return error
