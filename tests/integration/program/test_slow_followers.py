"""A thousand followers of one log, nearly all of whom stop reading: what it costs, and how it ends."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from contextlib import aclosing

import pytest
from tests.integration.program.served import Served, until
from tests.integration.program.test_log_bytes import ready_at, said
from tests.integration.program.test_log_followers import rss_kib
from tests.integration.program.test_log_readers import start

import cloudless
from cloudless.coordinator.limits import MAX_LOG_STREAMS_OF_CALLER, MAX_PATIENT_LOGS
from cloudless.domain.errors import CloudlessError
from cloudless.domain.loglines import HEAD_BYTES
from cloudless.sdk.logbatch import LogChunk

FOLLOWERS, READING = MAX_LOG_STREAMS_OF_CALLER, 20
LIMIT_S = 240.0
#: What all of them may cost the program, in KiB: docs/logs.md says so.
ALL_KIB = 200 * 1024
#: Memory is level when it stays so close together for so long.
LEVEL_KIB, LEVEL_S = 8 * 1024, 10
LINE_BYTES = 1000
#: Numbered lines from when there is a file, 0.5 MB a second.
FLOOD = f"""
until [ -e /go ]; do usleep 20000; done
awk 'BEGIN {{ x = sprintf("%{LINE_BYTES - 9}s", ""); for (i = 0; ; i++) {{ printf "%07d %s\\n", i, x
if (i % 50 == 49) {{ fflush(); system("usleep 100000") }} }} }}'
"""


class Follower:
    """Takes what comes until it is to pause, and checks the numbers of the lines."""

    def __init__(self, goes_on: asyncio.Event) -> None:
        self._goes_on = goes_on
        self.caught_up = asyncio.Event()
        self.next: int | None = None
        self.errors: list[CloudlessError | None] = []

    async def run(self, client: cloudless.Client) -> None:
        told = self.errors.append
        async with (
            client.logs("web", follow=True, tail=0, on_connection=told) as lines,
            aclosing(lines.batches()) as batches,  # type: ignore[type-var]
        ):
            async for batch in batches:
                if batch.caught_up:
                    self.caught_up.set()
                for chunk in batch.chunks:
                    self._take(chunk)
                if self.next is not None:
                    await self._goes_on.wait()

    def _take(self, chunk: LogChunk) -> None:
        if chunk.marker is not None:
            if self.next is not None:
                self.next += chunk.marker.gap_bytes // LINE_BYTES
            return
        numbers = [int(raw[HEAD_BYTES : HEAD_BYTES + 7]) for raw in chunk.raws]
        begin = numbers[0] if self.next is None else self.next
        assert numbers == list(range(begin, begin + len(numbers)))
        self.next = begin + len(numbers)


@pytest.fixture(scope="module")
def web(serve: Callable[..., Served]) -> Served:
    served = serve(name="slow")
    start(served, FLOOD)
    served.until_running("web", 1)
    return served


def cut_off(served: Served) -> int:
    """Streams of logs that the coordinator has ended."""
    labels = r'\{(?=[^}]*method="StreamLogs")[^}]*code="UNAVAILABLE"[^}]*\}'
    found = re.search(
        rf"^cloudless_requests_total{labels} ([0-9.]+)", served.http("/metrics")[1], re.MULTILINE
    )
    return int(float(found[1])) if found is not None else 0


async def level(served: Served) -> int:
    """Memory as soon as it is level, in KiB."""
    samples: list[int] = []
    async with asyncio.timeout(LIMIT_S):
        while True:
            samples.append(rss_kib(served))
            recent = samples[-LEVEL_S:]
            if len(recent) == LEVEL_S and max(recent) - min(recent) <= LEVEL_KIB:
                print(f"{samples=}")
                return max(samples)
            await asyncio.sleep(1)


async def wait(fits: Callable[[], bool], what: str) -> None:
    await asyncio.to_thread(until, fits, what, LIMIT_S)


async def test_followers_who_stop_reading_cost_little_and_go_on_later(web: Served) -> None:
    before_kib = rss_kib(web)
    always, later = asyncio.Event(), asyncio.Event()
    always.set()
    readers = [Follower(always) for _ in range(READING)]
    pausing = [Follower(later) for _ in range(FOLLOWERS - READING)]
    async with web.client() as client, asyncio.TaskGroup() as group:
        tasks = [group.create_task(one.run(client)) for one in (*readers, *pausing)]
        async with asyncio.timeout(LIMIT_S):
            for one in (*readers, *pausing):
                await one.caught_up.wait()
        await asyncio.to_thread(said, web, "touch /go; echo so")
        await wait(lambda: all(one.next is not None for one in pausing), "all have got something")

        level_kib = await level(web)
        print(f"{before_kib=} {level_kib=}")
        assert level_kib - before_kib <= ALL_KIB
        seen_at, read = await asyncio.to_thread(ready_at, web), [one.next or 0 for one in readers]
        await wait(lambda: ready_at(web) > seen_at, "the node is heard of")
        await wait(
            lambda: all((one.next or 0) > old for one, old in zip(readers, read, strict=True)), "some read"
        )
        assert await asyncio.to_thread(said, web, "echo answers") == "answers"

        # Some few may pause for as long as they like; the others are told, and go on by their cursors.
        impatient = FOLLOWERS - MAX_PATIENT_LOGS - READING
        await wait(lambda: cut_off(web) >= impatient, "those who take nothing are cut off")
        assert cut_off(web) <= FOLLOWERS - MAX_PATIENT_LOGS
        paused = [one.next or 0 for one in pausing]
        later.set()
        more = 600 * 1024 // LINE_BYTES  # more than ever waited for anybody on the way
        await wait(
            lambda: all((one.next or 0) > old + more for one, old in zip(pausing, paused, strict=True)),
            "those who paused read on",
        )
        broken = [one for one in pausing if one.errors]
        assert len(broken) >= impatient
        assert {str(one.errors[0]) for one in broken} == {
            "the call was cut off: the peer read too little for 30 s"
        }
        assert not any(one.errors for one in readers)
        for task in tasks:
            task.cancel()
