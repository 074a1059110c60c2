"""A coordinator that really listens, on a durable store, with a node that really dials it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from tests.unit.coordinator.fakeagent import FakeAgent

from cloudless import api
from cloudless.aio.clock import SystemClock
from cloudless.aio.ids import random_id
from cloudless.coordinator.config import CoordinatorConfig
from cloudless.coordinator.main import Serving, coordinator
from cloudless.transport.channel import GuardedChannel, connect
from cloudless.transport.link import Link, dial_link
from cloudless.transport.server import GuardedServer


class Served(api.AgentServiceBase):
    """The fake agent behind a real server."""

    def __init__(self, agent: FakeAgent) -> None:
        self.agent = agent

    async def synchronize(self, messages):  # type: ignore[no-untyped-def]
        async for response in self.agent.synchronize(messages):
            yield response

    async def exec_command(self, message: api.ExecCommandRequest) -> api.ExecCommandResponse:
        return await self.agent.exec_command(message)

    async def read_logs(self, message: api.ReadLogsRequest) -> AsyncIterator[api.LogBatch]:
        async for batch in self.agent.read_logs(message):
            yield batch


class Site:
    """One data directory; coordinators come and go on it."""

    def __init__(self, data_dir: Path, stack: AsyncExitStack) -> None:
        self.data_dir = data_dir
        self.stack = stack

    def config(self, **fields: object) -> CoordinatorConfig:
        fields = {"api_address": "127.0.0.1:0", "http_address": "127.0.0.1:0", **fields}
        return CoordinatorConfig(data_dir=self.data_dir, **fields)  # type: ignore[arg-type]

    @asynccontextmanager
    async def serving(self, **fields: object) -> AsyncIterator[Serving]:
        async with coordinator(self.config(**fields), SystemClock(), new_id=random_id) as serving:
            await serving.coordinator.seat.wait_leading()
            yield serving

    @asynccontextmanager
    async def node(self, serving: Serving, agent: FakeAgent) -> AsyncIterator[list[Link]]:
        async with GuardedServer([Served(agent)], name="node") as server:
            links = [
                await dial_link("127.0.0.1", serving.api_port, agent.hello(kind), server)
                for kind in ("control", "bulk")
            ]
            yield links
            for link in links:
                await link.close()


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with AsyncExitStack() as stack:
        yield Site(tmp_path / "data", stack)


@asynccontextmanager
async def client(serving: Serving) -> AsyncIterator[api.CoordinatorServiceStub]:
    channel: GuardedChannel = connect(f"127.0.0.1:{serving.api_port}")
    try:
        yield api.CoordinatorServiceStub(channel)
    finally:
        channel.close()
