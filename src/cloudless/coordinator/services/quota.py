"""How much of something dear one caller, and all callers together, may have at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from cloudless.domain.errors import Exhausted
from cloudless.transport.context import current_call


class Quota:
    """Counts what is open; ``what`` says in errors what that is, in the plural.

    >>> quota = Quota("connections", of_caller=1, in_all=9)
    >>> with quota.slot("10.0.0.1"), quota.slot("10.0.0.2"):
    ...     quota.open
    2
    >>> quota.open
    0
    """

    def __init__(self, what: str, *, of_caller: int, in_all: int) -> None:
        self._what = what
        self._of_caller = of_caller
        self._in_all = in_all
        self._counts: dict[str, int] = {}
        #: How many are open now.
        self.open = 0

    @contextmanager
    def slot(self, caller: str) -> Iterator[None]:
        """One more of ``caller`` while the block lasts; raises ``Exhausted``."""
        count = self._counts.get(caller, 0)
        if count >= self._of_caller:
            raise Exhausted(
                f"{self._of_caller} {self._what} from {caller or 'here'} are open already",
                hint="close some of them",
            )
        if self.open >= self._in_all:
            raise Exhausted(
                f"{self._in_all} {self._what} are open on this coordinator already",
                hint="try again when some have ended",
            )
        self._counts[caller] = count + 1
        self.open += 1
        try:
            yield
        finally:
            self.open -= 1
            left = self._counts[caller] - 1
            if left:
                self._counts[caller] = left
            else:
                del self._counts[caller]


def current_caller() -> str:
    """Who makes the present call: the host that it comes from; empty outside of a call.

    All connections of one host count together.
    """
    try:
        peer = current_call().peer
    except LookupError:
        return ""
    host, colon, port = peer.rpartition(":")
    return host if colon and port.isdigit() else peer
