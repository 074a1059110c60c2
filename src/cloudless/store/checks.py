"""What every store refuses before it does anything: the same words from all three.

Called by each implementation with the request as it came; raises ``InvalidRequest`` or
``TooLarge`` and never looks at stored data. The bounds are in ``limits``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from cloudless.store.errors import InvalidRequest, TooLarge
from cloudless.store.limits import (
    MAX_KEY_BYTES,
    MAX_LEASE_TTL_S,
    MAX_TXN_BYTES,
    MAX_TXN_OPS,
    MAX_VALUE_BYTES,
    MIN_LEASE_TTL_S,
)
from cloudless.store.port import Compare, Delete, DeletePrefix, Get, Op, Put, Range, Target


def check_key(key: str) -> int:
    """Size of a key in bytes.

    Raises ``InvalidRequest`` for an empty one or one that is not Unicode text.
    """
    if not key:
        raise InvalidRequest("a key must not be empty")
    return check_prefix(key)


def check_prefix(prefix: str) -> int:
    """Size of a prefix in bytes; the empty one stands for all keys."""
    try:
        size_bytes = len(prefix) if prefix.isascii() else len(prefix.encode())
    except UnicodeEncodeError as error:
        raise InvalidRequest("a key must be Unicode text without lone surrogates") from error
    if size_bytes > MAX_KEY_BYTES:
        raise TooLarge(f"key of {size_bytes} bytes, at most {MAX_KEY_BYTES} are allowed")
    return size_bytes


def check_read(key_or_prefix: str, revision: int | None, *, start_after: str | None, limit: int) -> None:
    """Check what ``get`` and ``range`` were given; whether the revision exists is seen later."""
    check_prefix(key_or_prefix)
    if start_after is not None:
        check_prefix(start_after)
    if revision is not None and revision < 1:
        raise InvalidRequest(f"revision {revision} does not exist, the first is 1")
    if limit < 0:
        raise InvalidRequest(f"limit {limit} is negative")


def check_ttl(ttl_s: float) -> int:
    """The lifetime a lease gets: whole seconds, rounded up.

    >>> check_ttl(2.1)
    3
    """
    if not 0 < ttl_s <= MAX_LEASE_TTL_S:
        raise InvalidRequest(f"lease of {ttl_s} s, allowed is 0 < ttl_s <= {MAX_LEASE_TTL_S}")
    return max(math.ceil(ttl_s), MIN_LEASE_TTL_S)


def check_txn(compares: Sequence[Compare], then: Sequence[Op], otherwise: Sequence[Op]) -> None:
    """Check a whole transaction: numbers, sizes, and that no key is written twice."""
    for what, count in (("compares", len(compares)), ("then", len(then)), ("otherwise", len(otherwise))):
        if count > MAX_TXN_OPS:
            raise TooLarge(f"{count} {what} in one transaction, at most {MAX_TXN_OPS} are allowed")
    total_bytes = sum(_compare_bytes(compare) for compare in compares)
    for branch in (then, otherwise):
        total_bytes += sum(_op_bytes(op) for op in branch)
        if len(branch) > 1:
            _check_conflicts(branch)
    if total_bytes > MAX_TXN_BYTES:
        raise TooLarge(f"transaction of {total_bytes} bytes, at most {MAX_TXN_BYTES} are allowed")


def _compare_bytes(compare: Compare) -> int:
    is_value = compare.target is Target.VALUE
    if isinstance(compare.operand, bytes) != is_value:
        raise InvalidRequest(f"compare of {compare.target.value} with {type(compare.operand).__name__}")
    size_bytes = check_key(compare.key)
    return size_bytes + len(compare.operand) if isinstance(compare.operand, bytes) else size_bytes


def _op_bytes(op: Op) -> int:
    match op:
        case Put(key, value):
            if len(value) > MAX_VALUE_BYTES:
                raise TooLarge(f"value of {len(value)} bytes, at most {MAX_VALUE_BYTES} are allowed")
            return check_key(key) + len(value)
        case Delete(key) | Get(key):
            return check_key(key)
        case DeletePrefix(prefix):
            return check_prefix(prefix)
        case Range(prefix, limit):
            if limit < 0:
                raise InvalidRequest(f"limit {limit} is negative")
            return check_prefix(prefix)


def _check_conflicts(branch: Iterable[Op]) -> None:
    puts: set[str] = set()
    deletes: set[str] = set()
    prefixes: list[str] = []
    for op in branch:
        match op:
            case Put(key):
                if key in puts:
                    raise InvalidRequest(f"key {key!r} is put twice in one transaction")
                puts.add(key)
            case Delete(key):
                deletes.add(key)
            case DeletePrefix(prefix):
                prefixes.append(prefix)
            case _:
                pass
    both = puts & deletes or {key for key in puts if key.startswith(tuple(prefixes))}
    if both:
        raise InvalidRequest(f"key {min(both)!r} is put and deleted in one transaction")
