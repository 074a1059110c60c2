from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path

import pytest
from tests.unit.agent.logs.site import SECOND, T0_NS, Lines, Site, site

from cloudless.agent.logs import files, live, place
from cloudless.domain.errors import Exhausted, Invalid
from cloudless.domain.logfilter import LogFilter
from cloudless.domain.logrecord import LogCursor, SourceCursor
from cloudless.domain.logstream import LogQuery

__all__ = ["site"]


def numbered(word: str, *numbers: int) -> list[bytes]:
    return [f"{word}{number}\n".encode() for number in numbers]


# -- history ---------------------------------------------------------------------------


async def test_runs_follow_each_other_with_what_happened_between(site: Site) -> None:
    first = site.run()
    first.write(b"one\n")
    first.end(137, signal=9, oom_killed=True)
    site.run(number=2).write(b"two\n")
    lines = await site.read()
    assert lines.texts == [b"one", b"two"]
    assert lines.kinds == ["STARTED", "EXITED", "RESTARTED", "SOURCE_ENDED"]
    exited = lines.markers[1].exit
    assert exited is not None
    assert (exited.code, exited.signal, exited.oom_killed) == (137, 9, True)
    assert lines.markers[2].runs == 1
    containers = [chunk.container_id for chunk in lines.chunks[1:]]
    assert containers == ["cl-r0-1"] * 3 + ["cl-r0-2"] * 2 + [""]


async def test_the_first_batch_names_every_source(site: Site) -> None:
    site.run("r0").write(b"x\n")
    site.run("r1").end(gone=True)
    async with site.stream("r0", "r1") as lines:
        batch = await lines.next()
    assert batch.opened
    assert [(one.replica_id, one.source and one.source.gone) for one in batch.chunks] == [
        ("r0", False),
        ("r1", True),
    ]
    assert all(chunk.cursor for chunk in batch.chunks)


async def test_sources_are_merged_by_time(site: Site) -> None:
    runs = [site.run(f"r{number}") for number in range(3)]
    for number in range(300):
        runs[number % 3].write(b"%d\n" % number)
    lines = await site.read("r0", "r1", "r2")
    assert lines.texts == [b"%d" % number for number in range(300)]
    assert len(lines.batches) < 30, "whole windows, not single lines"


async def test_tail_counts_over_runs(site: Site) -> None:
    first = site.run()
    first.write(*numbered("a", 1, 2, 3))
    first.end()
    site.run(number=2).write(*numbered("b", 1, 2))
    assert (await site.read(tail_lines=1)).texts == [b"b2"]
    assert (await site.read(tail_lines=3)).texts == [b"a3", b"b1", b"b2"]
    three = await site.read(tail_lines=3)
    assert three.kinds == ["EXITED", "RESTARTED", "SOURCE_ENDED"]
    everything = await site.read(tail_lines=99)
    assert everything.texts == [b"a1", b"a2", b"a3", b"b1", b"b2"]
    assert (await site.read(tail_lines=0)).texts == []
    assert (await site.read(tail_lines=0)).kinds == ["SOURCE_ENDED"]


async def test_since_and_until_cut_lines_and_markers(site: Site) -> None:
    run = site.run()
    run.write(*numbered("a", 1, 2, 3, 4, 5))
    run.end()
    site.run(number=2).write(*numbered("b", 1))
    late = await site.read(since_ns=T0_NS + 4 * SECOND)
    assert late.texts == [b"a4", b"a5", b"b1"]
    assert late.kinds == ["EXITED", "RESTARTED", "SOURCE_ENDED"]
    early = await site.read(until_ns=T0_NS + 2 * SECOND)
    assert early.texts == [b"a1", b"a2"]
    assert early.kinds == ["STARTED", "SOURCE_ENDED"]
    both = await site.read(since_ns=T0_NS + 2 * SECOND, until_ns=T0_NS + 3 * SECOND)
    assert both.texts == [b"a2", b"a3"]
    assert (await site.read(since_ns=T0_NS + 2 * SECOND, tail_lines=3)).texts == [b"a4", b"a5", b"b1"]


async def test_tail_is_of_what_was_written_up_to_then(site: Site) -> None:
    run = site.run()
    run.write(*numbered("a", 1, 2, 3, 4, 5))
    run.end()
    site.run(number=2).write(*numbered("b", 1, 2, 3))
    for follow in (False, True):
        early = await site.read(until_ns=T0_NS + 4 * SECOND, tail_lines=2, follow=follow)
        assert early.texts == [b"a3", b"a4"]
    over_runs = await site.read(until_ns=T0_NS + 7 * SECOND, tail_lines=2)
    assert over_runs.texts == [b"a5", b"b1"]
    assert (await site.read(until_ns=T0_NS + 99 * SECOND, tail_lines=2)).texts == [b"b2", b"b3"]
    assert (await site.read(until_ns=T0_NS, tail_lines=2)).texts == []


async def test_only_a_replica_that_is_gone_is_said_to_have_ended(site: Site) -> None:
    site.run("r0").write(b"x\n")
    site.run("r1").end(gone=True)
    assert (await site.read("r0")).markers[-1].message == "all that was asked for is read"
    assert (await site.read("r1")).markers[-1].message == ""


async def test_previous_is_every_run_but_the_last(site: Site) -> None:
    for number in (1, 2, 3):
        run = site.run(number=number)
        run.write(b"%d\n" % number)
        if number < 3:
            run.end(number)
    lines = await site.read(previous=True)
    assert lines.texts == [b"1", b"2"]
    assert lines.kinds == ["STARTED", "EXITED", "RESTARTED", "EXITED", "SOURCE_ENDED"]
    assert (await site.read(previous=True, tail_lines=1)).texts == [b"2"]


async def test_filters(site: Site) -> None:
    run = site.run()
    run.write(b"good one\n", b"bad one\n", b"good two\n")
    run.write(b"good error\n", stream=b"stderr")
    assert (await site.read(include=("good",))).texts == [b"good one", b"good two", b"good error"]
    assert (await site.read(include=("bad", "two$"))).texts == [b"bad one", b"good two"]
    assert (await site.read(exclude=("^good",))).texts == [b"bad one"]
    assert (await site.read(include=("one",), exclude=("bad",))).texts == [b"good one"]
    assert (await site.read(streams=frozenset({"stderr"}))).texts == [b"good error"]
    assert (await site.read(include=("good",), tail_lines=2)).texts == [b"good two", b"good error"]
    stamped = (await site.read(timestamps=True, include=("bad",))).texts
    assert stamped == [b"2026-01-01T00:00:02.000000000Z bad one"]


@pytest.mark.parametrize("pattern", ["(", "(a{1000}){1000}", "x" * 2000, "\udc80"])
def test_a_bad_pattern_names_its_field(pattern: str) -> None:
    for field in ("include", "exclude"):
        with pytest.raises(Invalid) as caught:
            LogFilter(LogQuery(**{field: ("fine", pattern)}))  # type: ignore[arg-type]
        assert [one.path for one in caught.value.violations] == [f"{field}[1]"]


async def test_the_limit_cuts_in_the_middle_of_a_line_and_says_so(site: Site) -> None:
    site.run().write(b"0123456789\n", b"abcdef\n")
    lines = await site.read(limit_bytes=15)
    assert lines.texts == [b"0123456789", b"abcd"]
    assert lines.records[-1].partial
    assert lines.kinds[-1] == "LIMIT_REACHED"
    whole = await site.read(limit_bytes=11)
    assert (whole.texts, whole.records[-1].partial) == ([b"0123456789"], False)
    assert (await site.read(limit_bytes=1000)).kinds[-1] == "SOURCE_ENDED"


async def test_delivered_and_missing_bytes_are_all(site: Site) -> None:
    run = site.run(file_bytes=500, files=3)
    run.write(*numbered("line", *range(100)))
    lines = await site.read()
    assert lines.accounted == run.written
    assert "GAP" in lines.kinds


async def test_every_cursor_resumes_without_loss_or_repeat(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place, "CHUNK_BYTES", 300)
    monkeypatch.setattr("cloudless.agent.logs.gather.MIN_SHARE_BYTES", 200)
    monkeypatch.setattr("cloudless.agent.logs.gather.MAX_SHARE_BYTES", 300)
    monkeypatch.setattr("cloudless.agent.logs.gather.BATCH_BYTES", 400)
    chance = random.Random(5)
    runs = {name: site.run(name) for name in ("r0", "r1")}
    for number in range(120):
        name = chance.choice(("r0", "r1"))
        stream = chance.choice((b"stdout", b"stderr"))
        runs[name].write(b"%d\n" % number, stream=stream, later_ns=chance.choice((0, 0, 1, SECOND)))
        if number % 40 == 39:
            runs[name].end(1)
            runs[name] = site.run(name, runs[name].number + 1)
    for query in ({}, {"include": ("[02468]$",)}, {"streams": frozenset({"stderr"})}):
        whole = await site.read("r0", "r1", **query)
        expected = [(chunk.replica_id, text) for chunk in whole.chunks for text in split(chunk.lines)]
        assert len(whole.batches) > 10
        for stop in range(1, len(whole.batches)):
            async with site.stream("r0", "r1", **query) as begun:
                for _ in range(stop):
                    await begun.next()
            rest = await site.read("r0", "r1", resume=begun.resume(), tail_lines=3, **query)
            got = [
                (chunk.replica_id, text)
                for chunk in begun.chunks + rest.chunks
                for text in split(chunk.lines)
            ]
            assert sorted(got) == sorted(expected), stop
            kinds = sorted(begun.kinds + rest.kinds)
            assert kinds == sorted(whole.kinds) or "SOURCE_ENDED" in begun.kinds


def split(lines: bytes) -> list[bytes]:
    return lines.split(b"\n")[:-1]


async def test_a_source_that_a_resumed_stream_does_not_know_is_read_from_its_beginning(site: Site) -> None:
    site.run("r0").write(*numbered("a", 1, 2, 3))
    async with site.stream("r0", tail_lines=1) as lines:
        await lines.rest()
    site.run("r1").write(*numbered("b", 1, 2, 3))
    resumed = await site.read("r0", "r1", tail_lines=1, resume=lines.resume())
    assert resumed.texts == [b"b1", b"b2", b"b3"]


async def test_too_many_sources_are_refused(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloudless.agent.logs.gather.MAX_SOURCES", 2)
    with pytest.raises(Exhausted):
        await site.read("r0", "r1", "r2")


# -- following -------------------------------------------------------------------------


def has(*texts: bytes):  # type: ignore[no-untyped-def]
    return lambda lines: set(texts) <= set(lines.texts)


async def test_following_goes_on_with_new_runs_and_ends_are_told(site: Site) -> None:
    run = site.run()
    run.write(b"one\n")
    async with site.stream("r0", follow=True) as lines:
        await lines.until(lambda seen: seen.batches[-1:] != [] and seen.batches[-1].caught_up)
        assert lines.texts == [b"one"]
        run.write(b"two\n")
        await lines.until(has(b"two"))
        run.end(3)
        await lines.until(lambda seen: "EXITED" in seen.kinds)
        second = site.run(number=2)
        second.write(b"three\n")
        await lines.until(has(b"three"))
        second.end(0, gone=True)
        await lines.until(lambda seen: "SOURCE_ENDED" in seen.kinds)
    assert lines.texts == [b"one", b"two", b"three"]
    assert lines.kinds == ["STARTED", "EXITED", "RESTARTED", "EXITED", "SOURCE_ENDED"]


async def test_the_end_of_a_container_is_told_before_its_logger_ends(site: Site) -> None:
    run = site.run()
    async with site.stream("r0", follow=True) as lines:
        await lines.until(lambda seen: "STARTED" in seen.kinds)
        run.write(b"last\n")
        log, run.log = run.log, _Endless()  # type: ignore[assignment]
        run.end(1)
        site.now_ns += SECOND
        site.states.tell()
        await lines.until(lambda seen: "EXITED" in seen.kinds)
        run.log = log
        run.write(b"a child had more to say\n")
        await lines.until(has(b"a child had more to say"))
        resume = lines.resume()
        log.end()
        site.run(number=2)
        await lines.until(lambda seen: "RESTARTED" in seen.kinds)
    assert lines.kinds == ["STARTED", "EXITED", "RESTARTED"]
    assert (await site.read(resume=resume)).kinds == ["RESTARTED", "SOURCE_ENDED"]


class _Endless:
    def __init__(self) -> None:
        self.fd = os.open(os.devnull, os.O_RDONLY)  # is closed at the end

    def end(self) -> None:
        """The logger does not end yet."""


async def test_a_replica_that_comes_is_read_from_its_beginning(site: Site) -> None:
    site.run("r0").write(*numbered("a", 1, 2, 3))
    async with site.stream("r0", follow=True, tail_lines=1) as lines:
        await lines.until(has(b"a3"))
        site.run("r1").write(*numbered("b", 1, 2, 3))
        await lines.until(has(b"b1", b"b2", b"b3"))
    assert lines.texts == [b"a3", b"b1", b"b2", b"b3"]
    (new,) = [chunk for chunk in lines.chunks[1:] if chunk.source is not None]
    assert new.replica_id == "r1"


async def test_following_ends_with_until(site: Site) -> None:
    run = site.run()
    async with site.stream("r0", follow=True, until_ns=T0_NS + 3 * SECOND) as lines:
        await lines.until(lambda seen: "STARTED" in seen.kinds)
        run.write(*numbered("a", 1, 2, 3, 4))
        await lines.rest()
    assert lines.texts == [b"a1", b"a2", b"a3"]


async def test_followed_lines_before_since_are_left_out(site: Site) -> None:
    run = site.run()
    run.write(*numbered("a", 1, 2))
    async with site.stream("r0", follow=True, since_ns=T0_NS + 5 * SECOND) as lines:
        await lines.until(lambda seen: any(batch.caught_up for batch in seen.batches))
        run.write(*numbered("a", 3))
        run.write(*numbered("a", 4, 5, 6))
        await lines.until(has(b"a6"))
        assert lines.texts == [b"a5", b"a6"]
        resume = lines.resume()
        run.write(b"a7\n")
    assert (await site.read(resume=resume)).texts == [b"a7"]


async def test_a_container_that_ended_and_waits_to_be_started_again_says_so(site: Site) -> None:
    run = site.run()
    run.write(b"last\n")
    run.log, log = _Endless(), run.log  # type: ignore[assignment]
    run.end(3)
    assert site.states.writes("r0", 1), "its record is there, and so is its logger"
    lines = await site.read()
    assert (lines.texts, lines.kinds) == ([b"last"], ["STARTED", "EXITED", "SOURCE_ENDED"])
    assert lines.markers[1].exit is not None
    assert lines.markers[1].exit.code == 3
    async with site.stream("r0", follow=True) as followed:
        await followed.until(lambda seen: any(batch.caught_up for batch in seen.batches))
        run.log = log
        site.now_ns += SECOND
        site.states.tell()
        await followed.until(lambda seen: "EXITED" in seen.kinds)
        log.end()
        site.run(number=2)
        await followed.until(lambda seen: "RESTARTED" in seen.kinds)
    assert followed.kinds == ["STARTED", "EXITED", "RESTARTED"]


async def test_a_hundred_followers_read_the_file_once(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    run = site.run()
    streams = [site.stream("r0", follow=True) for _ in range(100)]
    followers: list[Lines] = []
    reads = 0
    original = place.LogPlace.read

    async def counted(self: place.LogPlace, *, at_end: bool):  # type: ignore[no-untyped-def]
        nonlocal reads
        reads += 1
        return await original(self, at_end=at_end)

    for stream in streams:
        followers.append(await stream.__aenter__())
        await followers[-1].until(lambda seen: any(batch.caught_up for batch in seen.batches))
    pending = [asyncio.ensure_future(one.until(has(b"x9"))) for one in followers]
    await asyncio.sleep(0)
    monkeypatch.setattr(place.LogPlace, "read", counted)
    for number in range(10):
        run.write(b"x%d\n" % number)
        await asyncio.sleep(0.01)
    await asyncio.gather(*pending)
    assert all(one.texts == [b"x%d" % number for number in range(10)] for one in followers)
    assert reads < 60, "one read for each write and one that finds nothing, whoever follows"
    for stream in streams:
        await stream.__aexit__(None, None, None)
    assert site.store._live == {}


async def test_who_falls_behind_reads_by_himself(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "RING_BYTES", 300)
    run = site.run()
    async with site.stream("r0", follow=True) as slow, site.stream("r0", follow=True) as fast:
        for one in (slow, fast):
            await one.until(lambda seen: any(batch.caught_up for batch in seen.batches))
        for number in range(50):
            run.write(b"x%d\n" % number)
            await fast.until(has(b"x%d" % number))
        await slow.until(has(b"x49"))
        run.write(b"more\n")
        await slow.until(has(b"more"))
        await fast.until(has(b"more"))
    assert slow.texts == fast.texts == [*(b"x%d" % number for number in range(50)), b"more"]


async def test_a_slow_follower_of_a_storm_gets_gaps_that_add_up(site: Site) -> None:
    run = site.run(file_bytes=2000, files=3)
    async with site.stream("r0", follow=True) as lines:
        await lines.until(lambda seen: any(batch.caught_up for batch in seen.batches))
        for number in range(2000):
            run.write(b"line %d\n" % number)
            if number % 300 == 0:
                await lines.next()
        run.write(b"end\n")
        await lines.until(has(b"end"))
    assert lines.accounted == run.written
    assert "GAP" in lines.kinds


async def test_closing_a_stream_leaves_nothing(site: Site) -> None:
    site.run()
    before = asyncio.all_tasks()
    async with site.stream("r0", follow=True) as lines:
        await lines.until(lambda seen: any(batch.caught_up for batch in seen.batches))
        waiting = asyncio.ensure_future(lines.next())
        await asyncio.sleep(0.01)
        waiting.cancel()
        await asyncio.wait({waiting})
    assert asyncio.all_tasks() == before
    assert (site.store._live, site.store._listeners) == ({}, [])


# -- the logger dies -------------------------------------------------------------------


async def test_a_log_that_was_closed_for_its_dead_logger_says_so(site: Site) -> None:
    run = site.run()
    run.write(b"one\n", b"two")
    files.close_for_dead_logger(run.directory, site.now_ns)
    lines = await site.read()
    assert lines.texts == [b"one", b"two"]
    assert lines.kinds == ["STARTED", "LOGGER_LOST", "SOURCE_ENDED"]
    assert lines.accounted == run.written


# -- hard treatment --------------------------------------------------------------------


async def test_a_stream_may_be_cancelled_anywhere(site: Site) -> None:
    run = site.run()
    run.write(*numbered("a", *range(50)))
    baseline = asyncio.all_tasks()

    async def follow() -> None:
        async with site.stream("r0", follow=True, include=("a",)) as lines:
            while True:
                await lines.next()

    for steps in range(80):
        task = asyncio.ensure_future(follow())
        for _ in range(steps):
            await asyncio.sleep(0)
        run.write(b"b\n")
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled(), steps
        assert (site.store._live, site.store._listeners) == ({}, []), steps
    assert asyncio.all_tasks() == baseline


async def test_cursors_that_nobody_gave_do_no_harm(site: Site) -> None:
    chance = random.Random(11)
    for number in (1, 2):
        run = site.run(number=number, file_bytes=400, files=3)
        run.write(*numbered("line", *range(60)))
        run.end()
    texts = set((await site.read()).texts)
    for _ in range(300):
        big = chance.choice((3, 70, 10**6, 10**18))
        at = LogCursor(chance.randrange(big), chance.randrange(big), chance.randrange(big))
        before = chance.choice((b"", b"2026-01-01T00:00:20.000000000Z", b"z" * 30, b" " * 30))
        cursor = SourceCursor(chance.randrange(4), at, before, chance.randrange(5) if before else 0)
        lines = await site.read(resume={"r0": cursor, "nobody": cursor})
        assert lines.kinds[-1:] in ([], ["SOURCE_ENDED"])
        whole = [text for text in lines.texts if text in texts]
        assert len(whole) == len(set(whole)) or len(whole) <= 120


async def test_lines_that_are_no_lines_do_no_harm(site: Site) -> None:
    run = site.run()
    run.write(b"good\n")
    with Path(files.segments(run.directory)[0].path).open("ab") as file:
        file.write(b"rubbish\n\n" + b"\xff" * 100 + b"\n2026 stdout F x\n")
    run.log.size = 10**9  # the logger goes on in a new file
    run.write(b"after\n")
    for query in ({}, {"include": ("t",)}, {"tail_lines": 3}, {"since_ns": T0_NS}, {"timestamps": True}):
        assert b"after" in (await site.read(**query)).texts[-1]
