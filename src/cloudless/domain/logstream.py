"""What a stream of logs is made of: chunks of lines, markers between them, sources.

The agent makes them, ``wire`` carries them. ``LogQuery`` is what somebody wants to see.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from cloudless.domain.logrecord import SourceCursor
from cloudless.domain.replica import ExitStatus

BOTH = frozenset({"stdout", "stderr"})


class MarkerKind(enum.StrEnum):
    """Something that happened to a source, or to a node; see ``LogMarker`` in the API."""

    STARTED = "STARTED"
    EXITED = "EXITED"
    RESTARTED = "RESTARTED"
    ROTATED = "ROTATED"
    GAP = "GAP"
    LOGGER_LOST = "LOGGER_LOST"
    NODE_UNREACHABLE = "NODE_UNREACHABLE"
    NODE_BACK = "NODE_BACK"
    SOURCE_ENDED = "SOURCE_ENDED"
    LIMIT_REACHED = "LIMIT_REACHED"
    LEFT_OUT = "LEFT_OUT"


@dataclass(frozen=True, slots=True)
class LogMarker:
    """``at_ns``: nanoseconds since 1970. ``runs``: those of the replica before this one."""

    kind: MarkerKind
    at_ns: int
    gap_bytes: int = 0
    exit: ExitStatus | None = None
    runs: int = 0
    node: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class LogSource:
    """A replica whose logs are there; ``gone``: it does not exist any more."""

    replica_id: str
    namespace: str
    name: str
    ordinal: int
    workload_id: str
    revision: int
    node: str = ""
    gone: bool = False


@dataclass(slots=True)
class LogChunk:
    """Consecutive lines of one container, or a marker, or only a cursor."""

    replica_id: str
    container_id: str = ""
    lines: bytes = b""
    cursor: str = ""
    marker: LogMarker | None = None
    source: LogSource | None = None


@dataclass(slots=True)
class LogBatch:
    """Chunks of one window of time; see ``LogBatch`` in the API."""

    chunks: list[LogChunk] = field(default_factory=list)
    opened: bool = False
    caught_up: bool = False


@dataclass(frozen=True, slots=True)
class LogQuery:
    """Which lines, and in what form. ``resume``: cursors by replica; None for a new stream."""

    follow: bool = False
    tail_lines: int | None = None
    since_ns: int | None = None
    until_ns: int | None = None
    streams: frozenset[str] = BOTH
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    timestamps: bool = False
    previous: bool = False
    current_only: bool = False
    limit_bytes: int = 0
    resume: Mapping[str, SourceCursor] | None = None
