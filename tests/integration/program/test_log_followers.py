"""A thousand followers of one log: all of them get all of it, at a bounded price."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, aclosing
from pathlib import Path

import pytest
from tests.integration.program.callers import from_host
from tests.integration.program.census import open_files
from tests.integration.program.served import Served, until
from tests.integration.program.test_log_readers import start

import cloudless
from cloudless.coordinator.limits import MAX_LOG_STREAMS_OF_CALLER
from cloudless.domain.errors import Exhausted

FOLLOWERS = MAX_LOG_STREAMS_OF_CALLER
LINES = 20
#: What each follower may cost the program, in KiB, and how long its files take to be closed.
FOLLOWER_KIB = 256
GONE_S = 20.0
LIMIT_S = 180.0
#: Writes when it is told to, by a line of input.
SCRIPT = f"read x; n=0; while [ $n -lt {LINES} ]; do n=$((n+1)); echo line $n; done; echo last; sleep 9999"


@pytest.fixture(scope="module")
def web(serve: Callable[..., Served]) -> Served:
    served = serve(name="followers")
    start(served, SCRIPT, stdin=True)
    served.until_running("web", 1)
    return served


def rss_kib(served: Served) -> int:
    """Memory that the program has now."""
    assert served.process is not None
    status = Path(f"/proc/{served.process.pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+)", status)
    assert found is not None
    return int(found[1])


def log_readers(served: Served) -> int:
    """How often the program has the log of a replica open."""
    assert served.process is not None
    links = Path(f"/proc/{served.process.pid}/fd").iterdir()
    return sum("/agent/logs/" in target(link) for link in links)


def target(link: Path) -> str:
    try:
        return str(link.readlink())
    except FileNotFoundError:
        return ""


async def follow(client: cloudless.Client, ready: Callable[[], None]) -> list[str]:
    """The lines, from the first to the last."""
    texts: list[str] = []
    async with client.logs("web", follow=True) as lines, aclosing(lines.batches()) as batches:  # type: ignore[type-var]
        async for batch in batches:
            if batch.caught_up:
                ready()
            for chunk in batch.chunks:
                texts += [line.split(" ", 3)[3] for line in chunk.lines.decode().splitlines()]
            if texts and texts[-1] == "last":
                return texts
    return texts


async def test_a_thousand_followers_of_one_log(web: Served) -> None:
    files, kib, begun_s = open_files(web), rss_kib(web), time.monotonic()
    connected = 0
    everybody = asyncio.Event()

    def ready() -> None:
        nonlocal connected
        connected += 1
        if connected == FOLLOWERS:
            everybody.set()

    async with AsyncExitStack() as stack:
        await stack.enter_async_context(asyncio.timeout(LIMIT_S))
        client = await stack.enter_async_context(web.client())
        address = await stack.enter_async_context(from_host("127.0.0.9", web.address))
        other = await stack.enter_async_context(cloudless.connect(address))
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(follow(client, ready)) for _ in range(FOLLOWERS)]
            await everybody.wait()
            connected_s, with_them_kib = time.monotonic() - begun_s, rss_kib(web)
            assert log_readers(web) <= 2, "the disk is read once for all"
            with pytest.raises(Exhausted, match=f"{FOLLOWERS} readers of logs"):
                await follow(client, ready)
            # Whoever comes from elsewhere gets in, and nobody else's calls wait.
            late = group.create_task(follow(other, lambda: None))
            assert (await client.exec("web", ["echo", "in"])).stdout == b"in\n"
            async with client.attach("web") as attached:
                await attached.stdin.write(b"\n")
                seen = [task.result() for task in (await asyncio.wait({*tasks, late}))[0]]
    expected = [f"line {number}" for number in range(1, LINES + 1)] + ["last"]
    assert all(texts == expected for texts in seen)
    after_kib = rss_kib(web)
    print(f"{kib=} {with_them_kib=} {after_kib=} {connected_s=:.1f}")
    assert max(with_them_kib, after_kib) - kib < FOLLOWERS * FOLLOWER_KIB
    until(lambda: open_files(web) <= files + 5, "its files are closed", GONE_S)
