from __future__ import annotations

import asyncio
import contextlib
import datetime

import pytest
from fake_coordinator import NOW, FakeCoordinator

import cloudless
from cloudless import api


def entry(second: int, text: str, container: str = "c0") -> api.LogEntry:
    at = NOW + datetime.timedelta(seconds=second)
    return api.LogEntry(at=at, stream="stdout", line=text.encode(), replica="web/0", container_id=container)


async def take(stream, count: int) -> list[str]:
    async with asyncio.timeout(10):
        return [(await anext(stream)).text for _ in range(count)]


async def test_reads_to_the_end(client, fake):
    await client.create(cloudless.Workload("web", image="web:1"))
    fake.log(entry(0, "one"))
    fake.log(entry(1, "two"))
    async with client.logs("web", tail=5) as lines:
        assert [line.text async for line in lines] == ["one", "two"]
    assert fake.asked("logs")[0].tail_lines == 5


async def test_a_followed_log_goes_on_without_loss_or_repeat():
    fake = FakeCoordinator()
    async with contextlib.AsyncExitStack() as first:
        address = await first.enter_async_context(fake.serving())
        async with cloudless.connect(address) as client:
            await client.create(cloudless.Workload("web", image="web:1"))
            fake.log(entry(0, "one"))
            fake.log(entry(1, "two"))
            fake.log(entry(1, "two again, same time"))
            fake.log(entry(0, "other", container="c1"))
            async with client.logs("web", follow=True) as lines:
                assert await take(lines, 4) == ["one", "two", "two again, same time", "other"]
                await first.aclose()
                fake.log(entry(1, "three, same time"))
                fake.log(entry(2, "four", container="c1"))
                async with fake.serving(int(address.rpartition(":")[2])):
                    assert await take(lines, 2) == ["three, same time", "four"]


async def test_an_unknown_workload_is_an_error(client):
    async with client.logs("nothing") as lines:
        with pytest.raises(cloudless.NotFound):
            await anext(lines)
