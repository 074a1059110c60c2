"""Places for something dear on this node: so many in all, and so many for one caller."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from cloudless.domain.errors import Exhausted


class Places:
    """Counts what is taken; ``what`` says in errors what that is: "5 <what> already".

    >>> places = Places(2, "programs run on this node", of_caller=1)
    >>> with places.place("10.0.0.1"), places.place("10.0.0.2"):
    ...     places.taken
    2
    >>> places.taken
    0
    """

    def __init__(self, limit: int, what: str, *, of_caller: int | None = None) -> None:
        self.limit = limit
        self.of_caller = limit if of_caller is None else of_caller
        self._what = what
        self._counts: Counter[str] = Counter()

    @property
    def taken(self) -> int:
        """How many are taken now."""
        return self._counts.total()

    def take(self, caller: str = "") -> None:
        """One more of ``caller``, to be given back; raises ``Exhausted``."""
        if self.of_caller < self.limit and self._counts[caller] >= self.of_caller:
            raise Exhausted(
                f"{self.of_caller} {self._what} already for {caller or 'one caller'}",
                hint="end some of them first",
            )
        if self.taken >= self.limit:
            raise Exhausted(f"{self.limit} {self._what} already", hint="try again when some have ended")
        self._counts[caller] += 1

    def add(self, caller: str = "") -> None:
        """One more that is there already, whatever the limit."""
        self._counts[caller] += 1

    def give_back(self, caller: str = "") -> None:
        """One fewer of ``caller``."""
        self._counts[caller] -= 1
        if not self._counts[caller]:
            del self._counts[caller]

    @contextmanager
    def place(self, caller: str = "") -> Iterator[None]:
        """One more while the block lasts; raises ``Exhausted``."""
        self.take(caller)
        try:
            yield
        finally:
            self.give_back(caller)
