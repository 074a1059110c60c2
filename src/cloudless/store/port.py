"""The port: what a store can do, as one protocol and its frozen values.

A store is a map from text keys to bytes with one history: every transaction that
changes something makes the next *revision*, and reads and watches can name one.
Three implementations pass the same contract suite: ``memory``, ``embedded``, ``etcd``;
``cloudless.store.url.open_store`` opens one from a URL. Keys are non-empty text without
lone surrogates, ordered by code point (which is the order of their UTF-8 bytes).
This room never knows what a key or a value means.
"""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol, TypeAlias


@dataclass(frozen=True, slots=True)
class KeyValue:
    """One version of one key; in a delete event ``version`` is 0 and ``value`` empty."""

    key: str
    value: bytes
    create_revision: int
    mod_revision: int
    version: int
    lease: int = 0


@dataclass(frozen=True, slots=True)
class Page:
    """Keys in order, as they were at ``revision``; ``more`` when the limit cut it short."""

    revision: int
    items: tuple[KeyValue, ...]
    more: bool = False


class Target(enum.Enum):
    """What a compare looks at."""

    MOD_REVISION = "mod_revision"
    CREATE_REVISION = "create_revision"
    VERSION = "version"
    VALUE = "value"


class Relation(enum.Enum):
    """How a compare looks at it."""

    EQUAL = "=="
    NOT_EQUAL = "!="
    LESS = "<"
    GREATER = ">"


@dataclass(frozen=True, slots=True)
class Compare:
    """``key.target relation operand``; an absent key has revisions and version 0.

    A compare of ``VALUE`` is false for an absent key, whatever the relation. The operand
    is ``bytes`` for ``VALUE`` and a number for the others.
    """

    key: str
    target: Target
    relation: Relation
    operand: int | bytes

    @classmethod
    def absent(cls, key: str) -> Compare:
        """The key does not exist."""
        return cls(key, Target.CREATE_REVISION, Relation.EQUAL, 0)

    @classmethod
    def present(cls, key: str) -> Compare:
        """The key exists."""
        return cls(key, Target.CREATE_REVISION, Relation.GREATER, 0)

    @classmethod
    def created_at(cls, key: str, revision: int) -> Compare:
        """The key exists without a break since it was created at ``revision``."""
        return cls(key, Target.CREATE_REVISION, Relation.EQUAL, revision)

    @classmethod
    def unchanged(cls, key: str, mod_revision: int) -> Compare:
        """Nobody wrote the key since ``mod_revision`` (0: it is still absent)."""
        return cls(key, Target.MOD_REVISION, Relation.EQUAL, mod_revision)


@dataclass(frozen=True, slots=True)
class Put:
    """Write a key; ``lease`` 0 detaches it from the lease it had. Answers ``None``."""

    key: str
    value: bytes
    lease: int = 0


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete one key. Answers how many were deleted, 0 or 1."""

    key: str


@dataclass(frozen=True, slots=True)
class DeletePrefix:
    """Delete every key that starts with ``prefix``. Answers how many."""

    prefix: str


@dataclass(frozen=True, slots=True)
class Get:
    """Read one key as the operations before it left it. Answers ``KeyValue | None``."""

    key: str


@dataclass(frozen=True, slots=True)
class Range:
    """Read the keys under a prefix as the operations before it left them.

    Answers a ``Page``, which carries the transaction's revision.
    """

    prefix: str
    limit: int = 0


Op: TypeAlias = Put | Delete | DeletePrefix | Get | Range
Response: TypeAlias = KeyValue | Page | int | None


@dataclass(frozen=True, slots=True)
class TxnResult:
    """What a transaction did; ``responses`` follow the operations of the branch taken.

    ``revision`` is the store's after the transaction: a new one if it changed anything.
    """

    succeeded: bool
    revision: int
    responses: tuple[Response, ...] = ()


class EventKind(enum.Enum):
    """What happened to a key."""

    PUT = "put"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """One change; a delete carries the key and its ``mod_revision``, nothing else."""

    kind: EventKind
    kv: KeyValue


@dataclass(frozen=True, slots=True)
class WatchBatch:
    """All events of one revision; without events a bookmark.

    A bookmark says: everything up to ``revision`` has been delivered. It may come at any
    time or never; a caller uses it to move its position on, not to wait for it.
    """

    revision: int
    events: tuple[WatchEvent, ...] = ()


@dataclass(frozen=True, slots=True)
class Lease:
    """A lease as granted; ``ttl_s`` may be more than what was asked for."""

    id: int
    ttl_s: int


@dataclass(frozen=True, slots=True)
class StoreStatus:
    """How the store is; ``alarm`` is empty or says what is wrong.

    ``identity`` names the data: it changes when the store was replaced by another one.
    """

    revision: int
    ready: bool
    size_bytes: int
    alarm: str = ""
    identity: str = ""


class Store(Protocol):
    """A map with history. Every method may raise ``Unavailable``.

    Writes are durable when they return. Nothing here retries a write whose outcome is
    unknown: that is the caller's decision.
    """

    @property
    def exclusive(self) -> bool:
        """True when nobody else can have this store open (the embedded one's lock).

        Whatever was last written at or before ``opened_revision`` then comes from a
        process that is gone; an election takes such a key over at once.
        """
        ...

    @property
    def opened_revision(self) -> int:
        """Revision at which this store was opened; 0 when it is not exclusive."""
        ...

    async def get(self, key: str, *, revision: int | None = None) -> KeyValue | None:
        """Read one key now, or as it was at ``revision``.

        Raises ``Compacted``; ``InvalidRequest`` for a revision of the future.
        """
        ...

    async def range(
        self, prefix: str, *, start_after: str | None = None, limit: int = 0, revision: int | None = None
    ) -> Page:
        """All keys that start with ``prefix`` (``""``: every key), in order.

        ``limit`` 0 means all. For the next page pass the last key as ``start_after`` and
        the first page's ``revision``. Raises ``Compacted``, ``InvalidRequest``.
        """
        ...

    async def txn(
        self, compares: Sequence[Compare], then: Sequence[Op], otherwise: Sequence[Op] = ()
    ) -> TxnResult:
        """If all compares hold do ``then``, else ``otherwise``: atomically, one revision.

        One branch may put a key once and not delete what it puts. Raises ``TooLarge``,
        ``NoSpace``, ``InvalidRequest``, and ``LeaseExpired`` for a put on an unknown lease.
        """
        ...

    def watch(
        self, prefix: str, *, start_revision: int
    ) -> AbstractAsyncContextManager[AsyncIterator[WatchBatch]]:
        """Every change under ``prefix`` since ``start_revision`` on, in order, exactly once.

        The usual start is the revision of a ``range`` plus one. The iterator has no end; it
        survives lost connections by itself. It raises ``Relist`` (``Compacted`` when
        ``start_revision`` is not newer than the oldest readable revision,
        ``WatchOverrun`` when the consumer was too slow, ``Rewound``). A slow consumer
        never slows writers. Iterating may raise ``Unavailable`` once the store is closed.
        """
        ...

    async def grant(self, ttl_s: float) -> Lease:
        """A new lease; whole seconds, rounded up. Raises ``NoSpace``, ``InvalidRequest``."""
        ...

    async def keep_alive(self, lease: Lease) -> None:
        """Give the lease its full time again. Raises ``LeaseExpired``."""
        ...

    async def revoke(self, lease: Lease) -> None:
        """End the lease and delete its keys in one revision. Raises ``LeaseExpired``."""
        ...

    async def compact(self, revision: int) -> None:
        """Forget what was superseded before ``revision``; reads at it still work.

        A revision that is compacted already is no error. Raises ``InvalidRequest`` for a
        revision of the future.
        """
        ...

    async def status(self) -> StoreStatus:
        """How the store is, within a short deadline; says ``ready=False`` instead of raising."""
        ...

    async def close(self) -> None:
        """End watches, wait for what is being written, give everything back; idempotent."""
        ...
