"""Bytes that all streams of logs of a coordinator share, beyond the little that each has for itself.

``logsource`` asks for more than its floor; what is refused costs speed and nothing else, so
nobody waits for bytes of others.
"""

from __future__ import annotations


class LogBudget:
    """Counts what is held.

    >>> budget = LogBudget(100)
    >>> budget.take(60), budget.take(60), budget.held_bytes
    (True, False, 60)
    >>> budget.give(60)
    >>> budget.has_room
    True
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        #: What was taken and not given back.
        self.held_bytes = 0

    @property
    def has_room(self) -> bool:
        """Whether anything is left."""
        return self.held_bytes < self._limit_bytes

    def take(self, size_bytes: int) -> bool:
        """Whether there is so much left; it is the caller's then."""
        if self.held_bytes + size_bytes > self._limit_bytes:
            return False
        self.held_bytes += size_bytes
        return True

    def hold(self, size_bytes: int) -> None:
        """Count what is there already, over the limit or not."""
        self.held_bytes += size_bytes

    def give(self, size_bytes: int) -> None:
        """Give back what was taken or held."""
        self.held_bytes -= size_bytes
