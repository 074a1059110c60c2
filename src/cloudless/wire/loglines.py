"""Entries of a log as the chunks that batches are made of, and chunks as entries.

For the few places that handle single lines; bulk is passed on as chunks and never goes
through here.
"""

from __future__ import annotations

import datetime

from cloudless import api
from cloudless.domain import loglines
from cloudless.domain.logrecord import LogRecord

_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_MICROSECOND = datetime.timedelta(microseconds=1)


def time_to_ns(at: datetime.datetime) -> int:
    """Nanoseconds since 1970.

    >>> time_to_ns(datetime.datetime(1970, 1, 1, 0, 0, 1, 5, tzinfo=datetime.UTC))
    1000005000
    """
    return (at - _EPOCH) // _MICROSECOND * 1000


def time_from_ns(timestamp_ns: int) -> datetime.datetime:
    """The time, cut to microseconds."""
    return _EPOCH + datetime.timedelta(microseconds=timestamp_ns // 1000)


def entry_from_record(record: LogRecord, replica: str, replica_id: str, container_id: str) -> api.LogEntry:
    """One line as a message of its own."""
    return api.LogEntry(
        at=time_from_ns(record.timestamp_ns),
        stream=record.stream,
        line=record.data,
        replica=replica,
        replica_id=replica_id,
        container_id=container_id,
        partial=record.partial,
    )


def entries_from_chunk(chunk: api.LogChunk, replica: str) -> list[api.LogEntry]:
    """The lines of a chunk, or its gap; other markers are none. ``replica`` is "name/ordinal"."""
    if chunk.marker is not None:
        if chunk.marker.kind is not api.LogMarkerKind.GAP:
            return []
        gap = api.LogEntry(at=chunk.marker.at, replica=replica, gap_bytes=chunk.marker.gap_bytes)
        gap.replica_id, gap.container_id = chunk.replica_id, chunk.container_id
        return [gap]
    return [
        entry_from_record(record, replica, chunk.replica_id, chunk.container_id)
        for record in loglines.parse(chunk.lines)
    ]


def chunk_from_entry(entry: api.LogEntry) -> api.LogChunk:
    """The chunk that stands for one entry; it has no cursor."""
    chunk = api.LogChunk(replica_id=entry.replica_id, container_id=entry.container_id)
    if entry.gap_bytes:
        chunk.marker = api.LogMarker(
            kind=api.LogMarkerKind.GAP, at=entry.at, gap_bytes=entry.gap_bytes, message="rotated away"
        )
        return chunk
    at = time_to_ns(entry.at) if entry.at is not None else 0
    tag = b"P" if entry.partial else b"F"
    stream = (entry.stream or "stdout").encode()
    chunk.lines = b"%b %b %b %b\n" % (loglines.time_text(at), stream, tag, entry.line)
    return chunk
