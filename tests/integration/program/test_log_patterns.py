"""``--include`` and ``--exclude`` look at whole lines, also at those that a program pauses in."""

from __future__ import annotations

import asyncio

from tests.integration.program.served import Served, until
from tests.integration.program.test_lifecycle import manifest
from tests.integration.program.test_log_streams import K, Reader

LIMIT_S = 30.0
NEVER = {"policy": "NEVER"}
SLOWLY = "printf 'hello '; sleep 0.3; echo world"


def start(served: Served, script: str) -> None:
    text = manifest(name="web", command=["sh", "-c", script], restart_policy=NEVER)
    served.cli("apply", "-f", "-", "-q", "--no-wait", stdin=text)


def test_a_line_that_was_written_with_a_pause_passes_whole_or_not_at_all(tidy: Served) -> None:
    start(tidy, f"{SLOWLY}; echo last; exec sleep 1000")
    until(lambda: "last" in tidy.cli("logs", "web", code=None).out, "all is written")
    assert tidy.cli("logs", "web", "--include", "hello world").out == "hello world\n"
    assert tidy.cli("logs", "web", "--exclude", "world").out == "last\n"
    assert tidy.cli("logs", "web", "--include", "^world").out == ""
    assert tidy.cli("logs", "web", "--tail", "1", "--include", "hello").out == "hello world\n"
    assert tidy.cli("logs", "web", "--tail", "1", "--exclude", "last").out == "hello world\n"
    assert tidy.cli("logs", "web", "--include", "world", "-o", "raw").out == "hello world\n"


async def test_a_followed_line_comes_when_it_is_whole(tidy: Served) -> None:
    script = f"echo hello old; printf 'hello '; until [ -e /go ]; do usleep 20000; done; echo world; {SLOWLY}"
    await asyncio.to_thread(start, tidy, f"{script}; exec sleep 1000")
    wait = "it has begun to write"
    await asyncio.to_thread(until, lambda: "old\nhello " in tidy.cli("logs", "web", code=None).out, wait)
    options = {"name": "web", "follow": True, "tail_lines": 1, "current_only": True}
    included = Reader(tidy.address, include=["hello"], **options)
    excluded = Reader(tidy.address, exclude=["world"], **options)
    reading = [asyncio.ensure_future(one.run()) for one in (included, excluded)]
    try:
        async with asyncio.timeout(LIMIT_S):
            while not (included.records and excluded.records):
                await asyncio.sleep(0.02)
        await asyncio.to_thread(tidy.cli, "exec", "web", "--", "touch", "/go")
        async with asyncio.timeout(LIMIT_S):
            while len(included.records) < 3:
                await asyncio.sleep(0.02)
    finally:
        for one in reading:
            one.cancel()
        await asyncio.wait(reading)
    assert included.records == [b"hello old", b"hello world", b"hello world"]
    assert excluded.records == [b"hello old"]


async def test_a_prompt_comes_at_the_end_of_its_program(tidy: Served) -> None:
    script = "echo line; printf 'name? '; until [ -e /go ]; do usleep 20000; done"
    await asyncio.to_thread(start, tidy, script)
    wait = "it asks"
    await asyncio.to_thread(until, lambda: "name? " in tidy.cli("logs", "web", code=None).out, wait)
    reader = Reader(tidy.address, name="web", follow=True, include=["name"])
    reading = asyncio.ensure_future(reader.run(until_kind=K.EXITED))
    async with asyncio.timeout(LIMIT_S):
        while "STARTED" not in reader.kinds:
            await asyncio.sleep(0.02)
    assert reader.records == []
    await asyncio.to_thread(tidy.cli, "exec", "web", "--", "touch", "/go", code=None)
    await reading
    assert reader.records == [b"name? "]
    assert tidy.cli("logs", "web", "--tail", "1", "--include", "name", "-o", "raw").out == "name? "


async def test_a_stream_that_broke_in_the_middle_of_lines_goes_on_with_whole_ones(tidy: Served) -> None:
    step = 'printf "go $i "; usleep 60000; echo on $i >&2; echo end $i'
    last = 80
    script = f"i=0; while [ $i -lt {last} ]; do i=$((i+1)); {step}; done"
    await asyncio.to_thread(start, tidy, f"{script}; exec sleep 1000")
    reader = Reader(tidy.address, name="web", follow=True, include=["^go.*end", "^on"])
    patience_s = 0.15
    async with asyncio.timeout(LIMIT_S):
        while len(reader.records) < 2 * last:
            there = len(reader.records)
            try:
                async with asyncio.timeout(patience_s):
                    await reader.run()
            except TimeoutError:
                reader.breaks += 1
            # On a busy machine the connection alone may take so long: then nothing would ever come.
            patience_s = 0.15 if len(reader.records) > there else patience_s * 1.5
    assert reader.breaks > 5
    out = [line for line in reader.records if line.startswith(b"go")]
    assert out == [b"go %d end %d" % (number, number) for number in range(1, last + 1)]
    err = [line for line in reader.records if line.startswith(b"on")]
    assert err == [b"on %d" % number for number in range(1, last + 1)]
