"""What ``logs`` asks of a renderer: a block of bytes for each batch, and what a screen needs besides.

Most renderers show whole lines and need nothing of the latter.
"""

from __future__ import annotations

from collections.abc import Collection

from cloudless.sdk.logbatch import LogBatch
from cloudless.sdk.logentry import LogSource


class Renderer:
    """One per stream; ``render`` takes the batches in turn, ``end`` gives what is left over.

    Its blocks are to be written in the order in which it gives them.
    """

    def render(self, batch: LogBatch, sources: Collection[LogSource]) -> bytes:
        """The block of one batch, in order of time; ``sources`` are all that the stream has so far."""
        raise NotImplementedError

    def end(self) -> bytes:
        """What no end came for."""
        return b""

    def wait_s(self) -> float | None:
        """In how many seconds without a batch ``overdue`` has something to show; None: never."""
        return None

    def overdue(self) -> bytes:
        """What is shown of lines whose end was waited for in vain."""
        return b""

    def break_off(self) -> bytes:
        """What is to be written before somebody else writes to the same terminal."""
        return b""

    @property
    def is_within_line(self) -> bool:
        """Whether what was shown last was the beginning of a line."""
        return False
