"""Requests with an idempotency key: the first answer is kept, a repetition gets it again.

The answer is written in the transaction of the change itself, so that there is never one
without the other. The same key with another request is refused.
"""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from typing import Any, NamedTuple, Protocol

from cloudless.coordinator.services.context import Context
from cloudless.coordinator.services.views import with_version
from cloudless.coordinator.state import keys
from cloudless.coordinator.state.records import RequestRecord
from cloudless.coordinator.state.typed import Batch
from cloudless.domain.errors import Invalid
from cloudless.wire.mirror import plain

_REQUEST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
#: Fields of a request that do not make it another request.
_NOT_COUNTED = frozenset({"request_id"})


class Mutation(Protocol):
    """The field that all changing requests have."""

    request_id: str


class Ticket(NamedTuple):
    """A request that may be a repetition."""

    method: str
    request_id: str
    request_hash: str


def ticket_of(method: str, request: Mutation) -> Ticket | None:
    """The ticket of a request; None without a ``request_id``. Raises ``Invalid``."""
    if not request.request_id:
        return None
    if _REQUEST_ID.fullmatch(request.request_id) is None:
        raise Invalid.field(
            "request_id", "must be at most 128 letters, digits, '.', '_', ':' or '-', for example a UUID"
        )
    return Ticket(method, request.request_id, _hash(method, request))


async def first_answer(context: Context, ticket: Ticket | None) -> bytes | None:
    """The encoded workload of the first answer; None for a new request.

    Raises ``Invalid`` when the key was used for another request.
    """
    if ticket is None:
        return None
    found = await context.typed.get(RequestRecord, keys.request(ticket.request_id))
    return None if found is None else answer_of(found[0], found[1], ticket)


def answer_of(record: RequestRecord, revision: int, ticket: Ticket) -> bytes:
    """The encoded workload in a record that was written at ``revision``."""
    if (record.method, record.request_hash) != (ticket.method, ticket.request_hash):
        raise Invalid.field(
            "request_id",
            f"was used at {record.at:%Y-%m-%d %H:%M:%S} UTC for another request ({record.method})",
            hint="use a new request_id for each request, and the same one only to repeat it unchanged",
        )
    return with_version(zlib.decompress(record.workload), record.resource_version or revision)


def keep_answer(
    batch: Batch, context: Context, ticket: Ticket, workload: bytes, resource_version: int
) -> None:
    """Add the answer to the transaction; ``resource_version`` 0 stands for its own revision."""
    key = keys.request(ticket.request_id)
    batch.expect(key, 0)
    batch.put(
        key,
        RequestRecord.model_construct(
            method=ticket.method,
            request_hash=ticket.request_hash,
            at=context.clock.now(),
            workload=zlib.compress(workload, 1),
            resource_version=resource_version,
        ),
    )


def _hash(method: str, request: Any) -> str:
    """The same for two requests that ask for the same, however their maps are ordered."""
    given = {name: value for name, value in plain(request).items() if name not in _NOT_COUNTED}
    text = json.dumps([method, given], sort_keys=True, default=_text)
    return hashlib.sha256(text.encode()).hexdigest()


def _text(value: Any) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)
