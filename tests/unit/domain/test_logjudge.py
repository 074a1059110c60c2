from __future__ import annotations

import re
from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from cloudless.domain import loglines
from cloudless.domain.logfilter import LogFilter
from cloudless.domain.logjudge import LineJudge
from cloudless.domain.logrecord import LogCursor
from cloudless.domain.logstream import LogQuery

LIMIT_BYTES = 6
T0_NS = 1_767_225_600_000_000_000


class Raw(NamedTuple):
    """What the logger wrote at once."""

    stream: str
    whole: bool
    text: bytes
    later: int = 1


class Line(NamedTuple):
    """What the container wrote, as far as it is known."""

    stream: str
    text: bytes
    whole: bool


raws = st.lists(
    st.builds(
        Raw,
        st.sampled_from(("stdout", "stderr")),
        st.booleans(),
        st.text("ab", max_size=4).map(str.encode),
        st.integers(0, 2),
    ),
    max_size=25,
)
queries = st.builds(
    LogQuery,
    include=st.sampled_from(((), ("a",), ("ab", "^b"), ("a$",))),
    exclude=st.sampled_from((("bb",), ("^a", "b$"), ("aba",))),
    streams=st.sampled_from((frozenset({"stdout", "stderr"}), frozenset({"stderr"}))),
)


def texts(given: list[Raw]) -> list[bytes]:
    """The lines of the log."""
    found, now_ns = [], T0_NS
    for raw in given:
        now_ns += raw.later
        tag = b"F" if raw.whole else b"P"
        found.append(b"%b %b %b %b\n" % (loglines.time_text(now_ns), raw.stream.encode(), tag, raw.text))
    return found


def model(given: list[Raw], query: LogQuery) -> list[Line]:
    """Join whole lines, then filter; in the order in which enough of them was there."""
    decided: list[tuple[int, int, Line]] = []
    for stream in query.streams:
        begin, text, at = -1, b"", -1
        for number, raw in enumerate(given):
            if raw.stream != stream:
                continue
            begin = number if begin < 0 else begin
            text += raw.text
            if at < 0 and (raw.whole or len(text) >= LIMIT_BYTES):
                at = number
            if raw.whole:
                decided.append((at, begin, Line(stream, text, True)))
                begin, text, at = -1, b"", -1
        if begin >= 0:
            decided.append((len(given) if at < 0 else at, begin, Line(stream, text, False)))

    def passes(line: Line) -> bool:
        seen = line.text[:LIMIT_BYTES].decode()
        found = not query.include or any(re.search(one, seen) for one in query.include)
        return found and not any(re.search(one, seen) for one in query.exclude)

    return [line for *_, line in sorted(decided) if passes(line)]


def joined(lines: bytes) -> list[Line]:
    """The lines that came out, in the order of their begins; of one stream they never mix."""
    found: list[Line] = []
    going: dict[str, int] = {}
    for record in loglines.parse(lines):
        number = going.pop(record.stream, len(found))
        if number == len(found):
            found.append(Line(record.stream, b"", False))
        found[number] = Line(record.stream, found[number].text + record.data, not record.partial)
        if record.partial:
            going[record.stream] = number
    return found


def chunks(lines: list[bytes], cuts: set[int]) -> list[bytes]:
    found = [b""]
    for number, line in enumerate(lines):
        if number in cuts and found[-1]:
            found.append(b"")
        found[-1] += line
    return found


@given(raws, st.sets(st.integers(0, 25)), queries)
def test_pieces_are_judged_as_whole_lines(given: list[Raw], cuts: set[int], query: LogQuery) -> None:
    judge = LineJudge(LogFilter(query), LIMIT_BYTES)
    at, out, horizon = LogCursor(1, 0, 0), b"", b""
    for chunk in chunks(texts(given), cuts):
        lines = judge.feed(chunk, at)
        assert not lines or loglines.first_time(lines) >= horizon
        out, horizon = out + lines, judge.horizon
        at = LogCursor(1, at.offset + len(chunk), at.position + loglines.written_bytes(chunk))
    out += judge.flush()
    assert joined(out) == model(given, query)
    times = [line[:30] for line in out.split(b"\n")[:-1]]
    assert times == sorted(times)
    assert judge.flush() == b""


@given(raws, st.sets(st.integers(0, 25)), queries)
def test_it_does_not_matter_how_a_log_is_cut(given: list[Raw], cuts: set[int], query: LogQuery) -> None:
    lines = texts(given)
    once, often = (LineJudge(LogFilter(query), LIMIT_BYTES) for _ in range(2))
    at = LogCursor(1, 0, 0)
    assert once.feed(b"".join(lines), at) + once.flush() == (
        b"".join([often.feed(chunk, at) for chunk in chunks(lines, cuts)]) + often.flush()
    )


@given(raws, st.integers(0, 25), queries)
def test_what_was_held_and_decided_can_be_taken_up_again(given: list[Raw], cut: int, query: LogQuery) -> None:
    lines = texts(given)
    before, behind = b"".join(lines[:cut]), b"".join(lines[cut:])
    judge = LineJudge(LogFilter(query), LIMIT_BYTES)
    judge.feed(before, LogCursor(1, 0, 0))
    held, rest = judge.held, judge.rest
    at = LogCursor(1, len(before), loglines.written_bytes(before))
    again = LineJudge(LogFilter(query), LIMIT_BYTES)
    if held is not None:
        assert held.position == loglines.written_bytes(before[: held.offset])
        again.feed(before[held.offset :], held)
    again.restore(rest)
    assert (again.held, again.rest) == (held, rest)
    assert again.feed(behind, at) + again.flush() == judge.feed(behind, at) + judge.flush()


def test_a_line_of_any_length_passes_by_its_begin_and_is_not_kept() -> None:
    judge = LineJudge(LogFilter(LogQuery(include=("^ab",))), 1000)
    begin, more, end = texts(
        [Raw("stdout", False, b"ab"), Raw("stdout", False, b"x" * 400), Raw("stdout", True, b"z")]
    )
    at = LogCursor(1, 0, 0)
    assert judge.feed(begin + more * 2, at) == b""
    assert judge.held == at
    assert judge.feed(more, at) == begin[:-1] + b"x" * 1200 + b"\n"
    assert (judge.held, judge.rest) == (None, "p-")
    assert judge.feed(more * 5, at) == more * 5
    assert judge.feed(end, at) == end
    assert judge.rest == ""


def test_lines_that_are_no_lines_do_no_harm() -> None:
    judge = LineJudge(LogFilter(LogQuery(include=("o",))), 1000)
    (piece, end) = texts([Raw("stdout", False, b"o"), Raw("stdout", True, b"k")])
    found = judge.feed(
        piece + b"\nrubbish\n" + b"\xff" * 100 + b"\n" + b"o" * 50 + b"\n" + end, LogCursor(1, 0, 0)
    )
    assert found == b"o" * 50 + b"\n" + piece[:38] + b"F ok\n"
