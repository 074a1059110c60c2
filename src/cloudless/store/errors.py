"""What can go wrong in a store, sorted by what the caller must do about it.

``Unavailable``: try again later (and look first, if ``outcome_unknown``). ``Relist``
and its children: the place in history is gone, list again and watch from there.
``InvalidRequest`` and ``TooLarge``: a bug or an oversized object, never retried.
``NoSpace``: only deletes help. ``LeaseExpired``, ``Fenced``: stop acting at once.
``DataDirInUse``, ``Corrupted``, ``AccessDenied``: the operator has to look.
"""

from __future__ import annotations

from pathlib import Path


class StoreError(Exception):
    """Root of everything a store raises on purpose."""


class Unavailable(StoreError):
    """The store could not be asked, or did not answer in time.

    ``outcome_unknown`` is True when a write may have happened nevertheless: whoever
    repeats it must make sure that it has an effect only once.
    """

    def __init__(self, message: str, *, outcome_unknown: bool = False) -> None:
        super().__init__(message)
        self.outcome_unknown = outcome_unknown


class Relist(StoreError):
    """The asked place in history cannot be served: list again, watch from revision + 1."""


class Compacted(Relist):
    """The asked revision was compacted; ``oldest`` is the oldest that can be read."""

    def __init__(self, oldest: int) -> None:
        super().__init__(f"revision is compacted, the oldest is {oldest}")
        self.oldest = oldest


class WatchOverrun(Compacted):
    """A watcher was so slow that history moved past it."""


class Rewound(Relist):
    """The store is older than what it showed before (restored from a backup)."""

    def __init__(self, seen: int, current: int) -> None:
        super().__init__(f"store went back from revision {seen} to {current}")
        self.seen = seen
        self.current = current


class InvalidRequest(StoreError):
    """A request no store can serve: empty key, future revision, one key put twice."""


class TooLarge(StoreError):
    """A key, value or transaction is beyond the contract's limits."""


class NoSpace(StoreError):
    """The disk or the store's own quota is full; nothing of the request happened."""


class LeaseExpired(StoreError):
    """The lease does not exist, or not any more."""

    def __init__(self, lease_id: int) -> None:
        super().__init__(f"lease {lease_id:x} is expired or unknown")
        self.lease_id = lease_id


class Fenced(StoreError):
    """A write carried the fence of a leadership that is over; nothing happened."""


class AccessDenied(StoreError):
    """The store refused our credentials or our permission."""


class DataDirInUse(StoreError):
    """Another process holds the data directory; ``pid`` is 0 when it is not known."""

    def __init__(self, path: Path, pid: int) -> None:
        owner = f"process {pid}" if pid else "another process"
        super().__init__(f"{path} is in use by {owner}")
        self.path = path
        self.pid = pid


class Corrupted(StoreError):
    """The files of an embedded store are damaged; nothing was changed in them."""

    def __init__(self, path: Path, detail: str) -> None:
        super().__init__(f"{path} is damaged: {detail}")
        self.path = path
        self.detail = detail
