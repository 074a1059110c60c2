"""A whole cluster of one node: a coordinator here, an agent as a process, real containers."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.integration.agent.conftest import AgentProcess
from tests.integration.conftest import BUSYBOX_IMAGE, RunningContainerd
from tests.ports import free_port

import cloudless
from cloudless.agent.config import AgentConfig
from cloudless.agent.traffic.rules import parse
from cloudless.aio.clock import SystemClock
from cloudless.aio.ids import random_id
from cloudless.containerd.client import ContainerdClient
from cloudless.coordinator.config import CoordinatorConfig
from cloudless.coordinator.main import coordinator

LIMIT_S = 60.0
#: Says which replica and revision it is; ends on SIGTERM when its last request is answered.
WEB = """
mkdir -p /tmp/www
echo "$CLOUDLESS_REPLICA_ID $CLOUDLESS_REVISION" >/tmp/www/index.html
stop() { kill $server; while pidof httpd >/dev/null; do sleep 0.02; done; exit 0; }
trap stop TERM
httpd -f -p 8080 -h /tmp/www &
server=$!
wait $server
"""
#: Gives back each line for as long as the client stays.
ECHO = """
trap 'exit 0' TERM
nc -ll -p 8080 -e cat &
wait
"""


@dataclass
class Site:
    """``port`` is free on this host, for a workload to publish."""

    client: cloudless.Client
    agent: AgentProcess
    port: int

    def workload(self, script: str = WEB, **changes: Any) -> cloudless.Workload:
        fields: dict[str, Any] = {
            "image": BUSYBOX_IMAGE,
            "image_pull_policy": "NEVER",
            "command": ["sh", "-c", script],
            "replicas": 3,
            "ports": [{"container_port": 8080, "publish": self.port}],
            "readiness_probe": {"tcp": {"port": 8080}, "period": "100ms"},
            "rollout": {"max_surge": 1, "max_unavailable": 0},
            "restart_policy": {"backoff": {"base": "0s"}},
            "stop_grace_period": "5s",
        }
        return cloudless.Workload("web", **(fields | changes))

    async def deployed(self, script: str = WEB, **changes: Any) -> cloudless.Workload:
        await self.client.create(self.workload(script, **changes))
        workload = await self.client.wait("web", timeout_s=60)
        # A replica is told to be ready a moment before connections are led to it.
        count = len(workload.message.status.replicas)
        await until_rules(lambda listing: len(led_to(self.port, listing)) == count)
        return workload


@pytest.fixture
async def site(
    containerd_daemon: RunningContainerd, containerd_client: ContainerdClient, tmp_path: Path
) -> AsyncIterator[Site]:
    """At the end everything is deleted, and nothing may be left."""
    settings = CoordinatorConfig(
        data_dir=tmp_path / "coordinator", api_address="127.0.0.1:0", http_address="127.0.0.1:0"
    )
    port = free_port()
    async with coordinator(settings, SystemClock(), new_id=random_id) as serving:
        await serving.coordinator.seat.wait_leading()
        address = f"127.0.0.1:{serving.api_port}"
        (tmp_path / "data").mkdir()
        agent = AgentProcess(
            AgentConfig(
                data_dir=tmp_path / "data",
                node_name="node-1",
                coordinator_address=address,
                agent_address="127.0.0.1:0",
                containerd=str(containerd_daemon.socket),
            )
        )
        await agent.start()
        try:
            async with cloudless.connect(address) as client:
                async with asyncio.timeout(30):
                    while not any(node.phase == "READY" for node in await client.nodes()):
                        await asyncio.sleep(0.02)
                yield Site(client, agent, port)
                for workload in await client.list():
                    await client.delete(workload.name, grace_s=0)
                    await client.wait(workload.name, "deleted", timeout_s=60)
                # They go a moment after what they led to; an agent that ends changes none any more.
                await until_rules(lambda listing: str(port) not in listing)
        finally:
            await agent.kill(signal.SIGTERM)
    assert [one.id for one in await containerd_client.containers.list() if one.id.startswith("cl-")] == []
    assert str(port) not in await rules()


async def rules() -> str:
    """All rules of this host."""
    for last in (False, False, False, True):  # the kernel may be too busy to tell
        process = await asyncio.create_subprocess_exec(
            "nft", "list", "ruleset", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        listing, complaint = await process.communicate()
        if process.returncode == 0:
            break
        assert not last, complaint.decode()
    return listing.decode()


async def until_rules(fits: Callable[[str], bool]) -> None:
    """Wait until the rules of this host are so."""
    async with asyncio.timeout(LIMIT_S):
        while not fits(await rules()):
            await asyncio.sleep(0.05)


def led_to(port: int, listing: str) -> set[str]:
    """Addresses to which new connections to a published port are led."""
    return {one.address for point, all_ in parse(listing).items() if point.port == port for one in all_}
