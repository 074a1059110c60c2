"""Patterns look at whole lines, in whatever pieces and chunks these lie, and wherever reading begins."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
from tests.unit.agent.logs.site import SECOND, T0_NS, Lines, Run, Site, site

from cloudless.agent.logs import files, place, tail
from cloudless.domain import loglines
from cloudless.domain.logfilter import LogFilter
from cloudless.domain.logrecord import LogCursor, SourceCursor
from cloudless.domain.logstream import LogChunk, LogQuery
from cloudless.planning.logorder import Span, cursor_within

__all__ = ["site"]

JUDGED_BYTES = 40
CAUGHT_UP = "caught up"


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks, windows and the begin of a line that counts hold a few pieces only."""
    monkeypatch.setattr(place, "CHUNK_BYTES", 300)
    monkeypatch.setattr(tail, "JUDGED_BYTES", JUDGED_BYTES)
    monkeypatch.setattr("cloudless.agent.logs.sieve.JUDGED_BYTES", JUDGED_BYTES)
    monkeypatch.setattr("cloudless.agent.logs.gather.MIN_SHARE_BYTES", 200)
    monkeypatch.setattr("cloudless.agent.logs.gather.MAX_SHARE_BYTES", 300)
    monkeypatch.setattr("cloudless.agent.logs.gather.BATCH_BYTES", 400)


def caught_up(lines: Lines) -> bool:
    return any(batch.caught_up for batch in lines.batches)


def has(*texts: bytes):  # type: ignore[no-untyped-def]
    return lambda lines: set(texts) <= set(lines.texts)


def hello(run: Run) -> None:
    run.write(b"hello ", b"world\n")


# -- whole lines -----------------------------------------------------------------------


async def test_a_line_that_was_written_with_pauses_is_one_line(site: Site) -> None:
    run = site.run()
    hello(run)
    run.write(b"other\n")
    assert (await site.read(include=("hello world",))).records == [
        loglines.LogRecord(T0_NS + SECOND, "stdout", False, b"hello world")
    ]
    assert (await site.read(exclude=("world",))).texts == [b"other"]
    assert (await site.read(include=("^world",))).texts == []
    assert (await site.read(include=("hello",), tail_lines=1)).texts == [b"hello world"]
    stamped = await site.read(include=("hello",), timestamps=True)
    assert stamped.texts == [b"2026-01-01T00:00:01.000000000Z hello world"]


async def test_the_streams_do_not_mix(site: Site) -> None:
    run = site.run()
    run.write(b"one ")
    run.write(b"bad ", b"thing\n", stream=b"stderr")
    run.write(b"two\n")
    lines = await site.read(include=("bad thing", "one two"))
    assert lines.texts == [b"bad thing", b"one two"]
    times = [record.timestamp_ns for record in lines.records]
    assert times == sorted(times), "a line that others have overtaken is where its end is"
    assert (await site.read(include=("two",), streams=frozenset({"stdout"}))).texts == [b"one two"]
    assert (await site.read(exclude=("two",), streams=frozenset({"stdout"}))).texts == []


async def test_a_line_is_decided_by_its_first_64_kib(site: Site) -> None:
    run = site.run()
    run.write(b"begin " + b"x" * 200_000 + b" end\n", b"short end\n")
    (begin, *rest) = (await site.read(include=("^begin",))).records
    assert sum(len(one.data) for one in (begin, *rest)) == 200_010
    assert begin.data.startswith(b"begin xxx")
    assert [one.partial for one in (begin, *rest)] == [True] * len(rest) + [False]
    assert (await site.read(include=("end$",))).texts == [b"short end"]
    assert (await site.read(exclude=("begin",))).texts == [b"short end"]
    assert (await site.read(include=("begin",), tail_lines=1)).accounted == 200_011


async def test_without_patterns_pieces_come_at_once_and_as_they_are(site: Site) -> None:
    run = site.run()
    async with site.stream("r0", follow=True, streams=frozenset({"stdout"})) as lines:
        await lines.until(caught_up)
        run.write(b"hello ")
        await lines.until(has(b"hello "))


# -- the end of a line that has none ----------------------------------------------------


async def test_a_prompt_is_decided_at_the_end_of_its_run(site: Site) -> None:
    run = site.run()
    run.write(b"line\n", b"name? ")
    assert (await site.read(include=("name",))).texts == [b"name? "]
    async with site.stream("r0", follow=True, include=("name",), tail_lines=5) as lines:
        await lines.until(caught_up)
        assert lines.texts == []
        run.end(3)
        await lines.until(lambda seen: "EXITED" in seen.kinds)
        second = site.run(number=2)
        second.write(b"and name\n")
        await lines.until(has(b"and name"))
    assert lines.texts == [b"name? ", b"and name"]
    assert lines.records[0].partial
    (at,) = [number for number, chunk in enumerate(lines.chunks) if b"name? " in chunk.lines]
    assert lines.chunks[at + 1].marker is not None


async def test_following_waits_for_the_rest_of_a_line_that_had_begun(site: Site) -> None:
    run = site.run()
    run.write(b"hello old\n", b"hello ")
    async with site.stream("r0", follow=True, include=("hello",), tail_lines=1) as lines:
        await lines.until(caught_up)
        run.write(b"world\n")
        await lines.until(has(b"hello world"))
    assert lines.texts == [b"hello old", b"hello world"]
    run.write(b"hello ")
    async with site.stream("r0", follow=True, include=("hello",), tail_lines=0) as lines:
        await lines.until(caught_up)
        run.write(b"again\n")
        await lines.until(lambda seen: bool(seen.texts))
    assert lines.texts == [b"hello again"]


async def test_until_decides_what_is_held(site: Site) -> None:
    run = site.run()
    run.write(b"hello ", b"world\n")
    lines = await site.read(include=("hello",), until_ns=T0_NS + SECOND)
    assert (lines.texts, lines.kinds[-1]) == ([b"hello "], "SOURCE_ENDED")
    assert (await site.read(include=("hello",), until_ns=T0_NS + SECOND, tail_lines=1)).texts == [b"hello "]
    assert (await site.read(include=("hello",), since_ns=T0_NS + 2 * SECOND)).texts == []
    assert (await site.read(include=("world",), since_ns=T0_NS + 2 * SECOND, tail_lines=1)).texts == [
        b"world"
    ]


async def test_what_is_held_comes_when_the_time_to_follow_is_over(site: Site) -> None:
    run = site.run()
    async with site.stream("r0", follow=True, include=("name",), until_ns=T0_NS + 3 * SECOND) as lines:
        await lines.until(caught_up)
        run.write(b"name? ")
        await lines.next()
        site.now_ns = T0_NS + 3 * SECOND
        run.write(b"x", later_ns=0)
        await lines.rest()
    assert lines.texts == [b"name? x"]


async def test_a_gap_and_the_death_of_the_logger_end_lines(site: Site) -> None:
    run = site.run()
    run.write(b"good ")
    run.log.lost, run.log.position = 7, run.log.position + 7
    run.write(b"rest\n", b"good")
    files.close_for_dead_logger(run.directory, site.now_ns)
    lines = await site.read(include=("good",))
    assert lines.texts == [b"good ", b"good"]
    assert lines.kinds == ["STARTED", "GAP", "LOGGER_LOST", "SOURCE_ENDED"]
    assert (await site.read(include=("rest",))).texts == [b"rest"]
    for count, texts in ((1, [b"good"]), (2, [b"good ", b"good"]), (3, [b"good ", b"good"])):
        assert (await site.read(include=("good",), tail_lines=count)).texts == texts


async def test_a_line_goes_on_over_a_rotation(site: Site) -> None:
    run = site.run(file_bytes=200)
    run.write(*[b"a line of some length\n"] * 10, b"hello ", *[b"and "] * 6, b"world\n")
    assert len(files.segments(run.directory)) > 2
    whole = b"hello " + b"and " * 6 + b"world"
    assert (await site.read(include=("^hello.*world$",))).texts == [whole]
    assert (await site.read(include=("world",), tail_lines=1)).texts == [whole]


# -- any log, from any place ------------------------------------------------------------


class Written:
    """A replica with everything that was written, and what patterns make of it."""

    def __init__(self, site: Site, name: str, chance: random.Random) -> None:
        self.site, self.name, self.chance = site, name, chance
        self.run = site.run(name, file_bytes=900, files=1000)
        #: (run, stream, whole, text), as the logger wrote them.
        self.raws: list[tuple[int, str, bool, bytes]] = []

    def write(self, number: int) -> None:
        stream = self.chance.choice(("stdout", "stdout", "stderr"))
        whole = self.chance.random() < 0.5
        long = b"x" * self.chance.choice((0, 0, 0, 5, 30, 60))
        text = b"%s%d%s" % (self.chance.choice((b"a", b"b")), number, long)
        later_ns = self.chance.choice((0, 0, 1, SECOND))
        self.run.write(text + b"\n" * whole, stream=stream.encode(), later_ns=later_ns)
        self.raws.append((self.run.number, stream, whole, text))

    def restart(self) -> None:
        self.run.end(1)
        self.run = self.site.run(self.name, self.run.number + 1, file_bytes=900, files=1000)

    def model(self, query: LogQuery) -> list[tuple[str, bytes]]:
        """Whole lines that pass, in the order in which they are decided."""
        line_filter = LogFilter(query)
        found = []
        for run in range(1, self.run.number + 1):
            raws = [raw for raw in self.raws if raw[0] == run]
            decided = []
            for stream in query.streams:
                text, begin, at = b"", -1, -1
                for number, (_, name, whole, piece) in enumerate(raws):
                    if name != stream:
                        continue
                    begin = number if begin < 0 else begin
                    text += piece
                    at = number if at < 0 and (whole or len(text) >= JUDGED_BYTES) else at
                    if whole:
                        decided.append((at, begin, stream, text))
                        text, begin, at = b"", -1, -1
                if begin >= 0:
                    decided.append((len(raws) if at < 0 else at, begin, stream, text))
            found += [one[2:] for one in sorted(decided) if line_filter.matches(one[3][:JUDGED_BYTES])]
        return found


def written(site: Site, seed: int, *, runs: int = 3) -> list[Written]:
    chance = random.Random(seed)
    sources = [Written(site, name, chance) for name in ("r0", "r1")]
    for number in range(60 * runs):
        one = chance.choice(sources)
        one.write(number)
        if number % 60 == 59 and one.run.number < runs:
            one.restart()
    return sources


def delivered(lines: list[Lines], name: str) -> list[tuple[str, bytes]]:
    """Lines of one source, put together, in the order of their begins."""
    found: list[tuple[str, bytes]] = []
    going: dict[str, int] = {}
    for chunk in [chunk for one in lines for chunk in one.chunks if chunk.replica_id == name]:
        if chunk.marker is not None and chunk.marker.kind.value in ("EXITED", "SOURCE_ENDED"):
            going.clear()
        for record in loglines.parse(chunk.lines):
            number = going.pop(record.stream, len(found))
            if number == len(found):
                found.append((record.stream, b""))
            found[number] = (record.stream, found[number][1] + record.data)
            if record.partial:
                going[record.stream] = number
    return found


QUERIES: list[dict[str, Any]] = [
    {"include": ("a.*b",)},
    {"exclude": ("b",)},
    {"include": ("a",), "exclude": ("7",), "streams": frozenset({"stdout"})},
]


@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.usefixtures("small")
async def test_any_log_is_read_as_whole_lines(site: Site, seed: int, query: dict[str, Any]) -> None:
    sources = written(site, seed)
    lines = await site.read("r0", "r1", **query)
    assert len(lines.batches) > 10
    newest = b""
    for batch in lines.batches:
        times = sorted(line[:30] for chunk in batch.chunks for line in chunk.lines.splitlines())
        if times:
            assert times[0] >= newest, "no line is older than one of the batch before"
            newest = times[-1]
    for one in sources:
        assert delivered([lines], one.name) == one.model(LogQuery(**query))


@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.usefixtures("small")
async def test_any_tail_is_the_last_of_the_whole_lines(site: Site, seed: int, query: dict[str, Any]) -> None:
    (one, _) = written(site, seed)
    whole = one.model(LogQuery(**query))
    assert whole
    for count in range(len(whole) + 2):
        lines = await site.read("r0", tail_lines=count, **query)
        assert delivered([lines], "r0") == whole[max(len(whole) - count, 0) :], count


@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.usefixtures("small")
async def test_every_cursor_goes_on_without_loss_or_repeat(site: Site, query: dict[str, Any]) -> None:
    sources = written(site, 5)
    whole = await site.read("r0", "r1", **query)
    for stop in range(1, len(whole.batches)):
        async with site.stream("r0", "r1", **query) as begun:
            for _ in range(stop):
                await begun.next()
        rest = await site.read("r0", "r1", resume=begun.resume(), tail_lines=3, **query)
        for one in sources:
            assert delivered([begun, rest], one.name) == one.model(LogQuery(**query)), stop
        assert begun.kinds + rest.kinds == whole.kinds or "SOURCE_ENDED" in begun.kinds


def parts(lines: Lines) -> Iterator[tuple[int, bytes, SourceCursor]]:
    """Every place in the middle of a chunk: its number, the lines before it, and its cursor."""
    base = SourceCursor.parse(lines.chunks[0].cursor)
    for number, chunk in enumerate(lines.chunks):
        end = chunk.lines.find(b"\n") + 1
        while 0 < end < len(chunk.lines):
            yield number, chunk.lines[:end], cursor_within(base, Span(chunk.lines), end)
            end = chunk.lines.find(b"\n", end) + 1
        base = SourceCursor.parse(chunk.cursor)


@pytest.mark.parametrize("query", QUERIES)
async def test_who_cuts_a_chunk_can_go_on_behind_it(
    site: Site, query: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloudless.agent.logs.sieve.JUDGED_BYTES", JUDGED_BYTES)
    (one, _) = written(site, 6)
    whole = await site.read("r0", **query)
    count = 0
    for number, lines, cursor in parts(whole):
        count += 1
        rest = await site.read("r0", resume={"r0": cursor}, **query)
        before = Lines(None)
        before.chunks = [*whole.chunks[:number], LogChunk("r0", lines=lines)]
        assert delivered([before, rest], "r0") == one.model(LogQuery(**query)), str(cursor)
        for again, more, twice in parts(rest):  # and once more, in the middle of what came then
            last = await site.read("r0", resume={"r0": twice}, **query)
            middle = Lines(None)
            middle.chunks = [*before.chunks, *rest.chunks[:again], LogChunk("r0", lines=more)]
            assert delivered([middle, last], "r0") == one.model(LogQuery(**query)), str(twice)
    assert count > 3


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.usefixtures("small")
async def test_a_follower_that_is_cut_off_again_and_again_gets_whole_lines(site: Site, seed: int) -> None:
    chance = random.Random(seed)
    one = Written(site, "r0", chance)
    query: dict[str, Any] = {"include": ("a.*b",)}
    got: list[Lines] = []
    resume: dict[str, SourceCursor] | None = None
    for round_ in range(12):
        last = round_ == 11
        async with site.stream("r0", follow=True, resume=resume, **query) as lines:
            await lines.until(caught_up)
            for number in range(8):
                one.write(round_ * 100 + number)
                if chance.random() < 0.5:
                    await lines.next()
            if last:
                one.run.end(0, gone=True)
                await lines.until(lambda seen: "SOURCE_ENDED" in seen.kinds)
        got.append(lines)
        resume = lines.resume()
    assert delivered(got, "r0") == one.model(LogQuery(**query))
    assert [kind for lines in got for kind in lines.kinds] == ["STARTED", "EXITED", "SOURCE_ENDED"]


@pytest.mark.usefixtures("small")
async def test_what_was_rotated_away_while_it_was_held_is_told_and_nothing_comes_twice(site: Site) -> None:
    run = site.run(file_bytes=500, files=3)
    query: dict[str, Any] = {"follow": True, "include": ("o",)}
    async with site.stream("r0", **query) as begun:
        await begun.until(caught_up)
        run.write(b"hello ")
        run.write(b"one\n", stream=b"stderr")
        await begun.until(has(b"one"))
        resume = begun.resume()
        assert resume["r0"].held is not None
    run.write(*[b"two %d\n" % number for number in range(40)], stream=b"stderr")
    run.write(b"world\n")
    async with site.stream("r0", resume=resume, **query) as lines:
        await lines.until(has(b"world"))
    assert lines.kinds == ["GAP"]
    assert b"one" not in lines.texts
    twos = [text for text in lines.texts if text.startswith(b"two")]
    assert twos == [b"two %d" % number for number in range(40 - len(twos), 40)]


@pytest.mark.usefixtures("small")
async def test_cursors_that_nobody_gave_do_no_harm(site: Site) -> None:
    chance = random.Random(7)
    one, _ = written(site, 7, runs=2)
    one.run.end()
    times = [record.timestamp_ns for record in (await site.read("r0")).records]
    for _ in range(200):
        big = chance.choice((3, 70, 900, 10**18))
        at, held = (LogCursor(*(chance.randrange(big) for _ in range(3))) for _ in range(2))
        before = chance.choice((b"", b"z" * 30, loglines.time_text(chance.choice(times))))
        cursor = SourceCursor(
            run=chance.randrange(4),
            at=at,
            before=before,
            passed=chance.randrange(5) if before else 0,
            held=chance.choice((None, held)),
            rest=chance.choice(("", "pp", "d-", "-p")),
        )
        lines = await site.read("r0", resume={"r0": cursor}, include=("a",))
        assert lines.kinds[-1:] in ([], ["SOURCE_ENDED"])
        async with site.stream("r0", resume={"r0": cursor}, include=("a",), follow=True) as followed:
            await followed.until(caught_up)


async def test_a_tail_is_of_what_was_written_in_the_time_that_is_asked_for(site: Site) -> None:
    run = site.run()
    run.write(*[b"a%d\n" % number for number in range(9)])
    times: dict[str, Any] = {"since_ns": T0_NS + 2 * SECOND, "until_ns": T0_NS + 5 * SECOND}
    for query in ({}, {"include": ("a",)}):
        assert (await site.read(tail_lines=2, **times, **query)).texts == [b"a3", b"a4"]
        assert (await site.read(tail_lines=7, **times, **query)).texts == [b"a1", b"a2", b"a3", b"a4"]
        assert (await site.read(tail_lines=0, **times, **query)).texts == []
