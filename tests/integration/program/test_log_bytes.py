"""Bytes of logs are counted: through many deaths, and by readers that do not read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from tests.integration.program.served import Served, until
from tests.integration.program.test_log_followers import rss_kib
from tests.integration.program.test_log_streams import KILLS, K, Reader, apply

LIMIT_S = 90.0
NEVER = {"policy": "NEVER"}
#: Between two kills, a follower gets so much.
STEP_BYTES = 500_000
#: The end of each script.
QUIT = "until [ -e /quit ]; do usleep 20000; done"
#: Whole lines, several times a second, until there is a file; then it tells how often.
PIECE_BYTES = 17 * 20_000
STORM = (
    f"n=0; until [ -e /stop ]; do yes 0123456789abcdef | head -c {PIECE_BYTES}; n=$((n+1)); usleep 80000; "
    f"done; echo $n > /new; mv /new /pieces; {QUIT}"
)

#: Numbered lines of one size; 100 MB of them, begun when there is a file.
LINES, LINE_BYTES = 100_000, 1000
NUMBERED = (
    "until [ -e /go ]; do usleep 20000; done; "
    f'awk \'BEGIN {{ x = sprintf("%{LINE_BYTES - 9}s", ""); '
    f'for (i = 0; i < {LINES}; i++) {{ printf "%07d %s\\n", i, x; '
    'if (i % 1000 == 999) { fflush(); system("usleep 30000") } } }\'; '
    f"touch /written; {QUIT}"
)
STALLED = 3
#: What the program's memory may grow by for each that reads nothing.
STALLED_KIB = 16 * 1024


@asynccontextmanager
async def reading(
    *readers: Reader, keep: bool = False
) -> AsyncIterator[Callable[[Callable[[], bool]], object]]:
    """They read meanwhile, to the exit; gives what waits until something is so, or one of them fails."""
    tasks = [asyncio.ensure_future(reader.run(until_kind=K.EXITED, keep=keep)) for reader in readers]

    async def wait(fits: Callable[[], bool]) -> None:
        async with asyncio.timeout(LIMIT_S):
            while not fits():
                await asyncio.sleep(0.02)
                for task in tasks:
                    if task.done():
                        await task

    try:
        yield wait
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def test_ten_kills_under_a_storm_lose_no_byte_untold(serve: Callable[..., Served]) -> None:
    served = await asyncio.to_thread(
        lambda: serve("--log-file-size", "1Mi", "--log-files", "3", name="bytes")
    )
    apply(served, STORM, restart_policy=NEVER)
    reader = Reader(served.address, name="web", follow=True)
    async with reading(reader) as wait:
        for number in range(KILLS):
            there = reader.delivered
            await wait(lambda there=there: reader.delivered > there + STEP_BYTES)
            if number == KILLS // 2:
                await asyncio.to_thread(served.kill_containerd)
            await asyncio.to_thread(served.kill)
            await asyncio.to_thread(served.start)
        await asyncio.to_thread(said, served, "touch /stop; echo so")
        size = int(await asyncio.to_thread(said, served, "cat /pieces")) * PIECE_BYTES
        await asyncio.to_thread(served.cli, "exec", "web", "--", "touch", "/quit", code=None)
        await wait(lambda: "EXITED" in reader.kinds)
    whole = await Reader(served.address, name="web").run(keep=False)
    print(
        f"{size=} {reader.delivered=} {reader.missing=} {reader.breaks=} {whole.delivered=} {whole.missing=}"
    )
    assert reader.delivered + reader.missing == size
    assert reader.missing > 0, "files are too small for what is written while the program is dead"
    assert reader.breaks >= KILLS
    assert (reader.kinds.count("STARTED"), reader.kinds.count("RESTARTED")) == (1, 0)
    assert whole.delivered + whole.missing == size


async def test_readers_that_do_not_read_hold_up_nobody(serve: Callable[..., Served]) -> None:
    served = await asyncio.to_thread(lambda: serve("--log-files", "8", name="stalled"))
    apply(served, NUMBERED, restart_policy=NEVER)
    await asyncio.to_thread(until, lambda: served.replicas("web", phase="RUNNING"), "it runs")
    size = LINES * LINE_BYTES
    stalled = [Reader(served.address, name="web", follow=True) for _ in range(STALLED)]
    live = Reader(served.address, name="web", follow=True)
    live.head_bytes = 7
    async with reading(live, keep=True) as wait, reading(*stalled) as wait_for_stalled:
        await wait(lambda: all("STARTED" in reader.kinds for reader in (live, *stalled)))
        for reader in stalled:
            reader.reads.clear()
        before_kib = peak_kib = rss_kib(served)

        def has(share: float) -> bool:
            nonlocal peak_kib
            peak_kib = max(peak_kib, rss_kib(served))
            return live.delivered + live.missing >= size * share

        await asyncio.to_thread(said, served, "touch /go; echo so")
        await wait(lambda: has(0.25))
        assert await asyncio.to_thread(said, served, "echo answers") == "answers"
        seen_at = await asyncio.to_thread(ready_at, served)
        await wait(lambda: has(1))
        await asyncio.to_thread(said, served, "test -e /written && echo so")
        await asyncio.to_thread(until, lambda: ready_at(served) > seen_at, "the node is heard of again")
        assert has(1)
        assert live.missing == 0
        assert live.records == [b"%07d" % number for number in range(LINES)]
        assert [reader.delivered for reader in stalled] == [0] * STALLED
        assert peak_kib - before_kib <= STALLED * STALLED_KIB
        for reader in stalled:
            reader.reads.set()
        await asyncio.to_thread(served.cli, "exec", "web", "--", "touch", "/quit", code=None)
        await wait_for_stalled(lambda: all("EXITED" in reader.kinds for reader in stalled))
    print(f"{before_kib=} {peak_kib=}", *((one.delivered, one.missing, one.breaks) for one in stalled))
    assert [one.delivered + one.missing for one in stalled] == [size] * STALLED
    assert min(one.missing for one in stalled) > 0, "what was rotated away meanwhile is told"


def ready_at(served: Served) -> str:
    """When the coordinator last heard of the node, which is ready."""
    (node,) = served.cli("get", "nodes", "-o", "json").json["items"]
    assert node["phase"] == "READY"
    assert served.http("/readyz")[0] == 200
    return str(node["seen_at"])


def said(served: Served, script: str) -> str:
    """What a script says in the container, as soon as it succeeds."""

    def run() -> str:
        done = served.cli("exec", "web", "--", "sh", "-c", script, code=None)
        return done.out.strip() if done.code == 0 else ""

    return str(until(run, f"{script} succeeds"))
