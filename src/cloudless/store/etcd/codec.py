"""The port's values as etcd's messages, and back; pure.

A namespace (bytes) stands before every key on the way out and is taken off on the way in.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any, Final

from cloudless.store.etcd.stubs import rpc
from cloudless.store.port import (
    Compare,
    Delete,
    DeletePrefix,
    EventKind,
    Get,
    KeyValue,
    Op,
    Page,
    Put,
    Range,
    Relation,
    Response,
    Target,
    TxnResult,
    WatchBatch,
    WatchEvent,
)

#: As a range end this means "no end", as a key "the first of all".
ALL: Final = b"\0"

_RELATIONS: Final = {
    Relation.EQUAL: rpc.Compare.EQUAL,
    Relation.NOT_EQUAL: rpc.Compare.NOT_EQUAL,
    Relation.LESS: rpc.Compare.LESS,
    Relation.GREATER: rpc.Compare.GREATER,
}
_TARGETS: Final = {
    Target.MOD_REVISION: rpc.Compare.MOD,
    Target.CREATE_REVISION: rpc.Compare.CREATE,
    Target.VERSION: rpc.Compare.VERSION,
    Target.VALUE: rpc.Compare.VALUE,
}


def range_end(prefix: bytes) -> bytes:
    """The first key after all that start with ``prefix``.

    >>> range_end(b"ab"), range_end(b"a\\xff"), range_end(b"")
    (b'ac', b'b', b'\\x00')
    """
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes([stem[-1] + 1]) if stem else ALL


class Codec:
    """Messages of one namespace."""

    def __init__(self, namespace: bytes) -> None:
        self._namespace = namespace

    def key(self, key: str) -> bytes:
        """A key as etcd has it."""
        return self._namespace + key.encode()

    def span(self, prefix: str, start_after: str | None = None) -> tuple[bytes, bytes]:
        """First key and range end of everything under a prefix, after ``start_after``."""
        first = self.key(prefix)
        end = range_end(first)
        if start_after is not None:
            first = max(first, self.key(start_after) + b"\0")
        return first or ALL, end

    def key_value(self, message: Any) -> KeyValue:
        """One version of a key. Keys of others that are not UTF-8 keep their bytes as escapes."""
        return KeyValue(
            message.key[len(self._namespace) :].decode(errors="surrogateescape"),
            message.value,
            message.create_revision,
            message.mod_revision,
            message.version,
            message.lease,
        )

    def page(self, message: Any, revision: int) -> Page:
        """The answer to a range."""
        return Page(revision, tuple(map(self.key_value, message.kvs)), message.more)

    def txn(self, compares: Sequence[Compare], then: Sequence[Op], otherwise: Sequence[Op]) -> Any:
        """A transaction as a request."""
        return rpc.TxnRequest(
            compare=[self._compare(compare) for compare in compares],
            success=[self._op(op) for op in then],
            failure=[self._op(op) for op in otherwise],
        )

    def result(self, message: Any, then: Sequence[Op], otherwise: Sequence[Op]) -> TxnResult:
        """What a transaction answered; the request's branches say how to read it."""
        revision = message.header.revision
        branch = then if message.succeeded else otherwise
        responses = tuple(
            self._response(op, answer, revision) for op, answer in zip(branch, message.responses, strict=True)
        )
        return TxnResult(message.succeeded, revision, responses)

    def batches(self, events: Iterable[Any]) -> list[WatchBatch]:
        """Events in order, as one batch per revision."""
        return [
            WatchBatch(revision, tuple(map(self._event, group)))
            for revision, group in groupby(events, key=lambda event: event.kv.mod_revision)
        ]

    def _event(self, message: Any) -> WatchEvent:
        kv = self.key_value(message.kv)
        if message.type == rpc.Event.DELETE:
            return WatchEvent(EventKind.DELETE, KeyValue(kv.key, b"", 0, kv.mod_revision, 0))
        return WatchEvent(EventKind.PUT, kv)

    def _compare(self, compare: Compare) -> Any:
        return rpc.Compare(
            key=self.key(compare.key),
            target=_TARGETS[compare.target],
            result=_RELATIONS[compare.relation],
            **{compare.target.value: compare.operand},
        )

    def _op(self, op: Op) -> Any:
        match op:
            case Put(key, value, lease):
                put = rpc.PutRequest(key=self.key(key), value=value, lease=lease)
                return rpc.RequestOp(request_put=put)
            case Delete(key):
                return rpc.RequestOp(request_delete_range=rpc.DeleteRangeRequest(key=self.key(key)))
            case DeletePrefix(prefix):
                first, end = self.span(prefix)
                delete = rpc.DeleteRangeRequest(key=first, range_end=end)
                return rpc.RequestOp(request_delete_range=delete)
            case Get(key):
                return rpc.RequestOp(request_range=rpc.RangeRequest(key=self.key(key)))
            case Range(prefix, limit):
                first, end = self.span(prefix)
                return rpc.RequestOp(request_range=rpc.RangeRequest(key=first, range_end=end, limit=limit))

    def _response(self, op: Op, answer: Any, revision: int) -> Response:
        match op:
            case Put():
                return None
            case Delete() | DeletePrefix():
                return int(answer.response_delete_range.deleted)
            case Get():
                found = answer.response_range.kvs
                return self.key_value(found[0]) if found else None
            case Range():
                return self.page(answer.response_range, revision)
