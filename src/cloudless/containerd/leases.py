"""Leases: what is made under one is not collected before it ends."""

from __future__ import annotations

import datetime
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from cloudless.api.containerd.services.leases.v1 import (
    AddResourceRequest,
    CreateRequest,
    DeleteRequest,
    LeasesStub,
    ListRequest,
    Resource,
)
from cloudless.containerd.errors import NotFound
from cloudless.containerd.rpc import Connection

#: containerd itself ends the lease at this time, so that a crash leaves nothing for ever.
EXPIRE_LABEL = "containerd.io/gc.expire"


class Leases:
    """Create, end and list."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stub = connection.stub(LeasesStub)

    @asynccontextmanager
    async def hold(self, lease_id: str, *, until: datetime.datetime) -> AsyncIterator[str]:
        """A lease for the length of the block, and no longer than ``until`` (aware)."""
        labels = {EXPIRE_LABEL: until.isoformat(timespec="seconds")}
        await self._connection.call(
            self._stub.create, CreateRequest(id=lease_id, labels=labels), about=f"create lease {lease_id}"
        )
        try:
            yield lease_id
        finally:
            await self.delete(lease_id)

    async def delete(self, lease_id: str) -> None:
        """End a lease; one that is gone is no error."""
        try:
            await self._connection.call(
                self._stub.delete, DeleteRequest(id=lease_id), about=f"delete lease {lease_id}"
            )
        except NotFound:
            return

    async def add_snapshot(self, lease_id: str, snapshotter: str, name: str) -> None:
        """Keep a snapshot that was there before the lease. Raises ``NotFound`` (the lease)."""
        resource = Resource(id=name, type=f"snapshots/{snapshotter}")
        await self._connection.call(
            self._stub.add_resource,
            AddResourceRequest(id=lease_id, resource=resource),
            about=f"add to lease {lease_id}",
        )

    async def list(self) -> tuple[str, ...]:
        """Ids of all leases of the namespace."""
        answer = await self._connection.call(self._stub.list, ListRequest(), about="list leases")
        return tuple(lease.id for lease in answer.leases)
