"""The histories of several nodes, cut at the same time: what ``logstream`` passes on next of each.

Pure: chunks in, one batch out, and what is left stays where it was.
"""

from __future__ import annotations

from cloudless import api
from cloudless.coordinator.limits import LOG_WINDOW_BYTES
from cloudless.coordinator.services.logsource import NodeLogs
from cloudless.domain.loglines import time_text
from cloudless.domain.logrecord import SourceCursor
from cloudless.planning.logorder import Span, cursor_within, window
from cloudless.wire.loglines import time_to_ns


class Head:
    """A chunk that waits to be passed on, whole or in parts."""

    def __init__(self, chunk: api.LogChunk) -> None:
        self.chunk = chunk
        at = chunk.marker.at if chunk.marker is not None else None
        own = time_text(time_to_ns(at) if at is not None else 0) + b"\n"
        #: A marker stands for a line of its time, and so does a mere cursor: of any time.
        self.span = Span(chunk.lines or own)


def cut_window(heads: dict[NodeLogs, list[Head]], bases: dict[str, str]) -> api.LogBatch:
    """One window of all nodes' heads; ``bases`` are the last whole cursors of the sources."""
    groups = [[head.span for head in group] for group in heads.values()]
    cuts = window(groups, LOG_WINDOW_BYTES)
    batch = api.LogBatch()
    for (node, group), ends in zip(tuple(heads.items()), cuts, strict=True):
        for head, end in zip(group, ends, strict=True):
            if end > head.span.begin:
                batch.chunks.append(_part(head, end, bases))
                head.span.begin = end
        heads[node] = [head for head in group if head.span.size]
        if not heads[node]:
            del heads[node]
    return batch


def _part(head: Head, end: int, bases: dict[str, str]) -> api.LogChunk:
    chunk, span = head.chunk, head.span
    if end == len(span.data):
        if span.begin:
            chunk.lines = span.data[span.begin :]
        if chunk.cursor:
            bases[chunk.replica_id] = chunk.cursor
        return chunk
    base = SourceCursor.parse(bases[chunk.replica_id])
    return api.LogChunk(
        replica_id=chunk.replica_id,
        container_id=chunk.container_id,
        lines=span.data[span.begin : end],
        cursor=str(cursor_within(base, span, end)),
    )
