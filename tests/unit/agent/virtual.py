"""Runs a test on a loop with virtual time: hours pass at once, threads' work is done in place."""

from __future__ import annotations

import asyncio
import datetime
import functools
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import async_solipsism

from cloudless.aio.clock import LoopClock

START = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
#: In virtual seconds: a test that waits this long waits for ever.
LIMIT_S = 100_000.0


class InPlace(ThreadPoolExecutor):
    """Does the work of threads at once: a virtual clock must not run on while a thread works."""

    def submit(self, work: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(work(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


def virtual(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Decorates an async test function."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        async def limited() -> None:
            async with asyncio.timeout(LIMIT_S):
                await test(*args, **kwargs)

        loop = async_solipsism.EventLoop()
        loop.set_default_executor(InPlace(max_workers=1))
        try:
            loop.run_until_complete(limited())
        finally:
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()

    return run


def virtual_clock() -> LoopClock:
    """Wall time that begins at ``START`` and follows the loop."""
    return LoopClock(START)
