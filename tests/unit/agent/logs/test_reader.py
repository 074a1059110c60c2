from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloudless.agent.logs import files, logger
from cloudless.agent.logs.reader import ReadOptions, read_log
from cloudless.agent.logs.record import LogBatch
from cloudless.agent.logs.watch import LogWatcher
from cloudless.domain import loglines as lines
from cloudless.domain.logrecord import LogCursor, LogRecord

SECOND = 1_000_000_000
DEADLINE_S = 5.0
WHOLE = ReadOptions()


class Writer:
    """A logger in this process, with a clock that the test sets."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch, file_bytes: int = 500) -> None:
        self.now_ns = SECOND
        monkeypatch.setattr(logger.time, "time_ns", lambda: self.now_ns)
        self.log = logger.Log(str(directory), file_bytes, 4)
        self.log.put(b"", 0)

    def write(self, text: bytes, stream: bytes = b"stdout") -> None:
        rest = logger.take(self.log, stream, text)
        if rest:
            self.log.put(self.log.stamp(stream) + b"P " + rest + b"\n", len(rest))

    def close(self) -> None:
        logger.os.close(self.log.fd)


@pytest.fixture
async def watcher() -> AsyncIterator[LogWatcher]:
    made = LogWatcher()
    yield made
    made.close()


@pytest.fixture
def writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Writer]:
    return lambda **options: Writer(tmp_path, monkeypatch, **options)


async def read(directory: Path, watcher: LogWatcher, options: ReadOptions = WHOLE) -> list[LogBatch]:
    async with asyncio.timeout(DEADLINE_S), contextlib.aclosing(read_log(directory, options, watcher)) as log:
        return [batch async for batch in log]


def texts(batches: list[LogBatch]) -> list[bytes]:
    return [record.data for batch in batches for record in lines.parse(batch.data)]


def accounted(batches: list[LogBatch]) -> int:
    return sum(lines.written_bytes(batch.data) + batch.gap_bytes for batch in batches)


async def test_a_log_that_does_not_exist_is_empty(tmp_path: Path, watcher: LogWatcher) -> None:
    assert await read(tmp_path / "none", watcher, ReadOptions(follow=True)) == []


async def test_delivered_and_missing_bytes_are_all(
    tmp_path: Path, watcher: LogWatcher, writer: Callable[..., Writer]
) -> None:
    log = writer()
    for number in range(200):
        log.write(b"line %04d\n" % number)
    log.close()
    batches = await read(tmp_path, watcher)
    assert accounted(batches) == 2000
    assert batches[0].gap_bytes > 0
    assert [batch.gap_bytes for batch in batches[1:]] == [0] * (len(batches) - 1)
    got = texts(batches)
    assert got == [b"line %04d" % number for number in range(200 - len(got), 200)]


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    written=st.lists(
        st.tuples(st.sampled_from((b"stdout", b"stderr")), st.integers(0, 90), st.integers(0, 3)), max_size=30
    ),
    count=st.integers(0, 12),
    streams=st.sampled_from((frozenset({"stdout", "stderr"}), frozenset({"stdout"}))),
    since=st.integers(1, 20) | st.none(),
    until=st.integers(1, 20) | st.none(),
)
def test_a_part_is_the_part_of_the_whole(
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    written: list[tuple[bytes, int, int]],
    count: int,
    streams: frozenset[str],
    since: int | None,
    until: int | None,
) -> None:
    directory = tmp_path_factory.mktemp("log")
    log = Writer(directory, monkeypatch)
    for number, (stream, size, later) in enumerate(written):
        log.now_ns += later * SECOND
        log.write(b"%d " % number + b"x" * size + b"\n", stream)
    log.close()

    def part(options: ReadOptions) -> list[LogRecord]:
        with contextlib.closing(asyncio.new_event_loop()) as loop:
            batches = loop.run_until_complete(read(directory, LogWatcher(), options))
            loop.run_until_complete(loop.shutdown_default_executor())
        return [record for batch in batches for record in lines.parse(batch.data)]

    def fits(record: LogRecord) -> bool:
        return (
            record.stream in streams
            and (since is None or record.timestamp_ns >= since * SECOND)
            and (until is None or record.timestamp_ns <= until * SECOND)
        )

    whole = part(WHOLE)
    options = ReadOptions(
        streams=streams,
        since_ns=None if since is None else since * SECOND,
        until_ns=None if until is None else until * SECOND,
    )
    assert part(options) == [record for record in whole if fits(record)]
    of_streams = [record for record in whole if record.stream in streams]
    tail = part(ReadOptions(tail_lines=count, streams=streams))
    assert tail == of_streams[len(of_streams) - min(count, len(of_streams)) :]
    fitting = [record for record in whole if fits(record)]
    newest = part(dataclasses.replace(options, tail_lines=count))
    assert newest == fitting[len(fitting) - min(count, len(fitting)) :]


async def test_tail_takes_the_pieces_of_a_line_along(
    tmp_path: Path, watcher: LogWatcher, writer: Callable[..., Writer]
) -> None:
    log = writer(file_bytes=1_000_000)
    long = b"y" * (3 * logger.PIECE_BYTES)
    log.write(b"before\n" + long + b"\nafter\nprompt> ")
    log.close()
    assert texts(await read(tmp_path, watcher, ReadOptions(tail_lines=1))) == [b"prompt> "]
    three = texts(await read(tmp_path, watcher, ReadOptions(tail_lines=3)))
    assert b"".join(three) == long + b"afterprompt> "


async def test_every_cursor_resumes_without_loss_or_repeat(
    tmp_path: Path, watcher: LogWatcher, writer: Callable[..., Writer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloudless.agent.logs.place.CHUNK_BYTES", 120)
    log = writer()
    for number in range(40):
        log.write(b"line %04d\n" % number)
    log.close()
    batches = await read(tmp_path, watcher)
    assert len(batches) > 8
    for done, batch in enumerate(batches, 1):
        rest = await read(tmp_path, watcher, ReadOptions(cursor=LogCursor.parse(str(batch.cursor))))
        assert texts(batches[:done]) + texts(rest) == texts(batches)
        assert sum(one.gap_bytes for one in rest) == 0


async def test_a_cursor_into_a_lost_file_tells_the_gap(
    tmp_path: Path, watcher: LogWatcher, writer: Callable[..., Writer]
) -> None:
    log = writer()
    log.write(b"first\n")
    (batch,) = await read(tmp_path, watcher)
    for number in range(200):
        log.write(b"line %04d\n" % number)
    log.close()
    rest = await read(tmp_path, watcher, ReadOptions(cursor=batch.cursor))
    assert accounted(rest) == 2000
    assert rest[0].gap_bytes > 0


async def test_following_delivers_everything_in_order(
    tmp_path: Path, watcher: LogWatcher, writer: Callable[..., Writer]
) -> None:
    log = writer()
    got: list[bytes] = []
    async with (
        asyncio.timeout(DEADLINE_S),
        contextlib.aclosing(read_log(tmp_path, ReadOptions(follow=True), watcher)) as reading,
    ):
        for number in range(100):
            log.write(b"line %d\n" % number)
            while len(got) <= number:
                got += texts([await anext(reading)])
        log.log.end()
        with pytest.raises(StopAsyncIteration):
            await anext(reading)
    log.close()
    assert got == [b"line %d" % number for number in range(100)]


@pytest.mark.parametrize("file_bytes", [200, 500, 100_000])
async def test_reading_without_following_ends_where_the_log_was(
    tmp_path: Path, watcher: LogWatcher, writer: Callable[..., Writer], file_bytes: int
) -> None:
    log = writer(file_bytes=file_bytes)
    for number in range(12):
        log.write(b"old %04d\n" % number)
    seen: list[LogBatch] = []
    async with (
        asyncio.timeout(DEADLINE_S),
        contextlib.aclosing(read_log(tmp_path, WHOLE, watcher)) as batches,
    ):
        async for batch in batches:
            seen.append(batch)
            for number in range(5):  # faster than it is read
                log.write(b"new %04d\n" % number)
    assert not [text for text in texts(seen) if text.startswith(b"new")]
    if file_bytes > 200:
        assert texts(seen)[-1].startswith(b"old 0011")
    log.close()


@pytest.mark.parametrize("file_bytes", [200, 100_000])
async def test_a_tail_is_of_the_log_as_it_was(
    tmp_path: Path,
    watcher: LogWatcher,
    writer: Callable[..., Writer],
    monkeypatch: pytest.MonkeyPatch,
    file_bytes: int,
) -> None:
    log = writer(file_bytes=file_bytes)
    for number in range(10):
        log.write(b"old %04d\n" % number)
    find_end = files.find_end

    def then_more(directory: Path) -> files.End:
        found = find_end(directory)
        log.write(b"new\n" * 3)
        return found

    monkeypatch.setattr(files, "find_end", then_more)
    assert texts(await read(tmp_path, watcher, ReadOptions(tail_lines=2))) == [b"old 0008", b"old 0009"]
    log.close()


async def test_a_slow_follower_learns_what_it_missed(
    tmp_path: Path, watcher: LogWatcher, writer: Callable[..., Writer]
) -> None:
    log = writer()
    log.write(b"first\n")
    async with (
        asyncio.timeout(DEADLINE_S),
        contextlib.aclosing(read_log(tmp_path, ReadOptions(follow=True), watcher)) as reading,
    ):
        got = [await anext(reading)]
        for number in range(200):
            log.write(b"line %04d\n" % number)
        log.log.end()
        got += [batch async for batch in reading]
    log.close()
    assert accounted(got) == 2006
    assert got[1].gap_bytes > 0
    assert texts(got)[-1] == b"line 0199"


async def test_following_ends_when_the_container_is_gone(
    tmp_path: Path, watcher: LogWatcher, writer: Callable[..., Writer]
) -> None:
    log = writer()
    log.write(b"first\n")
    finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    async with asyncio.timeout(DEADLINE_S):
        reading = read_log(tmp_path, ReadOptions(follow=True), watcher, finished)
        async with contextlib.aclosing(reading):
            assert texts([await anext(reading)]) == [b"first"]
            log.write(b"last\n")
            asyncio.get_running_loop().call_soon(finished.set_result, None)
            assert texts([batch async for batch in reading]) == [b"last"]
    log.close()


async def test_following_ends_when_the_log_is_deleted(
    tmp_path: Path, watcher: LogWatcher, writer: Callable[..., Writer]
) -> None:
    log = writer()
    log.write(b"first\n")
    log.close()
    async with asyncio.timeout(DEADLINE_S):
        async with contextlib.aclosing(read_log(tmp_path, ReadOptions(follow=True), watcher)) as reading:
            assert texts([await anext(reading)]) == [b"first"]
            asyncio.get_running_loop().call_soon(shutil.rmtree, tmp_path)
            assert [batch async for batch in reading] == []


async def test_a_loss_in_the_log_is_a_gap(
    tmp_path: Path, watcher: LogWatcher, writer: Callable[..., Writer]
) -> None:
    log = writer()
    log.write(b"before\n")
    log.log.lost, log.log.position = 1000, log.log.position + 1000
    log.write(b"after\n")
    log.close()
    batches = await read(tmp_path, watcher)
    assert [(texts([batch]), batch.gap_bytes) for batch in batches] == [
        ([b"before"], 0),
        ([], 1000),
        ([b"after"], 0),
    ]
    assert accounted(batches) == log.log.position


async def test_half_a_line_of_a_killed_logger_is_a_piece(
    tmp_path: Path, watcher: LogWatcher, writer: Callable[..., Writer]
) -> None:
    log = writer()
    log.write(b"whole\n")
    log.close()
    with Path(files.segments(tmp_path)[0].path).open("ab") as file:
        file.write(lines.time_text(SECOND) + b" stdout F half")
    assert texts(await read(tmp_path, watcher)) == [b"whole"]  # perhaps it is being written right now
    (tmp_path / files.END).touch()
    assert texts(await read(tmp_path, watcher)) == [b"whole", b"half"]


async def test_waiting_leaves_no_watch_behind(tmp_path: Path, watcher: LogWatcher) -> None:
    notices = [watcher.arm(tmp_path) for _ in range(3)]
    for notice in notices:
        notice.cancel()
    await asyncio.sleep(0)
    assert watcher._waiting == {}
    notice = watcher.arm(tmp_path)
    (tmp_path / "new").touch()
    async with asyncio.timeout(DEADLINE_S):
        await notice
    assert watcher._waiting == {}


async def test_without_notices_followers_look_now_and_then(
    tmp_path: Path, watcher: LogWatcher, monkeypatch: pytest.MonkeyPatch, writer: Callable[..., Writer]
) -> None:
    def none_left(*_: object) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(watcher, "_open", none_left)
    monkeypatch.setattr("cloudless.agent.logs.watch.LOOK_WITHOUT_NOTICE_S", 0.001)
    log = writer()
    async with asyncio.timeout(DEADLINE_S):
        async with contextlib.aclosing(read_log(tmp_path, ReadOptions(follow=True), watcher)) as reading:
            asyncio.get_running_loop().call_later(0.005, log.write, b"late\n")
            assert texts([await anext(reading)]) == [b"late"]
    log.close()
