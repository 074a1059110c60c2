"""Logs of real containers: every byte is delivered or told missing, whoever dies meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import os
import re
import signal
from collections.abc import Callable

import pytest
from tests.integration.program.served import Served, processes, until
from tests.integration.program.test_lifecycle import manifest

from cloudless import api
from cloudless.domain import loglines
from cloudless.domain.errors import NotFound, Unavailable
from cloudless.transport.channel import connect

LIMIT_S = 300.0
KILLS = 10
K = api.LogMarkerKind


class Reader:
    """Follows with a bare stub, and resumes by the cursors alone."""

    def __init__(self, address: str, **request: object) -> None:
        self.address = address
        self.request = api.StreamLogsRequest(**request)  # type: ignore[arg-type]
        self.records: list[bytes] = []
        self.delivered = 0
        self.markers: list[api.LogMarker] = []
        self.sources: dict[str, api.LogSource] = {}
        self.cursors: dict[str, str] = {}
        self.breaks = 0
        self.pause_s = 0.0
        self.head_bytes: int | None = None  # what is kept of each record: all of it
        self.reads = asyncio.Event()  # cleared, it takes nothing more from its connection
        self.reads.set()

    @property
    def missing(self) -> int:
        return sum(marker.gap_bytes for marker in self.markers)

    @property
    def kinds(self) -> list[str]:
        return [str(marker.kind.name) for marker in self.markers if marker.kind != K.ROTATED]

    async def run(self, *, until_kind: api.LogMarkerKind | None = None, keep: bool = True) -> Reader:
        """Read to the end, or to the first marker of a kind."""
        async with asyncio.timeout(LIMIT_S):
            while True:
                try:
                    if await self._once(until_kind, keep=keep):
                        return self
                except Unavailable:
                    self.breaks += 1
                    await asyncio.sleep(0.1)

    async def _once(self, until_kind: api.LogMarkerKind | None, *, keep: bool) -> bool:
        channel = connect(self.address)
        try:
            stream = api.CoordinatorServiceStub(channel).stream_logs(self.request)
            async with contextlib.aclosing(stream) as batches:  # type: ignore[type-var]
                async for batch in batches:
                    await asyncio.sleep(self.pause_s)
                    await self.reads.wait()
                    seen = self._take(batch, keep=keep)
                    if until_kind is not None and until_kind in seen:
                        return True
        finally:
            channel.close()
        return True

    def _take(self, batch: api.LogBatch, *, keep: bool) -> list[api.LogMarkerKind]:
        seen = []
        for chunk in batch.chunks:
            self.delivered += loglines.written_bytes(chunk.lines)
            if keep:
                self.records += [record.data[: self.head_bytes] for record in loglines.parse(chunk.lines)]
            if chunk.source is not None:
                self.sources[chunk.replica_id] = chunk.source
            if chunk.marker is not None:
                self.markers.append(chunk.marker)
                seen.append(chunk.marker.kind)
            if chunk.cursor:
                self.cursors[chunk.replica_id] = chunk.cursor
        if batch.opened or self.cursors:
            cursors = [api.LogCursor(replica_id=name, cursor=at) for name, at in self.cursors.items()]
            self.request.resume = api.LogResume(cursors=cursors)
        return seen


def apply(served: Served, script: str, name: str = "web", **fields: object) -> None:
    fields.setdefault("stop_grace_period", "0s")
    text = manifest(name=name, command=["sh", "-c", script], **fields)
    served.cli("apply", "-f", "-", "-q", "--no-wait", stdin=text)


@pytest.fixture(scope="module")
def mortal(serve: Callable[..., Served]) -> Served:
    """One that may be killed."""
    return serve(name="mortal")


async def test_a_follower_misses_nothing_while_agent_and_containerd_die(mortal: Served) -> None:
    last = 15_000
    script = (
        f"i=0; while [ $i -lt {last} ]; do echo line $i; i=$((i+1)); "
        "[ $((i % 40)) = 0 ] && usleep 40000; done; sleep 1000"
    )
    apply(mortal, script)
    until(lambda: mortal.replicas("web", phase="RUNNING"), "it runs")
    reader = Reader(mortal.address, name="web", follow=True)

    async def killer() -> None:
        for number in range(KILLS):
            await asyncio.sleep(0.5)
            if number == KILLS // 2:
                await asyncio.to_thread(mortal.kill_containerd)
            await asyncio.to_thread(mortal.kill)
            await asyncio.to_thread(mortal.start)

    async with asyncio.TaskGroup() as group:
        killing = group.create_task(killer())
        reading = group.create_task(reader.run())
        async with asyncio.timeout(LIMIT_S):
            while not killing.done() or len(reader.records) < last:
                await asyncio.sleep(0.05)
        reading.cancel()
    assert reader.breaks >= KILLS
    assert reader.records == [b"line %d" % number for number in range(last)]
    assert reader.missing == 0
    assert reader.kinds.count("STARTED") == 1
    assert "RESTARTED" not in reader.kinds


async def test_delivered_and_missing_bytes_are_all_at_full_speed(mortal: Served) -> None:
    size = 17 * 9_000_000
    apply(mortal, f"yes 0123456789abcdef | head -c {size}; sleep 1000", name="storm")
    until(lambda: mortal.replicas("storm", phase="RUNNING"), "it runs")
    reader = Reader(mortal.address, name="storm", follow=True)
    reader.pause_s = 0.02
    reading = asyncio.ensure_future(reader.run(keep=False))
    async with asyncio.timeout(LIMIT_S):
        while reader.delivered + reader.missing < size:
            await asyncio.sleep(0.1)
            if reading.done():
                await reading
            if reader.missing:
                reader.pause_s = 0
    reading.cancel()
    assert reader.delivered + reader.missing == size
    assert reader.missing > 0, "a slow reader of a fast writer misses what was rotated away, and is told"
    assert any(marker.kind == K.ROTATED for marker in reader.markers)


async def test_following_until_ends(mortal: Served) -> None:
    apply(mortal, "while true; do echo tick; usleep 50000; done", name="ticker")
    until(lambda: mortal.replicas("ticker", phase="RUNNING"), "it runs")
    end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=2)
    reader = await Reader(mortal.address, name="ticker", follow=True, until=end).run()
    assert b"tick" in reader.records
    assert reader.breaks == 0


async def test_what_happened_is_told_and_what_is_gone_stays_readable(mortal: Served) -> None:
    apply(mortal, "echo one; exit 3", name="job", restart_policy={"policy": "NEVER"})
    reader = Reader(mortal.address, name="job", follow=True)
    until(lambda: mortal.replicas("job", phase="FAILED"), "it ended")
    await reader.run(until_kind=K.EXITED)
    exit_status = reader.markers[-1].exit
    assert exit_status is not None
    assert (reader.records, exit_status.code) == ([b"one"], 3)
    mortal.cli("delete", "job", "--wait", code=None)
    until(lambda: mortal.cli("get", "job", code=None).code != 0, "it is gone")
    await asyncio.to_thread(mortal.kill)
    await asyncio.to_thread(mortal.start)
    gone = await Reader(mortal.address, name="job").run()
    assert gone.records == [b"one"]
    assert gone.kinds == ["STARTED", "EXITED", "SOURCE_ENDED"]
    assert [(source.name, source.ordinal, source.gone) for source in gone.sources.values()] == [
        ("job", 0, True)
    ]
    with pytest.raises(NotFound):
        await Reader(mortal.address, name="nothing").run()


async def test_previous_runs_and_filters(mortal: Served) -> None:
    volume = {"name": "kept", "empty_dir": {}, "mount_path": "/tmp"}
    fields = {"restart_policy": {"backoff": {"base": "0s"}}, "volumes": [volume]}
    script = (
        "if [ -e /tmp/x ]; then echo again; sleep 1000; fi; echo first; echo bad >&2; touch /tmp/x; exit 1"
    )
    apply(mortal, script, name="twice", **fields)
    found = Reader(mortal.address, name="twice", follow=True, include=["again"])
    running = asyncio.ensure_future(found.run())
    async with asyncio.timeout(LIMIT_S):
        while found.records != [b"again"]:
            await asyncio.sleep(0.05)
            if running.done():
                await running
    running.cancel()
    before = await Reader(mortal.address, name="twice", previous=True).run()
    assert sorted(before.records) == [b"bad", b"first"]
    assert before.kinds == ["STARTED", "EXITED", "SOURCE_ENDED"]
    errors = await Reader(mortal.address, name="twice", stream="stderr").run()
    assert errors.records == [b"bad"]
    without = await Reader(mortal.address, name="twice", exclude=["a"]).run()
    assert without.records == [b"first"]


async def test_a_killed_logger_is_reported(mortal: Served) -> None:
    apply(mortal, "echo before; sleep 1000", name="orphan")
    reader = Reader(mortal.address, name="orphan", follow=True)
    reading = asyncio.ensure_future(reader.run(until_kind=K.LOGGER_LOST))
    async with asyncio.timeout(LIMIT_S):
        while b"before" not in reader.records:
            await asyncio.sleep(0.05)
    (replica,) = mortal.replicas("orphan")
    (pid,) = [pid for pid, words in processes() if _is_logger(words, replica["id"])]
    os.kill(pid, signal.SIGKILL)
    await reading
    assert reader.kinds[-1] == "LOGGER_LOST"
    until(lambda: "LoggerLost" in mortal.cli("events").out, "the event")


def _is_logger(words: list[str], replica_id: str) -> bool:
    return any(re.search(r"/logger-[0-9a-f]+$", word) for word in words) and any(
        f"/{replica_id}/" in word for word in words
    )
