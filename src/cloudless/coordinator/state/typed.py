"""Typed reads and transactions on the store, and the store's errors as the domain's.

Services, control and links write through here; each write is one ``Batch`` and so one
transaction. Nothing here retries: whoever writes knows what a repetition would do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from cloudless.aio.clock import Clock
from cloudless.coordinator.state import keys
from cloudless.coordinator.state.codec import Codec
from cloudless.domain.errors import (
    CloudlessError,
    Conflict,
    Exhausted,
    Fatal,
    Invalid,
    OutOfRange,
    Unavailable,
)
from cloudless.domain.model import Model
from cloudless.store import errors as store_errors
from cloudless.store.port import Compare, Delete, DeletePrefix, Get, KeyValue, Op, Page, Put, Store, TxnResult

M = TypeVar("M", bound=Model)

#: Told how long each call of the store took: operation, seconds.
Observe = Callable[[str, float], None]


class OutcomeUnknown(Unavailable):
    """A write may have happened or not; a repetition with the same request_id is safe."""

    code = "CL-5031"


class DataDirTaken(Fatal):
    """Another process uses the data directory."""

    code = "CL-1005"


class StoreDamaged(Fatal):
    """The files of the embedded store are damaged; nothing was changed in them."""

    code = "CL-5003"


def domain_error(error: store_errors.StoreError) -> CloudlessError:
    """The domain error that says the same."""
    text = str(error)
    if isinstance(error, store_errors.Unavailable):
        kind = OutcomeUnknown if error.outcome_unknown else Unavailable
        return kind(f"the store does not answer: {text}", hint="try again; the coordinator goes on by itself")
    if isinstance(error, store_errors.NoSpace):
        return Exhausted(f"the store is full: {text}", hint="delete what is not needed, or give it more disk")
    if isinstance(error, store_errors.TooLarge):
        return Invalid(f"the object is too large for the store: {text}")
    if isinstance(error, store_errors.Relist):
        return OutOfRange(f"that version is no longer kept: {text}", hint="list again")
    if isinstance(error, store_errors.Fenced | store_errors.LeaseExpired):
        return Conflict(f"this coordinator leads no longer: {text}")
    if isinstance(error, store_errors.DataDirInUse):
        return DataDirTaken(text, hint="stop the other process, or choose another --data-dir")
    if isinstance(error, store_errors.Corrupted):
        return StoreDamaged(text, hint="restore the directory from a backup")
    if isinstance(error, store_errors.AccessDenied):
        return Fatal(f"the store refuses this coordinator: {text}", hint="check user, password, certificate")
    return Fatal(f"the store failed: {text}")


@contextmanager
def domain_errors() -> Iterator[None]:
    """Turn the store's errors into the domain's."""
    try:
        yield
    except store_errors.StoreError as error:
        raise domain_error(error) from error


class Batch:
    """One transaction in the making: compares, writes, and keys to read if a compare fails."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self.compares: list[Compare] = []
        self.ops: list[Op] = []
        self.otherwise: list[Op] = []
        self.size_bytes = 0

    def expect(self, key: str, mod_revision: int) -> None:
        """Only if nobody wrote ``key`` since ``mod_revision`` (0: it does not exist)."""
        self.compares.append(Compare.unchanged(key, mod_revision))

    def require(self, compares: Sequence[Compare]) -> None:
        """Only if these hold too (the fence of a leader)."""
        self.compares.extend(compares)

    def put(self, key: str, model: Model) -> None:
        """Write a record."""
        value = self._codec.encode(model)
        self.size_bytes += len(key) + len(value)
        self.ops.append(Put(key, value))

    def delete(self, key: str) -> None:
        """Delete a key; one that is gone already is no error."""
        self.ops.append(Delete(key))

    def delete_below(self, prefix: str) -> None:
        """Delete all keys under a prefix."""
        self.ops.append(DeletePrefix(prefix))

    def else_read(self, key: str) -> None:
        """If a compare fails, answer what is at ``key``."""
        self.otherwise.append(Get(key))

    def __len__(self) -> int:
        return len(self.ops)


class TypedStore:
    """The store as the rest of the coordinator sees it."""

    def __init__(self, store: Store, codec: Codec, clock: Clock, observe: Observe) -> None:
        self.store = store
        self.codec = codec
        self._clock = clock
        self._observe = observe

    def batch(self) -> Batch:
        """An empty transaction."""
        return Batch(self.codec)

    async def commit(self, batch: Batch) -> TxnResult:
        """Do a transaction; raises ``OutcomeUnknown``, ``Unavailable``, ``Exhausted``, ``Invalid``."""
        with domain_errors(), self._timed("txn"):
            return await self.store.txn(batch.compares, batch.ops, batch.otherwise)

    async def get(self, model: type[M], key: str) -> tuple[M, int] | None:
        """A record and the revision that wrote it last; None when there is none."""
        kv = await self.get_raw(key)
        return None if kv is None else self.read(model, kv)

    async def get_raw(self, key: str) -> KeyValue | None:
        """A key as it is stored."""
        with domain_errors(), self._timed("get"):
            return await self.store.get(key)

    def read(self, model: type[M], kv: KeyValue) -> tuple[M, int]:
        """The record in a key that was read."""
        parsed = keys.parse(kv.key)
        assert parsed is not None
        found = self.codec.decode(parsed.kind, kv.key, kv.value)
        assert isinstance(found, model)
        return found, kv.mod_revision

    async def range(
        self, prefix: str, *, start_after: str | None = None, limit: int = 0, revision: int | None = None
    ) -> Page:
        """Keys under a prefix; raises ``OutOfRange`` when the revision is no longer kept."""
        with domain_errors(), self._timed("range"):
            return await self.store.range(prefix, start_after=start_after, limit=limit, revision=revision)

    @contextmanager
    def _timed(self, operation: str) -> Iterator[None]:
        started_s = self._clock.monotonic()
        try:
            yield
        finally:
            self._observe(operation, self._clock.monotonic() - started_s)
