"""Where the reading of a replica begins: which run, and where in its log. Blocking.

Called by ``source`` on a worker thread, once for each source of a stream.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, TypeVar

from cloudless.agent.logs import files
from cloudless.agent.logs.tail import TailScan, WholeTail, find_whole_tail
from cloudless.domain import loglines
from cloudless.domain.logfilter import LogFilter
from cloudless.domain.logrecord import LogCursor, SourceCursor
from cloudless.domain.logstream import LogQuery
from cloudless.domain.replica import ExitStatus

#: Places in a run before any file: its begin is not told yet; it is told; the source's end is told.
UNTOLD, TOLD, END_TOLD = LogCursor(0, 0, 0), LogCursor(0, 1, 0), LogCursor(0, 2, 0)

T = TypeVar("T")


class KnownRun(NamedTuple):
    """A run that is there: its directory, where its log ends now, and what is known of it.

    ``started_ns`` is 0 and ``exit`` None as long as nobody knows; ``over``: it writes no more.
    """

    directory: Path
    end: files.End
    started_ns: int
    exit: ExitStatus | None
    over: bool = True


def find_begin(
    runs: Mapping[int, KnownRun], query: LogQuery, tail_lines: int | None, line_filter: LogFilter
) -> SourceCursor:
    """The place that ``since`` and ``tail_lines`` ask for, whichever is later."""
    begin = SourceCursor(min(runs, default=0), UNTOLD)
    if query.since_ns is not None:
        begin = _since(runs, loglines.time_text(query.since_ns), begin)
    if tail_lines is None:
        return begin
    runs = _up_to(runs, query.until_ns)
    if line_filter.has_patterns:
        return _whole_tail(runs, tail_lines, query, line_filter, begin)
    return _tail(runs, tail_lines, line_filter.keeps, begin)


def _up_to(runs: Mapping[int, KnownRun], until_ns: int | None) -> Mapping[int, KnownRun]:
    """The runs as they were then: what was written later is not among the newest lines that are wanted."""
    if until_ns is None:
        return runs
    when = loglines.time_text(until_ns + 1)

    def ended(known: KnownRun) -> KnownRun:
        return known._replace(end=files.end_before(known.directory, when, known.end))

    return {run: _retried(lambda known=known: ended(known)) for run, known in runs.items()}  # type: ignore[misc]


def _since(runs: Mapping[int, KnownRun], when: bytes, begin: SourceCursor) -> SourceCursor:
    found = begin
    for run in sorted(runs, reverse=True):
        directory = runs[run].directory
        first = _retried(lambda directory=directory: files.first_time(directory))  # type: ignore[misc]
        if not first or first >= when:
            found = SourceCursor(run, UNTOLD)
            continue
        place = _retried(lambda directory=directory: files.find_since(directory, when))  # type: ignore[misc]
        return SourceCursor(run, place or UNTOLD)
    return found


def _tail(runs: Mapping[int, KnownRun], count: int, keeps: files.Keeps, begin: SourceCursor) -> SourceCursor:
    for run in sorted(runs, reverse=True):
        if run < begin.run:
            break
        known = runs[run]
        tail = _retried(
            lambda known=known, count=count: files.find_tail(known.directory, count, keeps, known.end)  # type: ignore[misc]
        )
        if tail.missing == 0:
            return max(begin, SourceCursor(run, tail.cursor or TOLD))
        count = tail.missing
    return begin


def _whole_tail(
    runs: Mapping[int, KnownRun], count: int, query: LogQuery, line_filter: LogFilter, begin: SourceCursor
) -> SourceCursor:
    since = b"" if query.since_ns is None else loglines.time_text(query.since_ns)

    def look(known: KnownRun, count: int) -> WholeTail:
        scan = TailScan(count, line_filter, waits=query.follow and not known.over)
        return find_whole_tail(known.directory, scan, known.end, since=since)

    for run in sorted(runs, reverse=True):
        if run < begin.run:
            break
        tail = _retried(lambda run=run, count=count: look(runs[run], count))  # type: ignore[misc]
        if tail.missing == 0:
            found = SourceCursor(run, tail.at or TOLD, held=tail.held, rest=tail.rest)
            return max(begin, found, key=lambda cursor: (cursor.run, cursor.at))
        count = tail.missing
    return begin


def _retried(look: Callable[[], T]) -> T:
    while True:
        try:
            return look()
        except FileNotFoundError:
            continue  # rotated away while we looked: look again
