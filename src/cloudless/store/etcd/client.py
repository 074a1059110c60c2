"""The port on an etcd cluster.

Opened by ``url.open_store``. Checks requests with the same words as the other stores, then
calls through ``connection``. Pages of a long list are fetched at one revision.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from cloudless.aio.clock import Clock
from cloudless.aio.supervise import Supervisor
from cloudless.store.checks import check_key, check_read, check_ttl, check_txn
from cloudless.store.errors import Compacted, InvalidRequest, LeaseExpired, StoreError, TooLarge, Unavailable
from cloudless.store.etcd.codec import Codec
from cloudless.store.etcd.connection import Connection, Credentials, Endpoint
from cloudless.store.etcd.stubs import EOF, rpc
from cloudless.store.etcd.watch import EtcdWatch
from cloudless.store.limits import ATTEMPT_TIMEOUT_S, PAGE_KEYS
from cloudless.store.port import Compare, KeyValue, Lease, Op, Page, StoreStatus, TxnResult, WatchBatch


class EtcdStore:
    """Implements ``Store``; open it with ``open_etcd``."""

    exclusive = False
    opened_revision = 0

    def __init__(self, connection: Connection, codec: Codec, clock: Clock) -> None:
        self._connection = connection
        self._codec = codec
        self._clock = clock
        self._watches: set[EtcdWatch] = set()
        self._revision = 0  # the newest one seen, for a status without an answer
        self._identity = ""

    async def get(self, key: str, *, revision: int | None = None) -> KeyValue | None:
        check_key(key)
        check_read(key, revision, start_after=None, limit=0)
        answer = await self._range(rpc.RangeRequest(key=self._codec.key(key), revision=revision or 0))
        return self._codec.key_value(answer.kvs[0]) if answer.kvs else None

    async def range(
        self, prefix: str, *, start_after: str | None = None, limit: int = 0, revision: int | None = None
    ) -> Page:
        check_read(prefix, revision, start_after=start_after, limit=limit)
        first, end = self._codec.span(prefix, start_after)
        if end != b"\0" and first >= end:
            answer = await self._range(
                rpc.RangeRequest(key=first, revision=revision or 0, limit=1, keys_only=True)
            )
            return Page(revision or answer.header.revision, ())
        items: list[KeyValue] = []
        page_keys = PAGE_KEYS
        while True:
            wanted = min(page_keys, limit - len(items)) if limit else page_keys
            request = rpc.RangeRequest(key=first, range_end=end, limit=wanted, revision=revision or 0)
            try:
                answer = await self._range(request)
            except TooLarge:
                if wanted == 1:
                    raise
                page_keys = max(wanted // 8, 1)  # big values: fewer of them in one message
                continue
            revision = revision or answer.header.revision
            items += map(self._codec.key_value, answer.kvs)
            if not answer.more or len(items) == limit:
                return Page(revision, tuple(items), answer.more)
            first = answer.kvs[-1].key + b"\0"

    async def txn(
        self, compares: Sequence[Compare], then: Sequence[Op], otherwise: Sequence[Op] = ()
    ) -> TxnResult:
        check_txn(compares, then, otherwise)
        request = self._codec.txn(compares, then, otherwise)
        answer = await self._connection.call(
            lambda endpoint, metadata, timeout_s: endpoint.kv.Txn(
                request, metadata=metadata, timeout=timeout_s
            ),
            repeatable=False,
        )
        self._note(answer.header)
        return self._codec.result(answer, then, otherwise)

    @asynccontextmanager
    async def watch(self, prefix: str, *, start_revision: int) -> AsyncIterator[AsyncIterator[WatchBatch]]:
        check_read(prefix, start_revision, start_after=None, limit=0)
        watch = EtcdWatch(self._connection, self._codec, self._clock, prefix, start_revision)
        self._watches.add(watch)
        try:
            async with Supervisor("etcd-watch") as tasks:
                tasks.start("run", watch.run())
                yield watch
        finally:
            self._watches.discard(watch)

    async def grant(self, ttl_s: float) -> Lease:
        request = rpc.LeaseGrantRequest(TTL=check_ttl(ttl_s))
        answer = await self._connection.call(
            lambda endpoint, metadata, timeout_s: endpoint.lease.LeaseGrant(
                request, metadata=metadata, timeout=timeout_s
            ),
            repeatable=True,  # a lease nobody knows of ends by itself
        )
        return Lease(answer.ID, answer.TTL)

    async def keep_alive(self, lease: Lease) -> None:
        request = rpc.LeaseKeepAliveRequest(ID=lease.id)

        async def attempt(endpoint: Endpoint, metadata: Any, timeout_s: float) -> Any:
            stream = endpoint.lease.LeaseKeepAlive(metadata=metadata, timeout=timeout_s)
            try:
                await stream.write(request)
                answer = await stream.read()
            finally:
                stream.cancel()
            if answer is EOF:
                raise TimeoutError("the stream ended")
            return answer

        answer = await self._connection.call(attempt, repeatable=True)
        if answer.TTL <= 0:
            raise LeaseExpired(lease.id)

    async def revoke(self, lease: Lease) -> None:
        request = rpc.LeaseRevokeRequest(ID=lease.id)
        tries = 0

        async def attempt(endpoint: Endpoint, metadata: Any, timeout_s: float) -> Any:
            nonlocal tries
            tries += 1
            return await endpoint.lease.LeaseRevoke(request, metadata=metadata, timeout=timeout_s)

        try:
            answer = await self._connection.call(attempt, repeatable=True)
        except LeaseExpired:
            if tries == 1:
                raise LeaseExpired(lease.id) from None
        else:
            self._note(answer.header)

    async def compact(self, revision: int) -> None:
        if revision < 1:
            raise InvalidRequest(f"revision {revision} does not exist, the first is 1")
        request = rpc.CompactionRequest(revision=revision)
        try:
            await self._connection.call(
                lambda endpoint, metadata, timeout_s: endpoint.kv.Compact(
                    request, metadata=metadata, timeout=timeout_s
                ),
                repeatable=True,
            )
        except Compacted:
            return  # somebody did it already

    async def status(self) -> StoreStatus:
        try:
            answer, alarms = await self._connection.call(
                _ask_status, repeatable=True, timeout_s=ATTEMPT_TIMEOUT_S
            )
        except StoreError as error:
            return StoreStatus(self._revision, False, 0, str(error), self._identity)
        self._note(answer.header)
        alarm = ", ".join(sorted({rpc.AlarmType.Name(one.alarm) for one in alarms.alarms}))
        ready = bool(answer.leader)
        return StoreStatus(
            self._revision, ready, answer.dbSize, alarm or ", ".join(answer.errors), self._identity
        )

    async def close(self) -> None:
        for watch in self._watches:
            watch.end(Unavailable("the store is closed"))
        await self._connection.close()

    async def _range(self, request: Any) -> Any:
        try:
            answer = await self._connection.call(
                lambda endpoint, metadata, timeout_s: endpoint.kv.Range(
                    request, metadata=metadata, timeout=timeout_s
                ),
                repeatable=True,
            )
        except Compacted:
            # etcd does not say which revision it has; the asked one is certainly gone.
            raise Compacted(request.revision + 1) from None
        self._note(answer.header)
        return answer

    def _note(self, header: Any) -> None:
        self._revision = max(self._revision, header.revision)
        self._identity = f"{header.cluster_id:x}"


async def _ask_status(endpoint: Endpoint, metadata: Any, timeout_s: float) -> tuple[Any, Any]:
    request = rpc.AlarmRequest(action=rpc.AlarmRequest.GET)
    status = await endpoint.maintenance.Status(rpc.StatusRequest(), metadata=metadata, timeout=timeout_s)
    return status, await endpoint.maintenance.Alarm(request, metadata=metadata, timeout=timeout_s)


@asynccontextmanager
async def open_etcd(
    addresses: Sequence[str], credentials: Credentials, clock: Clock, *, namespace: str = ""
) -> AsyncIterator[EtcdStore]:
    """A store on the cluster at ``addresses`` (host:port), open as long as the block.

    Connects when it is first used, so a cluster that is down is no error here.
    """
    connection = Connection(addresses, credentials, clock)
    store = EtcdStore(connection, Codec(namespace.encode()), clock)
    try:
        yield store
    finally:
        await store.close()
