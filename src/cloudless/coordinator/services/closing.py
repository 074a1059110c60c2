"""How endless streams learn that the coordinator stops, so that they do not hold it up."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cloudless.domain.errors import Unavailable


class Closing:
    """Set once, by the coordinator's ``main``; every endless stream subscribes and checks."""

    def __init__(self) -> None:
        self._closing = False
        self._wakers: list[Callable[[], None]] = []

    def begin(self) -> None:
        """The coordinator stops: wake all streams."""
        self._closing = True
        for wake in tuple(self._wakers):
            wake()

    @contextmanager
    def waking(self, wake: Callable[[], None]) -> Iterator[None]:
        """Call ``wake`` when the coordinator stops, as long as the block lasts."""
        self._wakers.append(wake)
        try:
            yield
        finally:
            self._wakers.remove(wake)

    def check(self) -> None:
        """Raise ``Unavailable`` when the coordinator stops."""
        if self._closing:
            raise Unavailable("the coordinator is stopping", hint="connect again")
