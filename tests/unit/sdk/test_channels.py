"""One client with more streams than a connection carries."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

import cloudless
from cloudless import api
from cloudless.domain.errors import Exhausted
from cloudless.sdk import channels
from cloudless.sdk.limits import MAX_FORWARDS, MAX_STREAM_CHANNELS, STREAMS_PER_CHANNEL
from cloudless.transport.limits import PUBLIC

#: More than the coordinator takes on one connection.
MANY = PUBLIC.concurrent_streams + 30


@pytest.fixture
async def web(client):
    """A workload with one replica."""
    return await client.apply(cloudless.Workload("web", image="nginx:1.27"))


async def open_all(stack, client, kind, count):
    async def one(_):
        if kind == "exec":
            program = await stack.enter_async_context(client.open_exec("web", ["cat"]))
            assert program.exec_id
        elif kind == "logs":
            lines = await stack.enter_async_context(client.logs("web", follow=True))
            await anext(lines.batches())
        elif kind == "watch":
            changes = await stack.enter_async_context(client.watch(name="web"))
            await anext(changes)
        else:
            await anext(await stack.enter_async_context(client.watch_events(since="1")))

    await asyncio.gather(*map(one, range(count)))


@pytest.mark.parametrize("kind", ["exec", "logs", "watch", "events"])
async def test_more_streams_than_one_connection_carries(fake, client, web, kind):
    fake.log(api.LogEntry(replica="web/0", line=b"x"))
    fake.happen(api.Event())
    async with asyncio.timeout(30), AsyncExitStack() as stack:
        await open_all(stack, client, kind, MANY)
        async with asyncio.timeout(2):
            assert (await client.get("web")).name == "web", "quick calls do not wait"
        assert len(client._call.streams._used) == -(-MANY // STREAMS_PER_CHANNEL)
    assert set(client._call.streams._used.values()) == {0}, "all of them are given back"


async def test_their_number_is_bounded(client, web, monkeypatch):
    monkeypatch.setattr(channels, "STREAMS_PER_CHANNEL", 2)
    monkeypatch.setattr(channels, "MAX_STREAM_CHANNELS", 2)
    async with asyncio.timeout(30), AsyncExitStack() as stack:
        await open_all(stack, client, "watch", 3)
        async with client.open_exec("web", ["cat"]):
            with pytest.raises(Exhausted, match="4 streams of this client"):
                await open_all(stack, client, "exec", 1)
            with pytest.raises(Exhausted, match="4 streams of this client"):
                await open_all(stack, client, "logs", 1)
        await client.exec("web", ["true"])


async def test_a_closed_client_opens_nothing_more(fake):
    async with cloudless.connect(fake.address) as client:
        streams = client._call.streams
    with pytest.raises(RuntimeError, match="the client is closed"), streams.lease():
        pass


def test_the_limits_fit():
    assert PUBLIC.concurrent_streams >= 2 * STREAMS_PER_CHANNEL, "half of it is for quick calls"
    assert MAX_STREAM_CHANNELS * STREAMS_PER_CHANNEL >= MAX_FORWARDS
    assert PUBLIC.connections_per_peer / 2 > MAX_STREAM_CHANNELS
