"""Lines on a terminal whose end has not come: what is shown of them, when and where. In virtual time."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.agent.virtual import START, virtual, virtual_clock

from cloudless import api
from cloudless.aio.clock import ManualClock
from cloudless.aio.pauses import PAUSE, with_pauses
from cloudless.cli.logs.painting import harmless, settled_bytes
from cloudless.cli.logs.text import Look, TextRenderer
from cloudless.cli.terminal import Terminal
from cloudless.domain.loglines import time_text
from cloudless.sdk.logbatch import LogBatch, LogChunk
from cloudless.sdk.logentry import LogOrigin, LogSource, marker_of

T0 = 1_767_225_600_000_000_000
SOURCES = [LogSource(f"id{ordinal}", "default", "web", ordinal) for ordinal in range(3)]


class Tty(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


class Screen:
    """A renderer, and what it has shown so far."""

    def __init__(self, clock, *, count: int = 2, **look) -> None:
        self.clock = clock
        terminal = Terminal(Tty(), {"NO_COLOR": "1", "TERM": "xterm"})
        given = {"neutral": True, "partial_after_s": 0.2}
        self.renderer = TextRenderer(terminal, Look(**given | look), clock.monotonic)
        self.sources = SOURCES[:count]
        self.text = ""

    def batch(self, *chunks: LogChunk) -> None:
        self.text += self.renderer.render(LogBatch(chunks), self.sources).decode()

    def write(self, ordinal: int, data: bytes, **fields) -> None:
        self.batch(self.chunk(ordinal, data, **fields))

    def chunk(self, ordinal: int, data: bytes, *, stream: str = "stdout") -> LogChunk:
        """What a container wrote, as it travels; it is a piece unless it ends with a line feed."""
        lines = b""
        for line in data.splitlines(keepends=True):
            tag = b"F" if line.endswith(b"\n") else b"P"
            time = time_text(T0 + round(self.clock.monotonic() * 1e9))
            lines += b"%b %b %b %b\n" % (time, stream.encode(), tag, line.rstrip(b"\n"))
        return LogChunk(LogOrigin(SOURCES[ordinal], f"c{ordinal}"), lines)

    def marker(self, kind: str, ordinal: int = 0, **fields) -> LogChunk:
        source = LogSource("") if kind.startswith("NODE") else SOURCES[ordinal]
        run = "" if kind in ("LIMIT_REACHED", "NODE_UNREACHABLE") else f"c{ordinal}"
        message = api.LogMarker(kind=api.LogMarkerKind[kind], at=self.clock.now(), **fields)
        return LogChunk(LogOrigin(source, run), marker=marker_of(message, source, run))

    def wait(self, seconds: float) -> None:
        """Let time pass, as ``logs`` does when nothing comes."""
        end_s = self.clock.monotonic() + seconds
        while (wait_s := self.renderer.wait_s()) is not None and self.clock.monotonic() + wait_s <= end_s:
            self.clock.advance(wait_s)
            self.text += self.renderer.overdue().decode()
        self.clock.advance(max(end_s - self.clock.monotonic(), 0))

    def take(self) -> str:
        """What was shown since this was called last."""
        text, self.text = self.text, ""
        return text

    def end(self) -> str:
        self.text += self.renderer.end().decode()
        return self.take()


@pytest.fixture
def clock():
    return ManualClock(START)


@pytest.fixture
def screen(clock):
    return Screen(clock)


@pytest.fixture
def alone(clock):
    """One replica: no prefix."""
    return Screen(clock, count=1)


def test_a_prompt_is_shown_and_its_rest_follows_in_the_same_line(alone):
    alone.write(0, b"hello\nContinue? ")
    assert alone.take() == "hello\n"
    alone.wait(0.19)
    assert alone.take() == ""
    alone.wait(0.02)
    assert alone.take() == "Continue? "
    alone.write(0, b"yes")
    assert alone.take() == "yes", "where the line is open, nothing has to be waited for"
    alone.write(0, b" of course\nnext\n")
    assert alone.take() == " of course\nnext\n"
    assert alone.renderer.wait_s() is None
    assert alone.end() == ""


def test_what_is_whole_in_time_is_shown_whole(screen):
    screen.write(0, b"half ")
    screen.wait(0.1)
    screen.write(1, b"other\n")
    screen.write(0, b"and ")
    screen.wait(0.05)
    screen.write(0, b"half\n")
    assert screen.take() == "web/1 | other\nweb/0 | half and half\n"
    screen.wait(10)
    assert screen.end() == ""


def test_a_line_waits_from_its_own_first_piece(screen):
    screen.write(0, b"one")
    screen.wait(0.15)
    screen.write(0, b" end\nagain")
    assert screen.take() == "web/0 | one end\n"
    screen.wait(0.15)
    assert screen.take() == "", "it is another line"
    screen.wait(0.1)
    assert screen.take() == "web/0 | again"
    screen.write(1, b"slow")
    screen.wait(0.1)
    screen.write(1, b"er")
    screen.wait(0.11)
    assert screen.take() == "…\nweb/1 | slower", "more of it does not put it off"


def test_a_line_of_another_replica_breaks_it_off(screen):
    screen.write(0, b"Continue? ")
    screen.wait(0.2)
    screen.write(1, b"listening\n")
    screen.write(0, b"yes\n")
    screen.write(0, b"next\n")
    assert screen.take() == "web/0 | Continue? …\nweb/1 | listening\nweb/0 | …yes\nweb/0 | next\n"


def test_all_in_one_batch(screen):
    screen.write(0, b"Continue? ")
    screen.wait(0.2)
    other = screen.chunk(1, b"listening\n")
    screen.clock.advance(0.01)
    screen.batch(screen.chunk(0, b"yes\nnext\nmore"), other)
    assert screen.take() == "web/0 | Continue? …\nweb/1 | listening\nweb/0 | …yes\nweb/0 | next\n"
    screen.wait(0.2)
    assert screen.take() == "web/0 | more"
    first = screen.chunk(0, b" of it\n")
    screen.clock.advance(0.01)
    screen.batch(screen.chunk(1, b"x\n"), first)
    assert screen.take() == " of it\nweb/1 | x\n"


def test_when_only_the_line_feed_is_missing_it_is_not_shown_twice(screen):
    screen.write(0, b"ready")
    screen.wait(0.2)
    screen.write(0, b"\n")
    assert screen.take() == "web/0 | ready\n"
    screen.write(0, b"ready")
    screen.wait(0.2)
    screen.write(1, b"x\n")
    screen.write(0, b"\n")
    screen.write(0, b"y\n")
    assert screen.take() == "web/0 | ready…\nweb/1 | x\nweb/0 | y\n"


def test_both_streams_of_one_container_are_kept_apart(alone):
    alone.write(0, b"out: ")
    alone.wait(0.2)
    alone.write(0, b"warning\n", stream="stderr")
    alone.write(0, b"done\n")
    assert alone.take() == "out: …\nwarning\n…done\n"


def test_two_prompts_and_two_progress_bars(screen):
    for ordinal in (0, 1):
        screen.write(ordinal, b"Continue? ")
    screen.wait(0.2)
    assert screen.take() == "web/0 | Continue? …\nweb/1 | Continue? "
    for _ in range(20):
        for ordinal in (0, 1):
            screen.write(ordinal, b".")
        screen.wait(0.1)
    lines = screen.take().splitlines()
    assert len(lines) <= 5, "a line that was broken off waits longer"
    assert "".join(lines).count(".") in range(29, 41)
    screen.write(0, b"\n")
    screen.write(1, b"\n")
    screen.text = ""
    assert screen.end() == ""


def test_dots_are_shown_as_they_come(alone):
    for _ in range(5):
        alone.write(0, b".")
        alone.wait(0.15)
    assert alone.take() == "....."


def test_a_marker_breaks_it_off_or_ends_it(screen):
    screen.write(0, b"Continue? ")
    screen.wait(0.2)
    screen.batch(screen.marker("NODE_UNREACHABLE", node="n2"))
    assert screen.take() == "web/0 | Continue? …\n── node n2 cannot be reached\n"
    screen.batch(screen.marker("ROTATED"))
    screen.write(0, b"yes")
    screen.wait(1)
    assert screen.take().endswith("web/0 | …yes")
    exit = api.ExitStatus(code=3)
    screen.batch(screen.marker("EXITED", exit=exit), screen.marker("EXITED", 1, exit=exit))
    assert screen.take() == "\n── web/0 exited with code 3\n── web/1 exited with code 3\n"
    screen.write(0, b"fresh\n")
    assert screen.take() == "web/0 | fresh\n"


def test_last_words_and_a_limit(screen):
    screen.write(0, b"dying")
    screen.wait(0.2)
    screen.batch(screen.chunk(0, b" words"), screen.marker("EXITED", exit=api.ExitStatus(code=1)))
    assert screen.take() == "web/0 | dying words\n── web/0 exited with code 1\n"
    screen.write(1, b"01")
    screen.wait(0.2)
    screen.batch(screen.chunk(1, b"2"), screen.marker("LIMIT_REACHED"))
    assert screen.take() == "web/1 | 012\n── stopped: the limit of bytes is reached\n"
    assert screen.end() == ""


def test_the_end_of_the_stream_ends_lines(screen):
    screen.write(0, b"a")
    screen.wait(0.2)
    screen.write(1, b"b")
    screen.wait(0.2)
    screen.write(0, b"c")
    assert screen.take() == "web/0 | a…\nweb/1 | b"
    assert screen.end() in ("…\nweb/0 | …c\n", "\nweb/0 | …c\n")
    assert not screen.renderer.is_within_line


def test_somebody_else_writes_to_the_terminal(screen):
    assert screen.renderer.break_off() == b""
    screen.write(0, b"Continue? ")
    screen.wait(0.2)
    assert screen.renderer.is_within_line
    assert screen.renderer.break_off().decode() == "…\n"
    assert not screen.renderer.is_within_line
    screen.text = ""
    screen.write(0, b"yes\n")
    assert screen.take() == "web/0 | …yes\n"


def test_what_stands_before_lines_stands_before_their_parts(clock):
    screen = Screen(clock, timestamps=True)
    screen.write(0, b"Continue? ")
    screen.wait(0.2)
    screen.write(1, b"x\n")
    clock.advance(1)
    screen.write(0, b"yes\n")
    assert screen.take().splitlines() == [
        "web/0 | 2026-01-01T00:00:00.000000000Z Continue? …",
        "web/1 | 2026-01-01T00:00:00.200000000Z x",
        "web/0 | 2026-01-01T00:00:01.200000000Z …yes",
    ]


def test_a_prefix_that_is_needed_from_now_on(alone):
    alone.write(0, b"Continue? ")
    alone.wait(0.2)
    alone.sources = SOURCES[:2]
    alone.write(1, b"x\n")
    alone.write(0, b"yes\n")
    assert alone.take() == "Continue? …\nweb/1 | x\nweb/0 | …yes\n"


def test_control_sequences_and_letters_may_be_cut_anywhere(alone):
    alone.write(0, b"\x1b[3")
    alone.wait(0.2)
    assert alone.take() == "", "nothing is shown of it"
    alone.write(0, b"1mred caf\xc3")
    alone.wait(0.2)
    assert alone.take() == "red caf"
    alone.write(0, b"\xa9\x1b")
    assert alone.take() == "é"
    alone.write(0, b"[2J\r")
    assert alone.take() == "\\x1b[2J"
    alone.write(0, b"10 %\r")
    assert alone.take() == "\\r10 %", "as in whole lines"
    alone.write(0, b"\n")
    assert alone.take() == "\n", "that was the end of a line"
    alone.write(0, b"x\xe2\x82")
    alone.wait(0.2)
    assert alone.take() == "x"
    alone.batch(alone.marker("EXITED", exit=api.ExitStatus(code=0)))
    assert alone.take() == "\N{REPLACEMENT CHARACTER}\n── web/0 exited with code 0\n"


def test_not_everything_is_held_back(alone):
    alone.write(0, b"x\x1b[" + b"1" * 1000)
    alone.wait(0.2)
    assert alone.take() == "x\\x1b[" + "1" * 1000


def test_a_line_that_looks_empty_is_shown_when_it_ends(screen):
    screen.write(0, b"\x1b[0m")
    screen.wait(5)
    screen.write(1, b"x\n")
    assert screen.take() == "web/1 | x\n"
    screen.write(0, b"\x1b[1m")
    screen.write(0, b"\n")
    assert screen.take() == "web/0 | \n"
    screen.write(0, b"\x1b[0m")
    screen.wait(5)
    assert screen.take() == ""
    assert screen.end() == "web/0 | \n"


def test_without_the_option_lines_are_whole(clock):
    screen = Screen(clock, partial_after_s=None)
    screen.write(0, b"Continue? ")
    assert screen.renderer.wait_s() is None
    screen.wait(100)
    screen.write(0, b"yes\n")
    assert screen.take() == "web/0 | Continue? yes\n"


#: What is dangerous, or is more than one byte long, in pieces.
TOKENS = [b"a", b" ", b"\r", b"\x1b", b"\x1b[", b"[", b"3", b"1;", b"m", b"\x1b[0m", b"\x07", b"\x1b[2J"]
TOKENS += [bytes([byte]) for byte in "é€😀\u202e".encode()] + ["é€😀\u202e".encode(), b"\xff", b"\xe0\x80"]
pieces = st.lists(st.sampled_from(TOKENS), min_size=1, max_size=6).map(b"".join)


@given(st.lists(pieces, min_size=1, max_size=8))
def test_parts_look_like_the_whole(parts):
    shown, held = b"", b""
    for part in parts:
        held += part
        end = settled_bytes(held)
        shown += harmless(held[:end], "utf-8", is_end=False)
        held = held[end:]
    assert shown + harmless(held, "utf-8") == harmless(b"".join(parts), "utf-8")


steps = st.lists(
    st.tuples(st.integers(0, 2), pieces, st.booleans(), st.sampled_from([0, 0.1, 0.3, 2])), max_size=25
)


@settings(max_examples=300)
@given(steps, st.booleans())
def test_every_line_is_on_the_screen_once_and_in_order(steps, together):
    screen = Screen(ManualClock(START), count=3)
    lines: dict[int, list[bytes]] = {0: [b""], 1: [b""], 2: [b""]}
    waiting = []
    for ordinal, data, is_end, wait_s in steps:
        lines[ordinal][-1] += data
        if is_end:
            lines[ordinal].append(b"")
        waiting.append(screen.chunk(ordinal, data + b"\n" * is_end))
        screen.clock.advance(0.001)
        if together and not wait_s:
            continue
        screen.batch(*waiting)
        waiting = []
        screen.wait(wait_s)
    screen.batch(*waiting)
    text = screen.end()
    assert text == "" or text.endswith("\n")
    expected = {
        ordinal: [harmless(line, "utf-8").decode() for line in found if line or line is not found[-1]]
        for ordinal, found in lines.items()
    }
    assert read_back(text.split("\n")[:-1]) == expected


def read_back(shown: Iterable[str]) -> dict[int, list[str]]:
    """The lines of each replica, as a reader understands the marks."""
    lines: dict[int, list[str]] = {0: [], 1: [], 2: []}
    open_lines: set[int] = set()
    for line in shown:
        ordinal, body = int(line[4]), line[8:]
        if body.startswith("…"):
            assert ordinal in open_lines
            lines[ordinal][-1] += body.strip("…")
        else:
            lines[ordinal].append(body.removesuffix("…"))
        open_lines.discard(ordinal)
        if body.endswith("…"):
            open_lines.add(ordinal)
    return lines


@virtual
async def test_the_loop_of_logs_in_virtual_time():
    """As ``verbs.logs`` does it: what is shown, and when."""
    screen = Screen(virtual_clock())

    async def batches() -> AsyncGenerator[LogBatch, None]:
        for delay_s, ordinal, data in (
            (1, 0, b"Continue? "),
            (1, 0, b"yes\n"),
            (1, 0, b"a"),
            (0.1, 1, b"b"),
            (5, 0, b"c\n"),
            (0.1, 1, b"d\n"),
        ):
            await asyncio.sleep(delay_s)
            yield LogBatch([screen.chunk(ordinal, data)])

    seen = []
    async with aclosing(with_pauses(batches(), screen.renderer.wait_s)) as timed:
        async for batch in timed:
            if batch is PAUSE:
                text = screen.renderer.overdue().decode()
            else:
                text = screen.renderer.render(batch, screen.sources).decode()
            if text:
                seen.append((round(asyncio.get_running_loop().time(), 2), text))
    assert seen == [
        (1.2, "web/0 | Continue? "),
        (2.0, "yes\n"),
        (3.2, "web/0 | a"),
        (3.3, "…\nweb/1 | b"),
        (8.1, "…\nweb/0 | …c\n"),
        (8.2, "web/1 | …d\n"),
    ]
