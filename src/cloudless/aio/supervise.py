"""Named children: every background task has an owner, a name and an end.

``Supervisor`` is an async context manager that owns tasks. A child that fails is
reported to the owner: by default the whole group ends with that error (a bug ends
the process loudly); ``restart`` children are started again with back-off. Leaving
the block cancels what still runs and waits for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from types import TracebackType
from typing import Any, Self

from cloudless.aio.backoff import Backoff

log = logging.getLogger(__name__)

#: How long a cancelled child may take to end before its owner names it in the log.
SLOW_END_S = 10.0


class Supervisor:
    """Owns a set of named tasks; must be used as ``async with``."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._children: dict[str, asyncio.Task[Any]] = {}
        self._failure: asyncio.Future[None] | None = None
        self._closing = False

    async def __aenter__(self) -> Self:
        self._failure = asyncio.get_running_loop().create_future()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
        failure = self._failure
        if failure is not None and failure.done() and error is None:
            failure.result()
        elif failure is not None and failure.done():
            failure.exception()  # mark as seen: the caller's own error is the one that counts

    def __contains__(self, name: str) -> bool:
        return name in self._children

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the children that run now."""
        return tuple(self._children)

    def start(self, name: str, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run ``coroutine`` as the child ``name``; its failure fails the owner.

        Raises ``RuntimeError`` when the name is taken or the owner is closing.
        """
        if self._closing or self._failure is None or name in self._children:
            coroutine.close()
            why = "already runs" if name in self._children else "owner is not open"
            raise RuntimeError(f"cannot start {self.name}/{name}: {why}")
        task = asyncio.get_running_loop().create_task(coroutine, name=f"{self.name}/{name}")
        self._children[name] = task
        task.add_done_callback(lambda done: self._ended(name, done))
        return task

    def start_restarting(
        self, name: str, factory: Callable[[], Awaitable[None]], backoff: Backoff
    ) -> asyncio.Task[Any]:
        """Like ``start``, but a child that raises is logged and run again after ``backoff``."""
        return self.start(name, _restarting(f"{self.name}/{name}", factory, backoff))

    async def stop(self, name: str) -> None:
        """Cancel one child and wait until it has ended; unknown names are no error."""
        task = self._children.get(name)
        if task is not None:
            task.cancel()
            await _gone({task}, self.name)

    async def wait(self) -> None:
        """Wait until a child fails (raises its error); never returns otherwise."""
        assert self._failure is not None, "use 'async with'"
        await asyncio.shield(self._failure)

    def cancel_all(self) -> None:
        """Cancel every child and wait for none; more may be started afterwards."""
        for task in tuple(self._children.values()):
            task.cancel()

    async def close(self) -> None:
        """Cancel every child and wait for all of them."""
        self._closing = True
        tasks = set(self._children.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await _gone(tasks, self.name)

    def _ended(self, name: str, task: asyncio.Task[Any]) -> None:
        if self._children.get(name) is task:
            del self._children[name]
        if task.cancelled():
            return
        error = task.exception()
        if error is None:
            return
        log.error("task failed", extra={"task": task.get_name()}, exc_info=error)
        if self._failure is not None and not self._failure.done():
            self._failure.set_exception(error)
            # A failure nobody waits for is raised on leaving the block, never lost.
            self._failure.exception()


async def _restarting(name: str, factory: Callable[[], Awaitable[None]], backoff: Backoff) -> None:
    while True:
        try:
            await factory()
            return
        except Exception:
            delay_s = backoff.next()
            log.exception("task failed, will run again", extra={"task": name, "delay_s": delay_s})
            await asyncio.sleep(delay_s)


async def _gone(tasks: set[asyncio.Task[Any]], owner: str) -> None:
    current = asyncio.current_task()
    waiting = {task for task in tasks if task is not current}
    while waiting:
        _, waiting = await asyncio.wait(waiting, timeout=SLOW_END_S)
        if waiting:
            names = sorted(task.get_name() for task in waiting)
            log.warning("tasks are slow to end", extra={"owner": owner, "tasks": names})
