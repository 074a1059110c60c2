"""Records that only the coordinator keeps, beside those of the domain."""

from __future__ import annotations

import datetime

from pydantic import Base64Bytes

from cloudless.domain.model import Model


class ClusterRecord(Model):
    """Who this cluster is; written once. ``secret`` never leaves the store: page tokens are made with it."""

    id: str
    created_at: datetime.datetime
    secret: str = ""


class RequestRecord(Model):
    """The first answer to an idempotency key.

    ``method`` and ``request_hash`` tell a repetition from another request.
    ``workload`` is the encoded answer, compressed, without its resource version, which is
    ``resource_version``, or the revision of this very record when that is 0 (both were
    written in one transaction).
    """

    method: str
    request_hash: str
    at: datetime.datetime
    workload: Base64Bytes
    resource_version: int = 0
