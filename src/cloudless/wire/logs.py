"""Requests for logs and the batches that answer them: domain <-> messages.

Both kinds of request carry the same options under the same names. Bulk stays bytes: the
lines of a chunk are never looked at here.
"""

from __future__ import annotations

from cloudless import api
from cloudless.domain.errors import Invalid
from cloudless.domain.logrecord import SourceCursor
from cloudless.domain.logstream import BOTH, LogBatch, LogChunk, LogMarker, LogQuery, LogSource
from cloudless.wire.link import exit_status_to_wire
from cloudless.wire.loglines import time_from_ns, time_to_ns

#: The last instant that has a next one within the year 9999.
LAST_NS = 253_402_300_799_999_999_998
#: Cursors of one request.
MAX_CURSORS = 5000


def query_from_wire(request: api.StreamLogsRequest | api.ReadLogsRequest) -> LogQuery:
    """What is wanted; raises ``Invalid`` with field paths."""
    if request.tail_lines is not None and request.tail_lines < 0:
        raise Invalid.field("tail_lines", "must not be negative")
    if request.limit_bytes < 0:
        raise Invalid.field("limit_bytes", "must not be negative")
    if request.stream not in ("", *BOTH):
        raise Invalid.field("stream", "must be stdout or stderr, or empty for both")
    if request.previous and request.follow:
        raise Invalid.field("previous", "runs that are over cannot be followed")
    since_ns = None if request.since is None else time_to_ns(request.since)
    # A time on the wire is cut to microseconds: the whole of the last one counts.
    until_ns = None if request.until is None else min(time_to_ns(request.until) + 999, LAST_NS)
    if since_ns is not None and until_ns is not None and until_ns < since_ns:
        raise Invalid.field("until", "must not be before since")
    return LogQuery(
        follow=request.follow,
        tail_lines=request.tail_lines,
        since_ns=since_ns,
        until_ns=until_ns,
        streams=frozenset({request.stream}) if request.stream else BOTH,
        include=tuple(request.include),
        exclude=tuple(request.exclude),
        timestamps=request.timestamps,
        previous=request.previous,
        current_only=request.current_only,
        limit_bytes=request.limit_bytes,
        resume=None if request.resume is None else cursors_from_wire(request.resume),
    )


def cursors_from_wire(resume: api.LogResume) -> dict[str, SourceCursor]:
    """Cursors by replica; raises ``Invalid``."""
    if len(resume.cursors) > MAX_CURSORS:
        raise Invalid.field("resume.cursors", f"must be at most {MAX_CURSORS}")
    found = {}
    for number, given in enumerate(resume.cursors):
        try:
            found[given.replica_id] = SourceCursor.parse(given.cursor)
        except ValueError:
            raise Invalid.field(f"resume.cursors[{number}].cursor", "is not one that a chunk had") from None
    return found


def resume_to_wire(cursors: dict[str, str]) -> api.LogResume:
    """Cursors by replica, as chunks carried them."""
    return api.LogResume(
        cursors=[api.LogCursor(replica_id=replica_id, cursor=at) for replica_id, at in cursors.items()]
    )


def batch_to_wire(batch: LogBatch) -> api.LogBatch:
    """A message; the lines are not copied."""
    chunks = [chunk_to_wire(chunk) for chunk in batch.chunks]
    return api.LogBatch(chunks=chunks, opened=batch.opened, caught_up=batch.caught_up)


def chunk_to_wire(chunk: LogChunk) -> api.LogChunk:
    """One chunk."""
    return api.LogChunk(
        replica_id=chunk.replica_id,
        container_id=chunk.container_id,
        lines=chunk.lines,
        cursor=chunk.cursor,
        marker=None if chunk.marker is None else marker_to_wire(chunk.marker),
        source=None if chunk.source is None else _source(chunk.source),
    )


def marker_to_wire(marker: LogMarker) -> api.LogMarker:
    """One marker."""
    return api.LogMarker(
        kind=api.LogMarkerKind[marker.kind.name],
        at=time_from_ns(marker.at_ns),
        gap_bytes=marker.gap_bytes,
        exit=None if marker.exit is None else exit_status_to_wire(marker.exit),
        runs=marker.runs,
        node=marker.node,
        message=marker.message,
    )


def _source(source: LogSource) -> api.LogSource:
    return api.LogSource(
        namespace=source.namespace,
        name=source.name,
        ordinal=source.ordinal,
        workload_id=source.workload_id,
        revision=source.revision,
        node=source.node,
        gone=source.gone,
    )
