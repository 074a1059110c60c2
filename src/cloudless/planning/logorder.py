"""Lines of many logs in order of time, a window at a time, without looking at every line.

The agent merges the logs of one node with it, the coordinator what the nodes send. A
window is cut out of all logs at one time: its lines may then be sorted by whoever wants
them in order, and no line of a later window is older. Pure; nothing is copied here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cloudless.domain.loglines import find_time, last_time
from cloudless.domain.logrecord import SourceCursor

#: Follows every time of that text, and no other.
_AFTER = b"\x00"


@dataclass(slots=True)
class Span:
    """Lines of one log that wait: ``data[begin:]``, whole lines in order of time."""

    data: bytes
    begin: int = 0

    @property
    def size(self) -> int:
        """Bytes that wait."""
        return len(self.data) - self.begin

    def first_time(self) -> bytes:
        """The time of the first line that waits."""
        return self.data[self.begin : self.begin + 30]


def window(groups: Sequence[Sequence[Span]], limit_bytes: int) -> list[list[int]]:
    """How far each span may be passed on now: offsets, in the shape of ``groups``.

    A group is what came from one place and is followed there by lines that are not older
    than any of it; every group holds something. At least one line is passed on, and not
    much more than ``limit_bytes`` (a line of each log more, at worst twice the limit).

    >>> a = Span(b"1" * 30 + b" a\\n" + b"3" * 30 + b" a\\n")
    >>> b = Span(b"2" * 30 + b" b\\n")
    >>> window([[a], [b]], 1000)
    [[33], [33]]
    """
    spans = [span for group in groups for span in group]
    share = max(limit_bytes // max(len(spans), 1), 1)
    bounds = [[_bound(span, share) for span in group] for group in groups]
    horizon = min(_watermark(group, ends) for group, ends in zip(groups, bounds, strict=True))
    cuts = [
        [
            min(end, find_time(span.data, horizon + _AFTER, span.begin))
            for span, end in zip(*pair, strict=True)
        ]
        for pair in zip(groups, bounds, strict=True)
    ]
    total = sum(
        cut - span.begin
        for group, ends in zip(groups, cuts, strict=True)
        for span, cut in zip(group, ends, strict=True)
    )
    # Nothing at all only when times are in disorder: then a line is better than standing still.
    good = 0 < total <= 2 * limit_bytes or (len(spans) == 1 and total)
    return cuts if good else _oldest_only(groups, share)


def cursor_within(base: SourceCursor, span: Span, end: int) -> SourceCursor:
    """The place in the middle of a chunk that begins somewhere behind ``base``, before ``end`` of its span.

    >>> line = b"2026-01-01T00:00:00.000000000Z stdout F x\\n"
    >>> str(cursor_within(SourceCursor.parse("1.1-0-0"), Span(line * 3), 2 * len(line)))
    '1.1-0-0@2026-01-01T00:00:00.000000000Z+2'

    When ``base`` is itself such a place, lines of its time that were passed before count too.
    """
    time = last_time(span.data, end)
    passed = span.data.count(b"\n", find_time(span.data, time), end)
    if time == base.before:
        passed += base.passed
    return base._replace(before=time, passed=passed)


def _bound(span: Span, share: int) -> int:
    """The end of the line that fills the span's share."""
    if span.size <= share:
        return len(span.data)
    return span.data.find(b"\n", span.begin + share - 1) + 1


def _watermark(group: Sequence[Span], ends: Sequence[int]) -> bytes:
    """Up to which time a group's lines are known to be all."""
    cut = [last_time(span.data, end) for span, end in zip(group, ends, strict=True) if end < len(span.data)]
    return min(cut) if cut else max(last_time(span.data) for span in group)


def _oldest_only(groups: Sequence[Sequence[Span]], share: int) -> list[list[int]]:
    """Lines of the span that begins first, up to where another one begins."""
    cuts = [[span.begin for span in group] for group in groups]
    order = sorted(
        (span.first_time(), number, position)
        for number, group in enumerate(groups)
        for position, span in enumerate(group)
    )
    _, number, position = order[0]
    span = groups[number][position]
    one = span.data.find(b"\n", span.begin) + 1
    end = _bound(span, share)
    if len(order) > 1:
        end = min(end, find_time(span.data, order[1][0] + _AFTER, span.begin))
    cuts[number][position] = max(one, end)
    return cuts
