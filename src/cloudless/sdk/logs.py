"""Following logs: a stream of lines that goes on over lost connections, without repeats."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncGenerator
from contextlib import aclosing
from types import TracebackType
from typing import Self

from cloudless import api
from cloudless.domain.errors import Unavailable
from cloudless.sdk.calling import Caller, retry_delay_s
from cloudless.sdk.objects import LogLine


class LogStream:
    """``async with`` it, then ``async for line in``; leaving the block ends the call.

    When a followed stream breaks, it is asked for again from the last time seen; lines of
    that very instant that were already given are not given twice.
    """

    def __init__(
        self, caller: Caller, stub: api.CoordinatorServiceStub, request: api.StreamLogsRequest
    ) -> None:
        self._caller = caller
        self._stub = stub
        self._request = request
        #: Per container: time of its last line, and how many lines had that time.
        self._seen: dict[str, tuple[datetime.datetime, int]] = {}
        self._skip: dict[str, tuple[datetime.datetime, int]] = {}
        self._connected = False
        self._lines: AsyncGenerator[LogLine, None] | None = None

    async def __aenter__(self) -> Self:
        self._lines = self._run()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lines is not None:
            await self._lines.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> LogLine:
        if self._lines is None:
            raise RuntimeError("use 'async with client.logs(...) as lines'")
        return await self._lines.__anext__()

    async def _run(self) -> AsyncGenerator[LogLine, None]:
        loop = asyncio.get_running_loop()
        backoff, give_up_s = self._caller.backoff(), loop.time() + self._caller.patience_s
        while True:
            try:
                async with aclosing(self._stub.stream_logs(self._request)) as entries:  # type: ignore[type-var]
                    async for entry in entries:
                        self._connected = True
                        backoff.reset()
                        if self._is_new(entry):
                            yield LogLine(entry)
                return
            except Unavailable as error:
                delay_s = retry_delay_s(error, backoff)
                if self._connected and not self._request.follow:
                    raise
                if not self._connected and loop.time() + delay_s >= give_up_s:
                    raise
            await asyncio.sleep(delay_s)
            self._resume()

    def _resume(self) -> None:
        """Ask for everything since the oldest of the sources' last lines."""
        if self._seen:
            self._request.since = min(at for at, _ in self._seen.values())
            self._request.tail_lines = None
            self._skip = dict(self._seen)

    def _is_new(self, entry: api.LogEntry) -> bool:
        """Count an entry; False when it was given before the stream broke."""
        if entry.at is None:
            return True
        last, left = self._skip.get(entry.container_id, (entry.at, 0))
        if left and entry.at < last:
            return False
        if left and entry.at == last:
            self._skip[entry.container_id] = (last, left - 1)
            return False
        seen_at, count = self._seen.get(entry.container_id, (entry.at, 0))
        if entry.at >= seen_at:
            self._seen[entry.container_id] = (entry.at, count + 1 if entry.at == seen_at else 1)
        return True
