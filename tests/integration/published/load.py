"""A client at full rate: a new connection for each request, each failure kept."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

REQUEST = b"GET / HTTP/1.0\r\nHost: web\r\n\r\n"
AT_ONCE = 4
LIMIT_S = 10.0


class Load:
    """Requests until ``stop``; ``answers`` counts bodies, ``failures`` tells of all others.

    At full rate, or with a pause after each request.
    """

    def __init__(self, port: int, pause_s: float = 0.0) -> None:
        self.port = port
        self.pause_s = pause_s
        self.answers: Counter[str] = Counter()
        self.failures: list[str] = []
        self.stop = False
        self.total = 0
        self._asking: set[object] = set()
        self._changed = asyncio.Event()

    async def until_more(self, count: int) -> None:
        """Wait for so many more requests, whatever they bring."""
        goal = self.total + count
        async with asyncio.timeout(LIMIT_S * 3):
            while self.total < goal:
                self._changed.clear()
                await self._changed.wait()

    async def count_anew(self) -> None:
        """Forget all answers, also to requests that are on their way: those were asked before."""
        earlier = set(self._asking)
        async with asyncio.timeout(LIMIT_S * 3):
            while earlier & self._asking:
                self._changed.clear()
                await self._changed.wait()
        self.answers.clear()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(self._ask_again_and_again())

    async def _ask_again_and_again(self) -> None:
        while not self.stop:
            self._asking.add(request := object())
            try:
                self.answers[await ask(self.port)] += 1
            except (OSError, ValueError) as error:
                self.failures.append(f"{type(error).__name__}: {error}")
                await asyncio.sleep(0.001)
            self._asking.discard(request)
            self.total += 1
            self._changed.set()
            if self.pause_s:
                await asyncio.sleep(self.pause_s)


async def ask(port: int) -> str:
    """The body of one answer; raises ``OSError`` or ``ValueError`` when it is not whole."""
    async with asyncio.timeout(LIMIT_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(REQUEST)
            answer = (await reader.read()).decode()
        finally:
            writer.close()
    head, _, body = answer.partition("\r\n\r\n")
    if " 200 " not in head.partition("\r\n")[0] or not body.endswith("\n"):
        raise ValueError(f"not a whole answer: {answer[:80]!r}")
    return body.strip()


@asynccontextmanager
async def load(port: int, pause_s: float = 0.0) -> AsyncIterator[Load]:
    """Requests run during the block, and a hundred of them before and after it."""
    made = Load(port, pause_s)
    async with asyncio.TaskGroup() as group:
        group.create_task(made.run())
        try:
            await made.until_more(100)
            yield made
            await made.until_more(100)
        finally:
            made.stop = True
