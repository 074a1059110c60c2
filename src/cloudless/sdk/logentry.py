"""What logs consist of: lines, markers among them, and the replicas that they come from.

``LogStream`` makes them by the hundred thousand, so a line is a pair of references until
something of it is read. Nothing here waits or calls anybody.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable
from functools import partial
from itertools import repeat
from typing import Literal, NamedTuple, cast

from cloudless import api
from cloudless.domain.loglines import HEAD_BYTES, TIME_BYTES, time_ns, time_text
from cloudless.sdk.objects import enum_name
from cloudless.wire.loglines import time_from_ns, time_to_ns

_SIZE_UNITS = ("KiB", "MiB", "GiB", "TiB")


class LogSource(NamedTuple):
    """A replica whose logs are in the stream. ``gone``: it does not exist any more."""

    replica_id: str
    namespace: str = ""
    name: str = ""
    ordinal: int = 0
    workload_id: str = ""
    revision: int = 0
    node: str = ""
    gone: bool = False

    @property
    def replica(self) -> str:
        """``workload/ordinal``; empty for what is about a node.

        >>> LogSource("4f2a", "default", "web", 1).replica
        'web/1'
        """
        return f"{self.name}/{self.ordinal}" if self.name else self.replica_id

    @classmethod
    def of(cls, replica_id: str, message: api.LogSource | None) -> LogSource:
        """From its message; only an id when there is none."""
        if message is None:
            return cls(replica_id)
        return cls(
            replica_id,
            message.namespace,
            message.name,
            message.ordinal,
            message.workload_id,
            message.revision,
            message.node,
            message.gone,
        )


class LogOrigin(NamedTuple):
    """One run of a replica: where a line was written."""

    source: LogSource
    container_id: str


class LogLine(NamedTuple):
    """One line; ``raw`` is how it travels, and everything else is read from it when asked for.

    >>> origin = LogOrigin(LogSource("4f2a", "default", "web", 1), "c1")
    >>> line = LogLine(origin, b"2026-01-01T00:00:00.000000001Z stderr F no such file")
    >>> line.replica, line.stream, line.text
    ('web/1', 'stderr', 'no such file')
    """

    origin: LogOrigin
    raw: bytes

    @property
    def data(self) -> bytes:
        """What the container wrote, any bytes, without the line feed."""
        return self.raw[HEAD_BYTES:]

    @property
    def text(self) -> str:
        """``data`` as text; bytes that are not UTF-8 are replaced."""
        return self.raw[HEAD_BYTES:].decode("utf-8", "replace")

    @property
    def stream(self) -> Literal["stdout", "stderr"]:
        """stdout or stderr."""
        return "stderr" if self.raw[34:37] == b"err" else "stdout"

    @property
    def partial(self) -> bool:
        """No line feed follows here: the line is longer than a client puts together, or broke off."""
        return self.raw[38:39] == b"P"

    @property
    def at(self) -> datetime.datetime:
        """When the container wrote it, cut to microseconds."""
        return time_from_ns(time_ns(self.raw))

    @property
    def at_ns(self) -> int:
        """The same in nanoseconds since 1970."""
        return time_ns(self.raw)

    @property
    def time(self) -> str:
        """The same as text, RFC 3339 with nine digits; sorts as times do."""
        return self.raw[:TIME_BYTES].decode("ascii", "replace")

    @property
    def replica(self) -> str:
        """``workload/ordinal``."""
        return self.origin.source.replica

    @property
    def source(self) -> LogSource:
        """The replica."""
        return self.origin.source

    @property
    def container_id(self) -> str:
        """The run of the replica."""
        return self.origin.container_id

    def __repr__(self) -> str:
        return f"<LogLine {self.replica} {self.text!r}>"


#: Lines from pairs of an origin and raw bytes, with no Python code run for each.
_new_line = cast(Callable[[tuple[LogOrigin, bytes]], LogLine], partial(tuple.__new__, LogLine))


def new_lines(origin: LogOrigin, raws: Iterable[bytes]) -> list[LogLine]:
    """Lines of one origin."""
    return list(map(_new_line, zip(repeat(origin), raws, strict=False)))


class LogMarker(NamedTuple):
    """Something that happened to a replica, its log or a node, in its place among the lines.

    ``kind``: STARTED, RESTARTED, EXITED, ROTATED, GAP, LOGGER_LOST, NODE_UNREACHABLE, NODE_BACK,
    SOURCE_ENDED or LIMIT_REACHED; others may come.
    """

    kind: str
    source: LogSource
    container_id: str
    message: api.LogMarker

    @property
    def at(self) -> datetime.datetime | None:
        """When it happened."""
        return self.message.at

    @property
    def time(self) -> str:
        """The same as text; empty when nobody knows."""
        return "" if self.message.at is None else time_text(time_to_ns(self.message.at)).decode()

    @property
    def place(self) -> bytes:
        """Its place among lines, which sort by their time: the end of a stream is behind them all."""
        return b"~" if self.kind == "LIMIT_REACHED" else self.time.encode()

    @property
    def replica(self) -> str:
        """``workload/ordinal``; empty for what is about a node."""
        return self.source.replica

    @property
    def node(self) -> str:
        """The node that it is about, else the one that the replica runs on."""
        return self.message.node or self.source.node

    @property
    def gap_bytes(self) -> int:
        """GAP: how many bytes that the container wrote are missing here."""
        return self.message.gap_bytes

    @property
    def exit(self) -> api.ExitStatus | None:
        """EXITED: how."""
        return self.message.exit

    @property
    def runs(self) -> int:
        """RESTARTED: how many runs there were before this one."""
        return self.message.runs

    @property
    def text(self) -> str:
        """One sentence for people, without its subject: "exited with code 1"."""
        return marker_text(self)

    def __repr__(self) -> str:
        return f"<LogMarker {self.kind} {self.replica or self.node}: {self.text}>"


def marker_of(message: api.LogMarker, source: LogSource, container_id: str) -> LogMarker:
    """The view of a marker's message."""
    return LogMarker(enum_name(message.kind), source, container_id, message)


def marker_text(marker: LogMarker) -> str:
    """See ``LogMarker.text``."""
    message, node = marker.message, marker.node
    why = f": {message.message}" if message.message else ""
    on = f" on {node}" if node else ""
    match marker.kind:
        case "STARTED":
            return f"started{on}"
        case "RESTARTED":
            return f"restarted{on}, run {marker.runs + 1}" if marker.runs else f"restarted{on}"
        case "EXITED":
            return exit_text(message.exit)
        case "GAP":
            return f"lost {size_text(marker.gap_bytes)} here{why}"
        case "ROTATED":
            return "goes on in its next log file"
        case "LOGGER_LOST":
            return "has lost its logger: what it writes from here on is lost"
        case "NODE_UNREACHABLE":
            return f"node {node} cannot be reached"
        case "NODE_BACK":
            return f"node {node} is back"
        case "SOURCE_ENDED":
            return message.message or "has ended: nothing more will come"
        case "LIMIT_REACHED":
            return "stopped: the limit of bytes is reached"
    return message.message or marker.kind.lower().replace("_", " ")


def exit_text(status: api.ExitStatus | None) -> str:
    """How a run ended.

    >>> exit_text(api.ExitStatus(code=137, oom_killed=True)), exit_text(api.ExitStatus(code=3))
    ('exited with code 137: out of memory', 'exited with code 3')
    """
    if status is None:
        return "ended, nobody knows how"
    text = f"exited with code {status.code}"
    if status.oom_killed:
        return f"{text}: out of memory"
    return f"{text}: ended by signal {status.signal}" if status.signal else text


def size_text(count_bytes: int) -> str:
    """A number of bytes for people.

    >>> size_text(7), size_text(10 * 2**20 + 2**19)
    ('7 bytes', '10.5 MiB')
    """
    if count_bytes < 1024:
        return f"{count_bytes} bytes"
    power = min((count_bytes.bit_length() - 1) // 10, len(_SIZE_UNITS))
    return f"{count_bytes / 1024**power:.1f} {_SIZE_UNITS[power - 1]}"
