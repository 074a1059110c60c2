"""Batches of logs as JSON: one object per line of a log, and one per marker.

What does not change between the lines of a run is written once and kept.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Collection
from json.encoder import encode_basestring_ascii
from typing import Any

from cloudless.cli.logs.rendering import Renderer
from cloudless.cli.output.plain import plain
from cloudless.domain.loglines import HEAD_BYTES, TIME_BYTES
from cloudless.sdk.logbatch import LogBatch, LogChunk, Part, PieceJoiner, in_order
from cloudless.sdk.logentry import LogLine, LogMarker, LogOrigin, LogSource


class JsonRenderer(Renderer):
    """One object per line and per marker."""

    def __init__(self) -> None:
        self._joiner = PieceJoiner()
        self._kept: tuple[LogOrigin, str] | None = None

    def render(self, batch: LogBatch, sources: Collection[LogSource]) -> bytes:
        parts = [part for chunk in batch.chunks for part in self._parts(chunk)]
        lines: list[bytes] = in_order(parts)
        return b"".join(lines)

    def end(self) -> bytes:
        """Lines whose end never came."""
        return b"".join([self._line(line.origin, line.raw) for line in self._joiner.flush()])

    def _parts(self, chunk: LogChunk) -> list[Part[bytes]]:
        origin, marker = chunk.origin, chunk.marker
        if marker is None:
            raws = self._joiner.join(chunk)
            return [Part(chunk.source_id, raws, [self._line(origin, raw) for raw in raws])]
        broken_off: list[LogLine] = self._joiner.cut(marker)
        items = [self._line(line.origin, line.raw) for line in broken_off]
        return [
            Part(chunk.source_id, [line.raw for line in broken_off], items),
            Part(chunk.source_id, [marker.place], [_marker_object(marker)]),
        ]

    def _line(self, origin: LogOrigin, raw: bytes) -> bytes:
        stream = "stderr" if raw[34:37] == b"err" else "stdout"
        data = raw[HEAD_BYTES:]
        try:
            text, more = data.decode(), ""
        except UnicodeDecodeError:
            text = data.decode("utf-8", "replace")
            more = f', "data": "{base64.b64encode(data).decode()}"'
        if raw[38:39] == b"P":
            more += ', "partial": true'
        time = raw[:TIME_BYTES].decode("ascii", "replace")
        line = (
            f'{{"time": "{time}", {self._about(origin)}, "stream": "{stream}", '
            f'"line": {encode_basestring_ascii(text)}{more}}}\n'
        )
        return line.encode()

    def _about(self, origin: LogOrigin) -> str:
        if self._kept is None or self._kept[0] is not origin:
            self._kept = (origin, json.dumps(_about(origin.source, origin.container_id))[1:-1])
        return self._kept[1]


def _about(source: LogSource, container_id: str) -> dict[str, Any]:
    return {
        "namespace": source.namespace,
        "workload": source.name,
        "replica": source.replica,
        "replica_id": source.replica_id,
        "container_id": container_id,
        "node": source.node,
        "revision": source.revision,
    }


def _marker_object(marker: LogMarker) -> bytes:
    found: dict[str, Any] = {"time": marker.time or None, **_about(marker.source, marker.container_id)}
    found |= {"node": marker.node, "marker": marker.kind, "text": marker.text}
    if marker.exit is not None:
        found["exit"] = plain(marker.exit)
    if marker.kind == "GAP":
        found["gap_bytes"] = marker.gap_bytes
    if marker.kind == "RESTARTED":
        found["runs"] = marker.runs
    return (json.dumps(found) + "\n").encode()
