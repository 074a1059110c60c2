"""Memory that several share: each takes what it needs as it goes, and gives all of it back at its end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class ByteBudget:
    """So many bytes in all.

    >>> budget = ByteBudget(10)
    >>> with budget.share() as one, budget.share() as other:
    ...     one.take(8), other.take(8), budget.left_bytes
    (8, 2, 0)
    >>> budget.left_bytes
    10
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.left_bytes = limit_bytes

    @contextmanager
    def share(self) -> Iterator[Share]:
        """What one of them takes while the block lasts."""
        share = Share(self)
        try:
            yield share
        finally:
            self.left_bytes += share.taken_bytes


class Share:
    """One's part of a budget; ``Room`` for the runtime."""

    def __init__(self, budget: ByteBudget) -> None:
        self._budget = budget
        self.taken_bytes = 0

    def take(self, wanted_bytes: int) -> int:
        """How many of these there is room for; they are taken."""
        granted = min(wanted_bytes, self._budget.left_bytes)
        self._budget.left_bytes -= granted
        self.taken_bytes += granted
        return granted
