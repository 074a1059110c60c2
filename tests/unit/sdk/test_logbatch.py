"""Order within a batch, and pieces of lines, for any input."""

from __future__ import annotations

from itertools import groupby

from hypothesis import given, settings
from hypothesis import strategies as st

from cloudless import api
from cloudless.domain.loglines import time_text
from cloudless.sdk.logbatch import LogBatch, LogChunk, Part, PieceJoiner, in_order
from cloudless.sdk.logentry import LogOrigin, LogSource, marker_of

T0 = 1_767_225_600_000_000_000
Line = tuple[str, bool, bytes]


def origin(name: str = "a") -> LogOrigin:
    return LogOrigin(LogSource(name, "default", "web"), f"run of {name}")


def raw(at: int, stream: str = "stdout", tag: str = "F", data: bytes = b"x") -> bytes:
    return b"%b %b %b %b" % (time_text(T0 + at), stream.encode(), tag.encode(), data)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.lists(st.integers(0, 9), max_size=6)), max_size=6))
def test_each_source_keeps_its_order_and_sorted_sources_are_merged(chunks):
    parts, expected = [], {name: [] for name in "abc"}
    for name, times in chunks:
        items = [(name, len(expected[name]) + number, at) for number, at in enumerate(times)]
        expected[name] += items
        parts.append(Part(name, [raw(at) for at in times], items))
    merged = in_order(parts)
    for name, items in expected.items():
        assert [item for item in merged if item[0] == name] == items
    if all(items == sorted(items, key=lambda item: item[2]) for items in expected.values()):
        assert [item[2] for item in merged] == sorted(item[2] for item in merged)


lines = st.lists(
    st.tuples(
        st.sampled_from(("stdout", "stderr")),
        st.booleans(),
        st.binary(max_size=6).map(lambda b: b.replace(b"\n", b" P ")),
    ),
    max_size=20,
)


@settings(max_examples=200)
@given(lines, st.integers(1, 4), st.sampled_from((4, 1 << 20)))
def test_joined_lines_hold_every_byte_in_its_order(written: list[Line], size: int, limit: int):
    joiner, found = PieceJoiner(limit), []
    raws = [raw(at, stream, "P" if piece else "F", data) for at, (stream, piece, data) in enumerate(written)]
    for begin in range(0, len(raws), size):
        chunk = LogChunk(origin(), b"".join(one + b"\n" for one in raws[begin : begin + size]))
        assert chunk.raws == raws[begin : begin + size]
        found += joiner.join(chunk)
    found += [line.raw for line in joiner.flush()]
    assert not joiner.waits("a")
    for stream in ("stdout", "stderr"):
        mine = [(piece, data) for which, piece, data in written if which == stream]
        got = [(one[38:39] == b"P", one[40:]) for one in found if one[31:37] == stream.encode()]
        everything = b"".join(data + (b"" if piece else b"\n") for piece, data in mine)
        assert b"".join(data + (b"" if piece else b"\n") for piece, data in got) == everything
        if limit > 4:  # then nothing but the last line may be without its end
            assert [piece for piece, _ in got[:-1]].count(True) == 0


@given(lines)
def test_data_is_what_the_container_wrote(written: list[Line]):
    raws = [raw(at, stream, "P" if piece else "F", data) for at, (stream, piece, data) in enumerate(written)]
    batch = LogBatch([LogChunk(origin(), b"".join(one + b"\n" for one in raws))])
    assert batch.data == b"".join(data + (b"" if piece else b"\n") for _, piece, data in written)
    assert batch.line_count == len(written)
    assert [line.data for line in batch.entries()] == [data for _, _, data in written]


def test_joined_lines_have_the_time_of_their_first_piece():
    joiner = PieceJoiner()
    chunk = LogChunk(origin(), raw(1, tag="P", data=b"a") + b"\n" + raw(5, data=b"b") + b"\n")
    assert joiner.join(chunk) == [raw(1, data=b"ab")]


def test_a_marker_cuts_only_what_it_is_about():
    joiner = PieceJoiner()
    for name in "ab":
        joiner.join(LogChunk(origin(name), raw(1, tag="P", data=name.encode()) + b"\n"))

    def marker(kind: api.LogMarkerKind, run: str):
        return marker_of(api.LogMarker(kind=kind), LogSource(""), run)

    kinds = api.LogMarkerKind
    assert joiner.cut(marker(kinds.NODE_UNREACHABLE, "")) == []
    assert joiner.cut(marker(kinds.ROTATED, "run of b")) == [], "a line goes on in the next file"
    assert [line.data for line in joiner.cut(marker(kinds.EXITED, "run of b"))] == [b"b"]
    assert [line.data for line in joiner.cut(marker(kinds.LIMIT_REACHED, ""))] == [b"a"]


def test_markers_lie_among_the_lines_and_the_limit_last():
    def marker(kind: api.LogMarkerKind, at: int) -> LogChunk:
        from cloudless.wire.loglines import time_from_ns

        message = api.LogMarker(kind=kind, at=time_from_ns(T0 + at))
        return LogChunk(origin(), marker=marker_of(message, origin().source, "run of a"))

    def chunk(name: str, *times: int) -> LogChunk:
        return LogChunk(origin(name), b"".join(raw(at) + b"\n" for at in times))

    kinds = api.LogMarkerKind
    chunks = [chunk("a", 1000), marker(kinds.EXITED, 3000), chunk("a", 5000), chunk("b", 2000, 4000, 9000)]
    chunks.append(LogChunk(LogOrigin(LogSource(""), ""), marker=marker(kinds.LIMIT_REACHED, 0).marker))
    entries = LogBatch(chunks).entries()
    shown = [getattr(entry, "kind", None) or entry.source.replica_id for entry in entries]
    assert shown == ["a", "b", "EXITED", "b", "a", "b", "LIMIT_REACHED"]
    assert [key for key, _ in groupby(shown)] == shown
