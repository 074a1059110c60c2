"""Batches of logs as text: prefixes, times, markers in grey, or just the bytes.

A renderer makes one block of each batch. Where nothing has to be put before or changed
in lines they are passed on without being looked at one by one. ``partial`` knows what is
on the screen of lines that have no end yet.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import NamedTuple

from cloudless.cli.logs.painting import harmless, is_harmless, painted
from cloudless.cli.logs.partial import PartialLines, Rest
from cloudless.cli.logs.rendering import Renderer
from cloudless.cli.terminal import Terminal, neutral
from cloudless.domain.loglines import HEAD_BYTES, TIME_BYTES
from cloudless.sdk.logbatch import LogBatch, LogChunk, Part, PieceJoiner, in_order, run_ended_by
from cloudless.sdk.logentry import LogLine, LogMarker, LogOrigin, LogSource

#: Markers that say that something is missing or late: told even where only bytes go.
LOSSES = frozenset({"GAP", "LOGGER_LOST", "NODE_UNREACHABLE", "NODE_BACK"})


class Look(NamedTuple):
    """How lines are shown. ``prefix`` None: as soon as there is more than one replica."""

    prefix: bool | None = None
    timestamps: bool = False
    #: Make lines harmless for a terminal.
    neutral: bool = False
    #: Kinds of markers that are left out; None leaves out all.
    hidden: Collection[str] | None = ()
    #: Show the beginning of a line whose end does not come so soon; only with ``neutral``.
    partial_after_s: float | None = None


class TextRenderer(Renderer):
    """Lines and markers for people, or bytes for a pipe. ``monotonic`` tells seconds."""

    def __init__(self, terminal: Terminal, look: Look, monotonic: Callable[[], float]) -> None:
        self._terminal = terminal
        self._look = look
        self._encoding = getattr(terminal.stream, "encoding", None) or "utf-8"
        self._joiner = PieceJoiner()
        self._prefixed = bool(look.prefix)
        self._width = 0
        self._names: set[str] = set()
        self._heads: dict[LogSource, bytes] = {}
        self._partial = PartialLines(
            self._joiner,
            self._before,
            monotonic,
            mark=terminal.paint("…" if terminal.unicode else "...", "dim").encode(),
            encoding=self._encoding,
            after_s=look.partial_after_s,
        )
        #: Whether the last block ended within a line, of bytes that were passed on.
        self._open_line = False

    def render(self, batch: LogBatch, sources: Collection[LogSource]) -> bytes:
        self._meet(sources)
        if self._passes(batch):
            block = b"".join([chunk.data for chunk in batch.chunks])
            self._open_line = not block.endswith(b"\n") if block else self._open_line
            return block
        parts = [part for chunk in batch.chunks for part in self._parts(chunk)]
        items: list[bytes | Rest] = in_order(parts)
        return self._after_open_line(self._partial.put(items) + self._partial.goes_on())

    def wait_s(self) -> float | None:
        return self._partial.wait_s()

    def overdue(self) -> bytes:
        return self._partial.overdue()

    def break_off(self) -> bytes:
        return self._partial.break_off()

    @property
    def is_within_line(self) -> bool:
        return self._partial.is_within_line

    def end(self) -> bytes:
        """Lines whose end never came; on a terminal, the prompt gets a line of its own."""
        block = self._partial.put([item for part in self._broken_off("") for item in part.items])
        if self._terminal.is_terminal:
            return self._after_open_line(block) or (b"\n" if self._open_line else b"")
        return self._after_open_line(block)

    def _meet(self, sources: Collection[LogSource]) -> None:
        if len(sources) == len(self._heads):
            return
        self._heads = dict.fromkeys(sources, b"")
        names = {source.replica for source in sources}
        self._width = max(len(neutral(name)) for name in names)
        self._prefixed = len(names) > 1 if self._look.prefix is None else self._look.prefix

    def _passes(self, batch: LogBatch) -> bool:
        """Whether the bytes go out as they came: nothing to add, one source, harmless."""
        if self._prefixed or self._look.timestamps or self._partial.has_begun:
            return False
        first = batch.chunks[0].source_id if batch.chunks else ""
        return all(
            chunk.marker is None
            and chunk.source_id == first
            and not self._joiner.waits(first)
            and (not self._look.neutral or (is_harmless(chunk.lines) and not chunk.has_pieces))
            for chunk in batch.chunks
        )

    def _parts(self, chunk: LogChunk) -> list[Part[bytes | Rest]]:
        """The lines of a chunk, or its marker, ready to be put in order."""
        name, marker = chunk.source_id, chunk.marker
        if marker is None:
            is_clean = not self._joiner.waits(name) and is_harmless(chunk.lines)
            raws = self._joiner.join(chunk)
            lines = self._lines(chunk.origin, raws, is_clean)
            return [Part(name, raws, self._partial.continued(chunk.origin, raws, lines))]
        run = run_ended_by(marker)
        parts = self._broken_off(run, name) if run is not None else []
        if self._look.hidden is not None and marker.kind not in self._look.hidden:
            parts.append(Part(name, [marker.place], [self._marker(marker)]))
        return parts

    def _broken_off(self, run: str, name: str = "") -> list[Part[bytes | Rest]]:
        """Lines of a run, or of all if empty, whose end will not come."""
        parts = []
        for line in self._joiner.flush(run):
            items = self._partial.continued(line.origin, [line.raw], [self._line(line)])
            parts.append(Part(name, [line.raw], items))
        parts += [Part(name, [head], [rest]) for head, rest in self._partial.broken_off(run)]
        return parts

    def _lines(self, origin: LogOrigin, raws: list[bytes], is_clean: bool) -> list[bytes]:
        head = self._head(origin.source) if self._prefixed else b""
        if self._look.neutral and not is_clean:
            bodies = [harmless(raw[HEAD_BYTES:], self._encoding) for raw in raws]
        elif not self._look.timestamps:
            return [b"%b%b\n" % (head, raw[HEAD_BYTES:]) for raw in raws]
        else:
            bodies = [raw[HEAD_BYTES:] for raw in raws]
        if not self._look.timestamps:
            return [b"%b%b\n" % (head, body) for body in bodies]
        begin, end = self._around_time()
        return [
            b"%b%b%b%b %b\n" % (head, begin, raw[:TIME_BYTES], end, body)
            for raw, body in zip(raws, bodies, strict=True)
        ]

    def _around_time(self) -> tuple[bytes, bytes]:
        begin, _, end = self._paint(b"\0").partition(b"\0")
        return begin, end

    def _before(self, origin: LogOrigin, raw: bytes) -> bytes:
        """What stands before the container's bytes in a line, or in a part of it."""
        head = self._head(origin.source) if self._prefixed else b""
        if not self._look.timestamps:
            return head
        begin, end = self._around_time()
        return b"%b%b%b%b " % (head, begin, raw[:TIME_BYTES], end)

    def _line(self, line: LogLine) -> bytes:
        return self._lines(line.origin, [line.raw], is_harmless(line.data))[0]

    def _head(self, source: LogSource) -> bytes:
        """The painted name of a replica, as wide as the widest."""
        head = self._heads.get(source)
        if not head:
            name = neutral(source.replica)
            head = f"{painted(self._terminal, name)}{' ' * (self._width - len(name))} | ".encode()
            self._heads[source] = head
        return head

    def _marker(self, marker: LogMarker) -> bytes:
        """A line in grey."""
        time = f"{marker.time} " if self._look.timestamps and marker.time else ""
        return self._paint(marker_line(marker, time, unicode=self._terminal.unicode).encode()) + b"\n"

    def _paint(self, text: bytes) -> bytes:
        return self._terminal.paint(text.decode(), "dim").encode()

    def _after_open_line(self, block: bytes) -> bytes:
        if block and self._open_line:
            self._open_line = False
            return b"\n" + block
        return block


def marker_line(marker: LogMarker, time: str = "", *, unicode: bool = True) -> str:
    """A marker as a line for people, without a line feed."""
    about_node = marker.kind in ("NODE_UNREACHABLE", "NODE_BACK", "LIMIT_REACHED")
    subject = "" if about_node or not marker.replica else f"{marker.replica} "
    return f"{'──' if unicode else '--'} {time}{neutral(subject + marker.text)}"


class RawRenderer(Renderer):
    """Nothing but the bytes that containers wrote; several sources side by side are brought in order."""

    def render(self, batch: LogBatch, sources: Collection[LogSource]) -> bytes:
        if len({chunk.source_id for chunk in batch.chunks}) < 2:
            return batch.data
        parts: list[Part[bytes]] = []
        for chunk in batch.chunks:
            raws = chunk.raws
            ends = [b"" if raw[38:39] == b"P" else b"\n" for raw in raws]
            items = [raw[HEAD_BYTES:] + end for raw, end in zip(raws, ends, strict=True)]
            parts.append(Part(chunk.source_id, raws, items))
        lines: list[bytes] = in_order(parts)
        return b"".join(lines)
