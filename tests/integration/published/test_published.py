"""Nobody notices what happens behind a published port: every failed request is counted."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable

import pytest
from tests.integration.published.conftest import ECHO, Site, until_rules
from tests.integration.published.load import ask, load

import cloudless
from cloudless import api
from cloudless.containerd.client import ContainerdClient

LIMIT_S = 60.0


def revisions(answers: dict[str, int]) -> set[str]:
    return {answer.split()[1] for answer in answers}


async def until(site: Site, fits: Callable[[list[api.ReplicaStatus]], bool]) -> None:
    """Wait for the replicas as the API shows them."""
    async with asyncio.timeout(LIMIT_S), site.client.watch(name="web") as changes:
        async for change in changes:
            if fits(change.workload.message.status.replicas):
                return


async def test_a_rolling_update_fails_no_request(site: Site) -> None:
    await site.deployed()
    async with load(site.port) as requests:
        for number in range(3):
            await site.client.update("web", env={"VERSION": str(number)})
            await site.client.wait("web", timeout_s=60)
            await requests.count_anew()
    assert requests.failures == []
    assert revisions(requests.answers) == {"4"}
    assert len(requests.answers) == 3, "all replicas answer"


@pytest.mark.parametrize(
    "rollout",
    [
        {"strategy": "BLUE_GREEN", "auto_promote": True, "scale_down_delay": "200ms"},
        {
            "strategy": "CANARY",
            "auto_promote": True,
            "steps": [{"weight": 30, "pause": {"duration": "300ms"}}],
            "max_unavailable": 0,
        },
    ],
    ids=["BLUE_GREEN", "CANARY"],
)
async def test_a_switch_of_revisions_fails_no_request(site: Site, rollout: dict[str, object]) -> None:
    await site.deployed(rollout=rollout)
    async with load(site.port) as requests:
        for number in range(2):
            await site.client.update("web", env={"VERSION": str(number)})
            await site.client.wait("web", timeout_s=60)
            await until(site, lambda all_: len(all_) == 3)
            await requests.until_more(50)
            await requests.count_anew()
    assert requests.failures == []
    assert revisions(requests.answers) == {"3"}


async def test_scaling_fails_no_request(site: Site) -> None:
    await site.deployed()
    async with load(site.port) as requests:
        for replicas in (1, 3, 2, 4):
            await site.client.scale("web", replicas)
            await site.client.wait("web", timeout_s=60)
            await requests.until_more(50)
    assert requests.failures == []


async def test_an_agent_that_is_killed_fails_no_request(site: Site) -> None:
    await site.deployed()
    async with load(site.port) as requests:
        for _ in range(3):
            await site.agent.kill(signal.SIGKILL)
            await requests.until_more(200)
            await site.agent.start()
            await requests.until_more(200)
            await site.client.wait("web", timeout_s=60)
    assert requests.failures == []
    assert len(requests.answers) == 3


async def test_only_requests_to_the_one_that_is_killed_fail(
    site: Site, containerd_client: ContainerdClient
) -> None:
    workload = await site.deployed()
    victim = workload.message.status.replicas[0]
    pid = (await containerd_client.tasks.get(victim.container_id)).pid
    async with load(site.port) as requests:
        before = requests.total
        os.kill(pid, signal.SIGKILL)
        await until(site, lambda all_: all(one.ready for one in all_) and any(one.restarts for one in all_))
        # It left the set when it died: what failed was on its way to it already. Had it stayed
        # there until it was back, every third request of that time would have failed.
        failed, meanwhile = len(requests.failures), requests.total - before
        assert failed < meanwhile / 5
        await requests.until_more(200)
        assert len(requests.failures) == failed
    assert len(requests.answers) == 3


async def test_with_nobody_ready_connections_are_refused_and_with_nobody_there_too(site: Site) -> None:
    await site.deployed(replicas=1)
    await site.client.scale("web", 0)
    await site.client.wait("web", timeout_s=60)
    with pytest.raises(ConnectionRefusedError):
        await ask(site.port)
    await until_rules(lambda listing: str(site.port) not in listing)


async def echoed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, line: bytes) -> bytes:
    writer.write(line)
    async with asyncio.timeout(LIMIT_S):
        return await reader.readline()


async def test_connections_that_last_get_their_time_and_no_more(site: Site) -> None:
    drain_s = 6.0
    await site.deployed(
        ECHO, replicas=2, rollout={"max_surge": 1, "max_unavailable": 0, "drain_time": f"{drain_s}s"}
    )
    loop = asyncio.get_running_loop()
    connections = [await asyncio.open_connection("127.0.0.1", site.port) for _ in range(4)]
    for reader, writer in connections:
        assert await echoed(reader, writer, b"before\n") == b"before\n"
    began = loop.time()
    await site.client.scale("web", 0)
    # For a moment the last probe's connection may be counted too.
    told = {"2 more than the 0 wanted; draining: 2 connections"}
    await until(site, lambda all_: {replica.message for replica in all_} == told)
    for reader, writer in connections:
        assert await echoed(reader, writer, b"during\n") == b"during\n"
    with pytest.raises(ConnectionRefusedError):
        await ask(site.port)
    for reader, writer in connections:
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        assert loop.time() - began >= drain_s
        writer.close()
    await site.client.wait("web", timeout_s=60)


async def test_a_replica_ends_as_soon_as_its_last_connection_does(site: Site) -> None:
    await site.deployed(ECHO, replicas=1, rollout={"drain_time": "1h", "progress_deadline": "2h"})
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    assert await echoed(reader, writer, b"before\n") == b"before\n"
    await site.client.scale("web", 0)
    await asyncio.sleep(1)
    assert await echoed(reader, writer, b"during\n") == b"during\n"
    writer.close()
    async with asyncio.timeout(LIMIT_S):
        while True:
            if not (await site.client.get("web")).message.status.replicas:
                break
            await asyncio.sleep(0.05)


async def test_two_workloads_cannot_publish_one_port(site: Site) -> None:
    await site.deployed(replicas=1)
    other = site.workload()
    taken = cloudless.Workload("other", spec=other.spec)
    with pytest.raises(cloudless.PreconditionFailed, match=r"spec\.ports\[0\]\.publish: .* default/web"):
        await site.client.create(taken)


async def test_a_port_that_a_process_of_the_host_has_is_not_taken_away(site: Site) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.0 200 OK\r\n\r\nthe host's own\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", site.port):
        await site.client.create(site.workload(replicas=1))
        await until(site, lambda all_: any("PortTaken" in one.message for one in all_))
        assert await ask(site.port) == "the host's own"
    await site.client.wait("web", timeout_s=60)
