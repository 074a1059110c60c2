"""The contract of a store, on a real etcd: alone on it, and in a namespace beside others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from tests.integration.store.etcd_server import EtcdServer
from tests.unit.store.contract import StoreContract
from tests.unit.store.subject import Subject
from tests.unit.store.watch_contract import WatchContract

from cloudless.aio.clock import SystemClock
from cloudless.store.port import Put
from cloudless.store.url import open_store


@pytest.fixture(params=["", "/space"])
async def subject(request: pytest.FixtureRequest, server: EtcdServer) -> AsyncIterator[Subject]:
    clock = SystemClock()
    if request.param:
        async with open_store(f"etcd://{server.address}", clock, new_id=str) as everything:
            await everything.txn((), [Put(key, b"") for key in ("/", "/space", "/space0", "0", "k")])
    async with open_store(f"etcd://{server.address}{request.param}", clock, new_id=str) as store:
        yield Subject(store, asyncio.sleep)


class TestStore(StoreContract):
    pass


class TestWatch(WatchContract):
    pass
