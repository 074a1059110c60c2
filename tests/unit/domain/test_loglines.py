from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudless.domain import loglines as lines
from cloudless.domain.loglines import Joiner
from cloudless.domain.logrecord import LogCursor, LogRecord, SourceCursor

NS = 1_767_225_600_000_000_000

records = st.builds(
    LogRecord,
    st.integers(0, 4_000_000_000_000_000_000),
    st.sampled_from(("stdout", "stderr")),
    st.booleans(),
    st.binary(max_size=60).filter(lambda data: b"\n" not in data),
)


def text(record: LogRecord) -> bytes:
    tag = b"P" if record.partial else b"F"
    stream = record.stream.encode()
    return lines.time_text(record.timestamp_ns) + b" " + stream + b" " + tag + b" " + record.data + b"\n"


def chunk(*given: LogRecord) -> bytes:
    return b"".join(map(text, given))


@given(st.lists(records))
def test_parsing_gives_what_was_written(given_records: list[LogRecord]) -> None:
    assert lines.parse(chunk(*given_records)) == given_records


@given(st.lists(records))
def test_written_bytes_counts_what_the_container_wrote(given_records: list[LogRecord]) -> None:
    expected = sum(len(record.data) + (not record.partial) for record in given_records)
    assert lines.written_bytes(chunk(*given_records)) == expected


@given(st.lists(records), st.sampled_from(("stdout", "stderr")))
def test_only_keeps_one_stream(given_records: list[LogRecord], stream: str) -> None:
    expected = [record for record in given_records if record.stream == stream]
    assert lines.only(chunk(*given_records), {stream}) == chunk(*expected)


@given(st.lists(records), st.integers(0, 4_000_000_000_000_000_000))
def test_find_time_splits_at_the_first_line_not_before(given_records: list[LogRecord], when: int) -> None:
    ordered = sorted(given_records, key=lambda record: record.timestamp_ns)
    before = chunk(*(record for record in ordered if record.timestamp_ns < when))
    assert lines.find_time(chunk(*ordered), lines.time_text(when)) == len(before)


def test_a_line_that_looks_like_a_loss_is_none() -> None:
    faked = chunk(LogRecord(NS, "stdout", False, b"2026-01-01T00:00:00.000000000Z system G 99"))
    assert lines.first_notice(faked) is None
    assert lines.written_bytes(faked) == 43


def test_a_loss_is_found_and_counted() -> None:
    before = chunk(LogRecord(NS, "stdout", False, b"x"))
    loss = lines.time_text(NS) + b" system G 1234\n"
    assert lines.first_notice(before + loss) == (len(before), len(before + loss), 1234, False)
    assert lines.written_bytes(before + loss) == 1236
    assert lines.parse(loss) == []


def test_the_end_of_a_log_whose_logger_died() -> None:
    end = lines.time_text(NS) + lines.LOGGER_LOST
    assert lines.first_notice(end) == (0, len(end), 0, True)
    assert lines.written_bytes(end) == 0
    faked = chunk(LogRecord(NS, "stdout", False, b"2026-01-01T00:00:00.000000000Z system L "))
    assert lines.first_notice(faked) is None
    assert lines.written_bytes(faked) == 41


def test_lines_that_are_none_are_skipped() -> None:
    good = LogRecord(NS, "stdout", False, b"good")
    assert lines.parse(b"rubbish\n" + b"x" * 60 + b"\n\n" + text(good) + b"2026-99-99T00:00:00") == [good]


def test_last_time() -> None:
    both = chunk(LogRecord(NS, "stdout", False, b"1"), LogRecord(NS + 5, "stdout", False, b"2"))
    assert lines.last_time(both) == lines.time_text(NS + 5)
    assert lines.last_time(both[:42]) == lines.time_text(NS)


def test_pieces_are_joined_by_stream() -> None:
    given_records = [
        LogRecord(1, "stdout", True, b"a"),
        LogRecord(2, "stderr", False, b"E"),
        LogRecord(3, "stdout", False, b"b"),
        LogRecord(4, "stdout", True, b"rest"),
    ]
    joiner = Joiner()
    assert list(joiner.join(given_records)) == [given_records[1], LogRecord(1, "stdout", False, b"ab")]
    assert list(joiner.flush()) == [LogRecord(4, "stdout", True, b"rest")]
    assert list(joiner.flush()) == []


def test_joining_is_bounded() -> None:
    joiner = Joiner(limit_bytes=10)
    pieces = [LogRecord(1, "stdout", True, b"12345")] * 5 + [LogRecord(1, "stdout", False, b"6")]
    joined = list(joiner.join(pieces))
    assert [len(record.data) for record in joined] == [10, 10, 6]
    assert [record.partial for record in joined] == [True, True, False]


@given(st.builds(LogCursor, *[st.integers(0, 10**18)] * 3))
def test_a_cursor_survives_its_text(cursor: LogCursor) -> None:
    assert LogCursor.parse(str(cursor)) == cursor


@given(
    st.builds(
        SourceCursor,
        st.integers(0, 10**9),
        st.builds(LogCursor, *[st.integers(0, 10**18)] * 3),
        st.sampled_from((b"", b"2026-01-01T00:00:00.000000001Z")),
        exited=st.booleans(),
        held=st.none() | st.builds(LogCursor, *[st.integers(0, 10**18)] * 3),
        rest=st.sampled_from(("", "p-", "-d", "dp")),
    )
)
def test_a_source_cursor_survives_its_text(cursor: SourceCursor) -> None:
    cursor = cursor._replace(passed=7 if cursor.before else 0)
    assert SourceCursor.parse(str(cursor)) == cursor


@pytest.mark.parametrize(
    "text",
    ["", "1", "1.2-3", "1.2-3-x", "a.1-2-3", "1.1-2-3@x+1", "1.1-2-3@" + "x" * 30, "1.1-2--3", "²"],
)
def test_other_texts_are_no_cursors(text: str) -> None:
    with pytest.raises(ValueError, match="not a log cursor"):
        SourceCursor.parse(text)
