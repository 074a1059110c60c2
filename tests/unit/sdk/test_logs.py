from __future__ import annotations

import asyncio
import contextlib
import datetime

import pytest
from fake_coordinator import NOW, FakeCoordinator

import cloudless
from cloudless import api
from cloudless.domain.loglines import MAX_JOINED_BYTES

Kind = api.LogMarkerKind


@pytest.fixture(autouse=True)
async def web(client):
    return await client.create(cloudless.Workload("web", image="web:1"))


def entry(second: int, text: str, container: str = "c0", replica: str = "web/0", **fields) -> api.LogEntry:
    at = NOW + datetime.timedelta(seconds=second)
    given = {"stream": "stdout", "line": text.encode(), "replica": replica, "container_id": container}
    return api.LogEntry(at=at, **given | fields)


def marker(kind: Kind, replica: str = "web/0", container: str = "c0", **fields) -> api.LogChunk:
    at = NOW + datetime.timedelta(seconds=fields.pop("second", 0))
    return api.LogChunk(
        replica_id=replica, container_id=container, marker=api.LogMarker(kind=kind, at=at, **fields)
    )


async def take(stream, count: int) -> list[str]:
    async with asyncio.timeout(10):
        return [(await anext(stream)).text for _ in range(count)]


async def test_reads_to_the_end(client, fake):
    fake.log(entry(0, "one"))
    fake.log(entry(1, "two", stream="stderr"))
    async with client.logs("web", tail=5) as lines:
        first, second = [line async for line in lines]
    assert (first.text, first.data, first.stream, first.partial) == ("one", b"one", "stdout", False)
    assert (second.replica, second.stream, second.container_id) == ("web/0", "stderr", "c0")
    assert first.at == NOW
    assert second.at_ns - first.at_ns == 1_000_000_000
    assert first.time == "2026-01-02T03:04:05.000000000Z"
    assert (first.source.node, first.source.name, first.source.revision) == ("n1", "web", 1)
    assert lines.sources == (first.source,)
    request = fake.asked("logs")[0]
    assert (request.tail_lines, request.current_only, request.resume) == (5, True, None)


async def test_every_option_is_asked_for(client, fake, web):
    later = NOW + datetime.timedelta(hours=1)
    async with web.logs(
        replica="0",
        follow=False,
        since=NOW,
        until=later,
        previous=True,
        stream="stderr",
        include="a",
        exclude=["b", "c"],
        limit_bytes=100,
        resume={"r": "7"},
    ) as lines:
        assert [line async for line in lines] == []
    request = fake.asked("logs")[0]
    assert (request.name, request.replica, request.stream) == ("web", "0", "stderr")
    assert (request.since, request.until, request.previous) == (NOW, later, True)
    assert (request.include, request.exclude, request.limit_bytes) == (["a"], ["b", "c"], 100)
    assert [(one.replica_id, one.cursor) for one in request.resume.cursors] == [("r", "7")]
    assert (request.tail_lines, request.current_only) == (None, False)
    async with client.logs(selector="app=x", namespace="shop", follow=True, current_only=False) as lines:
        pass
    async with client.logs(selector="app=x", namespace="shop", current_only=True) as lines:
        assert [line async for line in lines] == []
    request = fake.asked("logs")[1]
    assert (request.namespace, request.name, request.label_selector) == ("shop", "", "app=x")
    assert request.current_only


async def test_what_cannot_be_asked_for(client):
    with pytest.raises(cloudless.Invalid):
        client.logs()
    with pytest.raises(cloudless.Invalid):
        client.logs("web", selector="a=b")
    with pytest.raises(TypeError, match="no option tial"):
        client.logs("web", tial=3)
    with pytest.raises(RuntimeError, match="async with"):
        await anext(client.logs("web"))


async def test_lines_of_several_replicas_are_in_order_of_time(client, fake):
    fake.log(
        entry(0, "a0"),
        entry(3, "a3"),
        entry(1, "b1", "c1", "web/1"),
        entry(3, "b3", "c1", "web/1"),
        entry(2, "b2 of a clock that was set back", "c1", "web/1"),
        entry(4, "b4", "c1", "web/1"),
    )
    async with client.logs("web") as lines:
        texts = [line.text async for line in lines]
    assert texts == ["a0", "b1", "a3", "b3", "b2 of a clock that was set back", "b4"]


async def test_markers_are_among_the_entries_only(client, fake):
    fake.log(entry(0, "one"))
    ended = api.ExitStatus(code=137, oom_killed=True)
    fake.log_chunks(marker(Kind.EXITED, exit=ended), marker(Kind.RESTARTED, runs=1, container="c1"))
    fake.log_chunks(marker(Kind.GAP, gap_bytes=2048, message="rotated away"))
    fake.log_chunks(marker(Kind.NODE_UNREACHABLE, replica="", container="", node="n2"))
    fake.log(entry(1, "two", "c1"))
    async with client.logs("web") as lines:
        assert [line.text async for line in lines] == ["one", "two"]
        assert lines.lost_bytes == 2048
    async with client.logs("web") as lines:
        found = [found async for found in lines.entries()]
    assert [type(one).__name__ for one in found] == ["LogLine", *["LogMarker"] * 4, "LogLine"]
    assert [(one.kind, one.text) for one in found[1:5]] == [
        ("EXITED", "exited with code 137: out of memory"),
        ("RESTARTED", "restarted on n1, run 2"),
        ("GAP", "lost 2.0 KiB here: rotated away"),
        ("NODE_UNREACHABLE", "node n2 cannot be reached"),
    ]
    assert (found[1].exit.code, found[1].replica, found[1].at) == (137, "web/0", NOW)
    assert (found[4].replica, found[4].node) == ("", "n2")


async def test_batches(client, fake):
    fake.log(entry(0, "one"), entry(1, "other", "c1", "web/1"), entry(2, "two"))
    fake.log(entry(3, "three ", partial=True), entry(3, "and four"))
    async with client.logs("web") as lines:
        batches = [batch async for batch in lines.batches()]
        with pytest.raises(RuntimeError, match="as batches already"):
            lines.entries()
    assert [batch.line_count for batch in batches] == [3, 2]
    assert batches[0].data == b"one\nother\ntwo\n"
    assert batches[1].data == b"three and four\n"
    assert [line.text for line in batches[0].entries()] == ["one", "other", "two"]
    assert [line.partial for line in batches[1].entries()] == [True, False]


async def test_pieces_of_long_lines_are_joined(client, fake):
    fake.log(entry(0, "begin ", partial=True), entry(0, "between", "c1", "web/1"))
    fake.log(entry(1, "err ", stream="stderr", partial=True), entry(1, "middle ", partial=True))
    fake.log(entry(2, "end"), entry(2, "or", stream="stderr"), entry(3, "never ended", partial=True))
    fake.log_chunks(marker(Kind.EXITED, exit=api.ExitStatus(code=1)))
    fake.log(entry(4, "nor this", "c2", partial=True))
    async with client.logs("web") as lines:
        found = [(one.text, getattr(one, "partial", None)) async for one in lines.entries()]
    assert found == [
        ("between", False),
        ("begin middle end", False),
        ("err or", False),
        ("never ended", True),
        ("exited with code 1", None),
        ("nor this", True),
    ]


async def test_a_line_without_end_stays_in_pieces(client, fake):
    piece = "x" * 16384
    count = MAX_JOINED_BYTES // len(piece)
    for number in range(2 * count):
        fake.log(entry(number, piece, partial=True))
    fake.log(entry(10**6, "end"))
    async with client.logs("web") as lines:
        found = [(len(line.data), line.partial) async for line in lines]
    assert found == [(MAX_JOINED_BYTES, True), (MAX_JOINED_BYTES, True), (3, False)]


async def test_a_followed_log_goes_on_without_loss_or_repeat():
    fake, told = FakeCoordinator(), []
    async with contextlib.AsyncExitStack() as first:
        address = await first.enter_async_context(fake.serving())
        async with cloudless.connect(address) as client:
            web = await client.create(cloudless.Workload("web", image="web:1"))
            fake.log(entry(0, "one"), entry(1, "two"), entry(1, "two again, same time"))
            fake.log(entry(0, "other", "c1", "web/1"))
            async with web.logs(follow=True, tail=10, on_connection=told.append) as lines:
                assert await take(lines, 4) == ["one", "two", "two again, same time", "other"]
                await first.aclose()
                fake.log(entry(1, "three, same time"))
                fake.log(entry(2, "four", "c1", "web/1"))
                fake.log(entry(3, "five", "c2", "web/2"))
                async with fake.serving(int(address.rpartition(":")[2])):
                    assert await take(lines, 3) == ["three, same time", "four", "five"]
    assert [type(one).__name__ for one in told] == ["Unavailable", "NoneType"]


async def test_a_log_that_is_not_followed_is_read_to_its_end_too(client, fake):
    for number in range(4):
        fake.log(entry(number, f"line {number}"))
    fake.log_breaks = [1, 3]
    async with client.logs("web") as lines:
        assert [line.text async for line in lines] == [f"line {number}" for number in range(4)]
    assert [bool(request.resume) for request in fake.asked("logs")] == [False, True, True]


async def test_a_stream_that_did_not_open_is_asked_for_as_it_was(client, fake):
    fake.log(entry(0, "one"))
    fake.failures["logs"] = [cloudless.Unavailable("no leader", retry_after_s=0.01)]
    async with client.logs("web", tail=3) as lines:
        assert [line.text async for line in lines] == ["one"]
    assert [(one.tail_lines, one.resume) for one in fake.asked("logs")] == [(3, None), (3, None)]


async def test_the_limit_counts_what_came_before_the_gap(client, fake):
    fake.log(entry(0, "12345"))
    fake.log(entry(0, "1234", partial=True))
    fake.log_breaks = [1, 2]
    async with client.logs("web", limit_bytes=11) as lines:
        assert [line.text async for line in lines] == ["12345", "1234"]
    assert [request.limit_bytes for request in fake.asked("logs")] == [11, 5, 1]
    fake.log_breaks = [1]
    async with client.logs("web", limit_bytes=6) as lines:
        assert [line.text async for line in lines] == ["12345"]


async def test_what_was_told_is_not_told_again_after_a_gap(client, fake):
    fake.log_chunks(marker(Kind.NODE_UNREACHABLE, replica="", container="", node="n2"))
    fake.log_chunks(marker(Kind.SOURCE_ENDED))
    fake.log(entry(0, "one"))
    fake.log_breaks = [3]
    async with client.logs("web", follow=True) as lines:
        entries = lines.entries()
        async with asyncio.timeout(10):
            kinds = [getattr(await anext(entries), "kind", "line") for _ in range(3)]
            fake.log_chunks(marker(Kind.NODE_BACK, replica="", container="", node="n2"))
            fake.log_chunks(marker(Kind.NODE_UNREACHABLE, replica="", container="", node="n2"))
            kinds += [getattr(await anext(entries), "kind", "line") for _ in range(2)]
    assert kinds == ["NODE_UNREACHABLE", "SOURCE_ENDED", "line", "NODE_BACK", "NODE_UNREACHABLE"]


async def test_a_node_that_stays_away_is_an_error_at_the_end(client, fake, monkeypatch):
    monkeypatch.setattr("cloudless.sdk.logs.LOG_NODE_PATIENCE_S", 0.05)
    fake.log(entry(0, "one"))
    fake.log_chunks(marker(Kind.NODE_UNREACHABLE, replica="", container="", node="n2"))
    fake.log_end = cloudless.Unavailable("node n2 cannot be reached")
    texts = []
    async with client.logs("web") as lines:
        with pytest.raises(cloudless.Unavailable, match="n2"):
            async for line in lines:
                texts.append(line.text)
    assert texts == ["one"]


async def test_a_coordinator_that_stays_away_is_an_error(client, fake, monkeypatch):
    monkeypatch.setattr("cloudless.sdk.logs.LOG_OUTAGE_S", 0.05)
    client.patience_s = 0.05
    fake.log(entry(0, "one"))
    fake.log_breaks = [1]
    fake.failures["logs"] = []
    async with client.logs("web", follow=True) as lines:
        assert await take(lines, 1) == ["one"]
        fake.failures["logs"] = [cloudless.Unavailable("no leader", retry_after_s=0.01)] * 20
        with pytest.raises(cloudless.Unavailable, match="leader"):
            await take(lines, 1)


async def test_a_later_stream_goes_on_after_the_cursors_of_an_earlier_one(client, fake):
    fake.log(entry(0, "one"))
    fake.log(entry(1, "two"))
    fake.log(entry(2, "a half ", partial=True))
    async with client.logs("web", follow=True) as lines:
        assert lines.cursors == {}
        assert await take(lines, 1) == ["one"]
        assert lines.cursors == {"web/0": "0"}
        assert await take(lines, 1) == ["two"]
        cursors = lines.cursors
    assert cursors == {"web/0": "1"}
    async with client.logs("web", follow=True, resume=cursors) as lines:
        assert await take(lines, 1) == ["two"]
        waiting = asyncio.ensure_future(anext(lines))
        while lines.cursors != {"web/0": "2"}:
            await asyncio.sleep(0)
        fake.log(entry(3, "and another"))
        assert (await asyncio.wait_for(waiting, 10)).text == "a half and another"
        waiting = asyncio.ensure_future(anext(lines))
        while lines.cursors != {"web/0": "4"}:
            await asyncio.sleep(0)
        waiting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await waiting


async def test_a_loop_that_was_left_may_be_entered_again(client, fake):
    for number in range(4):
        fake.log(entry(number, str(number)))
    async with client.logs("web") as lines:
        async for line in lines:
            if line.text == "1":
                break
        assert [line.text async for line in lines] == ["2", "3"]


async def test_leaving_the_block_ends_the_call(client, fake):
    ended = asyncio.Event()

    async def endless(message):
        try:
            yield api.LogBatch(opened=True)
            number = 0
            while True:
                number += 1
                yield api.LogBatch(chunks=[api.LogChunk(replica_id="r", lines=LINE, cursor=str(number))])
        finally:
            ended.set()

    fake.stream_logs = endless
    async with client.logs("web", follow=True) as lines:
        assert await take(lines, 2) == ["x" * 100] * 2
    await asyncio.wait_for(ended.wait(), 10)


async def all_of(reader) -> tuple[int, int]:
    """How much came until the end, and how many cancellations the task has left unanswered."""
    count = len([one async for one in reader])
    task = asyncio.current_task()
    assert task is not None
    return count, task.cancelling()


@pytest.mark.parametrize("way", ["__aiter__", "entries", "batches"])
@pytest.mark.parametrize("text", ["whole", "a piece"])
async def test_leaving_the_block_ends_the_loop_of_another_task(client, fake, way, text):
    fake.log(entry(0, "one"), entry(1, text, partial=text == "a piece"))
    async with client.logs("web", follow=True) as lines:
        reading = asyncio.ensure_future(all_of(getattr(lines, way)()))
        async with asyncio.timeout(10):
            while lines._positions.get("web/0") != "1":
                await asyncio.sleep(0)
    came = 1 if way == "batches" or text == "a piece" else 2
    assert await asyncio.wait_for(reading, 10) == (came, 0)


async def test_leaving_the_block_ends_a_loop_that_waits_for_an_answer(client, fake):
    asked = asyncio.Event()

    async def silent(message):
        asked.set()
        await asyncio.Event().wait()
        yield api.LogBatch()

    fake.stream_logs = silent
    async with client.logs("web", follow=True) as lines:
        reading = asyncio.ensure_future(all_of(lines))
        await asyncio.wait_for(asked.wait(), 10)
    assert await asyncio.wait_for(reading, 10) == (0, 0)


async def test_leaving_the_block_ends_a_loop_that_waits_for_a_connection(client, fake):
    fake.log(entry(0, "one"))
    fake.log_breaks = [1]
    lost = asyncio.Event()

    def told(error):
        fake.failures["logs"] = [cloudless.Unavailable("no leader", retry_after_s=60)] * 20
        lost.set()

    async with client.logs("web", follow=True, on_connection=told) as lines:
        reading = asyncio.ensure_future(all_of(lines))
        await asyncio.wait_for(lost.wait(), 10)
    assert await asyncio.wait_for(reading, 10) == (1, 0)
    assert len(fake.asked("logs")) == 1


async def test_a_reading_task_that_is_cancelled_as_the_block_is_left_stays_cancelled(client, fake):
    fake.log(entry(0, "one"))
    async with client.logs("web", follow=True) as lines:
        reading = asyncio.ensure_future(all_of(lines))
        async with asyncio.timeout(10):
            while lines.cursors.get("web/0") != "1":
                await asyncio.sleep(0)
        reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(reading, 10)


LINE = b"2026-01-02T03:04:05.000000000Z stdout F " + b"x" * 100 + b"\n"


async def test_an_unknown_workload_is_an_error(client):
    async with client.logs("nothing") as lines:
        with pytest.raises(cloudless.NotFound):
            await anext(lines)
