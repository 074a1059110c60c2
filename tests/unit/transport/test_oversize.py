"""A request that is too large gets the server's reason, though it was never taken whole."""

from __future__ import annotations

import contextlib

import pytest

from cloudless import api
from cloudless.domain.errors import Exhausted
from cloudless.transport.channel import connect
from cloudless.transport.server import GuardedServer

MIB = 1024 * 1024


class Answering(api.CoordinatorServiceBase):
    async def get_workload(self, message: api.GetWorkloadRequest) -> api.GetWorkloadResponse:
        return api.GetWorkloadResponse()


@pytest.mark.parametrize("size_mib", [1, 2, 8])
async def test_the_limit_is_named_and_the_connection_lives(size_mib: int) -> None:
    async with GuardedServer([Answering()]) as server:
        channel = connect(f"127.0.0.1:{await server.listen('127.0.0.1', 0)}")
        async with contextlib.aclosing(channel):
            stub = api.CoordinatorServiceStub(channel)
            with pytest.raises(Exhausted, match="at most 1048576"):
                await stub.get_workload(api.GetWorkloadRequest(name="x" * (size_mib * MIB)))
            assert await stub.get_workload(api.GetWorkloadRequest(name="x")) is not None
