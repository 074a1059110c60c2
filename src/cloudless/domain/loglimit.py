"""Ends a stream of logs after so many bytes of lines. Pure.

The agent applies it to what it sends, the coordinator to what it passes on.
"""

from __future__ import annotations

from cloudless.domain import loglines
from cloudless.domain.logstream import LogMarker, MarkerKind


class ByteLimit:
    """``limit_bytes`` 0 is no limit; once it is ``reached``, nothing may follow but ``marker``."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._left = limit_bytes
        self.reached = False

    def take(self, lines: bytes) -> bytes:
        """Count lines; what of them is within the limit, the last one perhaps cut to a piece."""
        if not self._limit_bytes or not lines:
            return lines
        self._left -= loglines.written_bytes(lines)
        self.reached = self._left <= 0
        return cut(lines, -self._left) if self._left < 0 else lines

    def marker(self, now_ns: int) -> LogMarker:
        """What is told at the end."""
        told = f"{self._limit_bytes} bytes of lines were sent"
        return LogMarker(MarkerKind.LIMIT_REACHED, now_ns, message=told)


def cut(chunk: bytes, surplus: int) -> bytes:
    """The lines without the last ``surplus`` bytes of what they hold, heads not counted.

    >>> head = b"2026-01-01T00:00:00.000000000Z stdout "
    >>> cut(head + b"F one\\n" + head + b"F two\\n", 6)[-12:]
    b'stdout P on\\n'
    """
    lines = chunk.split(b"\n")[:-1]
    while lines:
        last = lines.pop()
        held = loglines.written_bytes(last + b"\n")
        if held > surplus:
            if surplus:
                last = last[:38] + b"P" + last[39 : loglines.HEAD_BYTES + held - surplus]
            lines.append(last)
            break
        surplus -= held
    return b"".join(line + b"\n" for line in lines)
