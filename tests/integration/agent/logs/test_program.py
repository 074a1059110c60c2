"""The logger as a program, started as containerd's shim starts it: descriptors 3, 4 and 5."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cloudless.agent.logs import files
from cloudless.agent.logs.capture import install_logger
from cloudless.agent.logs.reader import ReadOptions, read_log
from cloudless.agent.logs.record import LogBatch
from cloudless.agent.logs.store import LogStore
from cloudless.agent.logs.watch import LogWatcher
from cloudless.agent.output import ContainerLogs
from cloudless.aio.clock import SystemClock
from cloudless.domain import loglines as lines
from cloudless.domain.logrecord import LogRecord

DEADLINE_S = 120


class Running:
    """A logger that is ready, and the write ends of its outputs."""

    def __init__(self, program: Path, directory: Path, limits: str) -> None:
        self.directory = directory
        out, self.stdout = os.pipe()
        err, self.stderr = os.pipe()
        ready, done = os.pipe()
        # A shell puts the ends where the shim does; a logger gets hardly any environment.
        command = f'exec "$0" "$1" "$2" 3<&{out} 4<&{err} 5>&{done} {out}<&- {err}<&- {done}>&-'
        self.process = subprocess.Popen(
            ["/bin/bash", "-c", command, program, directory, limits],
            pass_fds=(out, err, done),
            env={"CONTAINER_ID": "x"},
            stdin=subprocess.DEVNULL,
        )
        for fd in (out, err, done):
            os.close(fd)
        assert os.read(ready, 1) == b""
        os.close(ready)

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self.stdout, view) :]

    def end(self) -> None:
        """Close the outputs and wait until everything is written."""
        for name in ("stdout", "stderr"):
            fd = getattr(self, name)
            if fd >= 0:
                os.close(fd)
                setattr(self, name, -1)
        assert self.process.wait(DEADLINE_S) == 0


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    program = install_logger(tmp_path / "bin")
    running: list[Running] = []

    def starter(directory: Path = tmp_path / "log", limits: str = "10485760-5") -> Running:
        directory.mkdir(exist_ok=True)
        running.append(Running(program, directory, limits))
        return running[-1]

    yield starter
    for one in running:
        with contextlib.suppress(AssertionError):
            one.end()


async def read(directory: Path, **options: object) -> list[LogBatch]:
    watcher = LogWatcher()
    try:
        async with asyncio.timeout(DEADLINE_S):
            log = read_log(directory, ReadOptions(**options), watcher)  # type: ignore[arg-type]
            async with contextlib.aclosing(log):
                return [batch async for batch in log]
    finally:
        watcher.close()


def content(batches: list[LogBatch]) -> bytes:
    return b"".join(
        record.data + (b"" if record.partial else b"\n")
        for batch in batches
        for record in lines.parse(batch.data)
    )


def accounted(batches: list[LogBatch]) -> int:
    return sum(lines.written_bytes(batch.data) + batch.gap_bytes for batch in batches)


async def test_any_bytes_come_back_as_they_were(start: Callable[..., Running]) -> None:
    source = random.Random(7)
    data = source.randbytes(300_000) + b"\n" * 1000 + b"z" * 100_000 + b"\r\x00\xff no line feed at the end"
    log = start()
    log.write(data)
    log.end()
    assert content(await read(log.directory)) == data


async def test_both_streams_are_told_apart(start: Callable[..., Running]) -> None:
    log = start()
    os.write(log.stdout, b"out\n")
    os.write(log.stderr, b"err\n")
    log.end()
    assert content(await read(log.directory, streams=frozenset({"stderr"}))) == b"err\n"
    assert content(await read(log.directory, streams=frozenset({"stdout"}))) == b"out\n"


async def test_a_storm_is_bounded_and_accounted_for(start: Callable[..., Running]) -> None:
    log = start(limits="1048576-3")
    block = b"".join(b"line %06d %s\n" % (number, b"x" * (number % 200)) for number in range(10_000))
    for _ in range(10):
        log.write(block)
    log.end()
    assert sum(Path(one.path).stat().st_size for one in files.segments(log.directory)) <= 3 * 1048576
    batches = await read(log.directory)
    assert accounted(batches) == 10 * len(block)
    assert (block * 10).endswith(content(batches))


async def test_one_line_without_an_end_is_split(start: Callable[..., Running]) -> None:
    log = start()
    for _ in range(100):
        log.write(b"y" * 1_000_000)
    log.end()
    batches = await read(log.directory)
    assert accounted(batches) == 100_000_000
    assert set(content(batches)) == {ord("y")}
    assert sum(Path(one.path).stat().st_size for one in files.segments(log.directory)) <= 50 * 1024 * 1024


async def test_a_line_of_a_gibibyte(start: Callable[..., Running]) -> None:
    log = start()
    block = b"y" * 2**20
    for _ in range(1024):
        log.write(block)
    log.write(b"\nnext\n")
    log.end()
    batches = await read(log.directory)
    assert accounted(batches) == 2**30 + 6
    assert content(batches).endswith(b"y\nnext\n")
    assert sum(Path(one.path).stat().st_size for one in files.segments(log.directory)) <= 50 * 1024 * 1024


async def test_sigterm_does_not_lose_what_is_in_the_pipe(start: Callable[..., Running]) -> None:
    log = start()
    log.process.send_signal(signal.SIGSTOP)
    log.write(b"".join(b"%d\n" % number for number in range(1000)))
    log.process.send_signal(signal.SIGTERM)
    log.process.send_signal(signal.SIGCONT)
    log.end()
    assert content(await read(log.directory)) == b"".join(b"%d\n" % number for number in range(1000))


async def test_a_follower_gets_every_line_once_over_rotations(start: Callable[..., Running]) -> None:
    count = 60_000
    log = start(limits="262144-1000")

    def produce() -> None:
        for first in range(0, count, 100):
            log.write(b"".join(b"%d\n" % number for number in range(first, first + 100)))
        log.end()

    thread = threading.Thread(target=produce)
    thread.start()
    batches = await read(log.directory, follow=True)
    thread.join()
    assert len(files.segments(log.directory)) > 5
    assert sum(batch.gap_bytes for batch in batches) == 0
    assert content(batches) == b"".join(b"%d\n" % number for number in range(count))


async def test_readers_that_are_killed_resume_without_loss_or_repeat(start: Callable[..., Running]) -> None:
    count = 30_000
    log = start(limits="262144-1000")

    def produce() -> None:
        for first in range(0, count, 100):
            log.write(b"".join(b"%d\n" % number for number in range(first, first + 100)))
        log.end()

    thread = threading.Thread(target=produce)
    thread.start()
    source = random.Random(3)
    watcher, got, cursor = LogWatcher(), b"", None
    async with asyncio.timeout(DEADLINE_S):
        ended = False
        while not ended:
            left = source.randint(1, 5)
            options = ReadOptions(follow=True, cursor=cursor)
            async with contextlib.aclosing(read_log(log.directory, options, watcher)) as reading:
                async for batch in reading:
                    got += content([batch])
                    cursor = batch.cursor
                    left -= 1
                    if not left:
                        break
                else:
                    ended = True
    watcher.close()
    thread.join()
    assert got == b"".join(b"%d\n" % number for number in range(count))


async def test_a_container_never_waits_for_a_reader(start: Callable[..., Running]) -> None:
    log = start(limits="1048576-2")
    os.write(log.stdout, b"first\n")
    watcher = LogWatcher()
    async with asyncio.timeout(DEADLINE_S):
        reading = read_log(log.directory, ReadOptions(follow=True), watcher)
        async with contextlib.aclosing(reading):
            got = [await anext(reading)]
            await asyncio.to_thread(log.write, b"z" * 99 * 100_000)  # nobody reads meanwhile
            await asyncio.to_thread(log.end)
            got += [batch async for batch in reading]
    watcher.close()
    assert accounted(got) == 6 + 99 * 100_000
    assert sum(batch.gap_bytes for batch in got) > 5_000_000


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a small disk")
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", disk], check=True)
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


async def test_a_full_disk_loses_lines_and_says_how_many(
    start: Callable[..., Running], small_disk: Path
) -> None:
    log = start(small_disk / "log")
    block = b"".join(b"%07d %s\n" % (number, b"x" * 91) for number in range(1000))
    for _ in range(20):
        log.write(block)
    assert log.process.poll() is None
    subprocess.run(["mount", "-o", "remount,size=8m", small_disk], check=True)
    log.write(block)
    log.end()
    batches = await read(log.directory)
    assert accounted(batches) == 21 * len(block)
    assert any(batch.gap_bytes for batch in batches)
    assert content(batches).endswith(block[-1000:])
    assert all(len(line) == 99 for line in content(batches).splitlines())  # no line was cut


async def test_a_disk_that_stays_full_still_ends(start: Callable[..., Running], small_disk: Path) -> None:
    log = start(small_disk / "log")
    log.write(b"x" * 99 * 20_000)
    log.end()
    assert accounted(await read(log.directory)) <= 99 * 20_000


def test_the_program_is_small(start: Callable[..., Running]) -> None:
    log = start()
    log.write(b"line\n" * 100_000)
    rollup = Path(f"/proc/{log.process.pid}/smaps_rollup").read_text()
    dirty_kib = next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Private_Dirty"))
    assert dirty_kib < 5 * 1024


async def test_a_logger_that_is_killed_is_noticed_and_its_log_closed(start: Callable[..., Running]) -> None:
    log = start()
    log.write(b"whole\nhalf a line that is ")
    log.write(b"x" * 70_000)
    while len(content(await read(log.directory))) < 65_536:
        assert not files.has_lost_its_logger(log.directory)
    log.process.send_signal(signal.SIGKILL)
    log.process.wait(DEADLINE_S)
    assert files.has_lost_its_logger(log.directory)
    files.close_for_dead_logger(log.directory, 1)
    assert not files.has_lost_its_logger(log.directory)
    batches = await read(log.directory, follow=True)
    assert Path(files.segments(log.directory)[-1].path).read_bytes().endswith(lines.LOGGER_LOST)
    assert content(batches).startswith(b"whole\nhalf a line that is xxx")


async def test_the_last_lines_are_waited_for_while_their_logger_has_no_processor(
    start: Callable[..., Running], tmp_path: Path
) -> None:
    store = LogStore(tmp_path / "logs", tmp_path / "bin2")
    try:
        (directory := store.directory("r1", 1)).parent.mkdir(parents=True)
        log = start(directory)
        log.process.send_signal(signal.SIGSTOP)
        log.write(b"giving up\n")
        tail = asyncio.create_task(
            ContainerLogs(store, tmp_path / "logs", SystemClock()).tail("cl-r1-1", ended=True)
        )
        done, _ = await asyncio.wait({tail}, timeout=0.5)
        assert not done
        assert files.has_busy_logger(directory)
        log.process.send_signal(signal.SIGCONT)
        assert await tail == "giving up"
        assert not files.has_busy_logger(directory)
        log.end()
        assert not files.has_busy_logger(directory)
    finally:
        store.close()


async def test_a_logger_that_ends_is_not_missed(start: Callable[..., Running]) -> None:
    log = start()
    log.write(b"done\n")
    log.end()
    assert not files.has_lost_its_logger(log.directory)
    assert files.has_ended(log.directory)


# -- what no line feed follows ---------------------------------------------------------


async def records_until(directory: Path, fits: Callable[[list[LogRecord]], bool]) -> list[LogRecord]:
    """What is in the log as soon as it ``fits``, while the outputs stay open."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            found = [one for batch in await read(directory) for one in lines.parse(batch.data)]
            if fits(found):
                return found
            await asyncio.sleep(0.01)


async def test_words_without_a_line_feed_do_not_wait_for_it(start: Callable[..., Running]) -> None:
    log = start()
    log.write(b"whole\nlast words")
    written_ns = time.time_ns()
    (whole, last) = await records_until(log.directory, lambda found: len(found) == 2)
    assert (whole.data, whole.partial, last.data, last.partial) == (b"whole", False, b"last words", True)
    assert last.timestamp_ns - written_ns < 5_000_000_000
    log.write(b", and more\nnext\n")
    found = await records_until(log.directory, lambda found: len(found) == 4)
    assert [one.data for one in lines.Joiner().join(found)] == [b"whole", b"last words, and more", b"next"]
    log.end()
    assert content(await read(log.directory)) == b"whole\nlast words, and more\nnext\n"


async def test_a_prompt_does_not_wait_for_the_other_output(start: Callable[..., Running]) -> None:
    log = start()
    talking = True

    def talk() -> None:
        while talking:
            log.write(b"talk\n")
            time.sleep(0.001)  # never quiet for as long as the logger's patience

    thread = threading.Thread(target=talk)
    thread.start()
    try:
        os.write(log.stderr, b"name? ")
        await records_until(log.directory, lambda found: any(one.data == b"name? " for one in found))
    finally:
        talking = False
        thread.join()
    log.end()


async def test_dots_one_by_one_are_seen_and_are_one_line(start: Callable[..., Running]) -> None:
    log = start()
    for _ in range(30):
        log.write(b".")
        await asyncio.sleep(0.01)
    await records_until(log.directory, lambda found: bool(found))
    log.write(b"done\n")
    log.end()
    batches = await read(log.directory)
    assert accounted(batches) == 35
    records = [one for batch in batches for one in lines.parse(batch.data)]
    assert [one.data for one in lines.Joiner().join(records)] == [b"." * 30 + b"done"]


async def test_lines_that_come_fast_are_hardly_ever_cut(start: Callable[..., Running]) -> None:
    log = start(limits="104857600-5")
    for _ in range(200):
        log.write(b"x" * 99_999 + b"\n" + b"short\n" * 20_000)
    log.end()
    batches = await read(log.directory)
    pieces = [one for batch in batches for one in lines.parse(batch.data) if one.partial]
    assert len([one for one in pieces if len(one.data) != 16_384]) < 20, "but where the writer paused"
