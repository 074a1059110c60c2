"""A place for the newest value: writers overwrite, the reader gets the last one.

For state that is sent whole (observed status, node facts), where an old value has no
worth once a newer one exists. It holds one value, so a slow reader costs no memory.
"""

from __future__ import annotations

import asyncio
from typing import Generic, TypeVar

T = TypeVar("T")


class LatestSlot(Generic[T]):
    """One value; ``take`` waits until there is one that nobody has taken."""

    def __init__(self) -> None:
        self._value: T | None = None
        self._full = asyncio.Event()

    def put(self, value: T) -> None:
        """Replace whatever waits here."""
        self._value = value
        self._full.set()

    async def take(self) -> T:
        """Wait for a value and empty the slot."""
        await self._full.wait()
        self._full.clear()
        value = self._value
        assert value is not None
        self._value = None
        return value
