from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from cloudless.domain.loglines import time_text
from cloudless.planning.logorder import Span, window

#: Lines of one log: how much later than the one before, and how long.
logs = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 60)), min_size=1, max_size=20)


def lines_of(steps: list[tuple[int, int]], name: int) -> list[bytes]:
    found, at = [], 1_700_000_000_000_000_000
    for number, (later, size) in enumerate(steps):
        at += later
        found.append(time_text(at) + b" stdout F %d.%d " % (name, number) + b"x" * size + b"\n")
    return found


def merged(groups: list[list[list[bytes]]], limit_bytes: int) -> list[list[bytes]]:
    """All windows, each a list of lines; ``groups`` hold batches of spans of lines."""
    waiting = [[Span(b"".join(span)) for span in group if span] for group in groups]
    waiting = [group for group in waiting if group]
    windows = []
    while waiting:
        cuts = window(waiting, limit_bytes)
        taken: list[bytes] = []
        total = 0
        for group, ends in zip(waiting, cuts, strict=True):
            for span, end in zip(group, ends, strict=True):
                part = span.data[span.begin : end]
                assert not part or part.endswith(b"\n")
                total += len(part)
                taken += part.splitlines(keepends=True)
                span.begin = end
        assert taken
        assert total <= max(2 * limit_bytes, limit_bytes + len(max(taken, key=len)))
        windows.append(taken)
        waiting = [[span for span in group if span.size] for group in waiting]
        waiting = [group for group in waiting if group]
    return windows


@settings(max_examples=200)
@given(st.lists(st.lists(logs, min_size=1, max_size=3), min_size=1, max_size=4), st.integers(1, 3000))
def test_windows_are_in_order_and_nothing_is_lost(
    given_groups: list[list[list[tuple[int, int]]]], limit_bytes: int
) -> None:
    groups = [
        [lines_of(steps, 10 * number + position) for position, steps in enumerate(group)]
        for number, group in enumerate(given_groups)
    ]
    windows = merged(groups, limit_bytes)
    for before, after in itertools.pairwise(windows):
        assert max(line[:30] for line in before) <= min(line[:30] for line in after)
    everything = [line for one in windows for line in one]
    for group in groups:
        for lines in group:
            name = lines[0][40:].partition(b".")[0]
            assert [line for line in everything if line[40:].partition(b".")[0] == name] == lines
    assert len(everything) == sum(len(lines) for group in groups for lines in group)


def test_one_log_passes_by_its_share() -> None:
    lines = lines_of([(1, 50)] * 100, 0)
    (first, *_) = merged([[lines]], 1000)
    assert 900 < sum(map(len, first)) < 1200


def test_logs_of_the_same_instant_pass_in_parts() -> None:
    busy = lines_of([(0, 50)] * 200, 0)
    assert len(merged([[busy], [lines_of([(0, 1)], 1)]], 1000)) > 5
