"""Rollouts on real parts: the program as its own process, containers, traffic from outside."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import pytest
from tests.integration.program.conftest import IMAGE, image_archive, serve, serve_all
from tests.integration.program.served import Result, Served
from tests.integration.published.conftest import WEB
from tests.integration.rollouts.observer import Observer
from tests.ports import free_ports

import cloudless
from cloudless import api

__all__ = ["image_archive", "serve", "serve_all"]
LIMIT_S = 60.0


@dataclass
class Stage:
    """``port`` is free on this host, for a workload to publish."""

    served: Served
    client: cloudless.Client
    port: int

    def fields(self, script: str = WEB, **changes: Any) -> dict[str, Any]:
        """A specification: four replicas that answer with who they are."""
        return {
            "image": IMAGE,
            "command": ["sh", "-c", script],
            "replicas": 4,
            "ports": [{"container_port": 8080, "publish": self.port}],
            "readiness_probe": {"tcp": {"port": 8080}, "period": "100ms"},
            "restart_policy": {"backoff": {"base": "100ms"}},
            "stop_grace_period": "5s",
            **changes,
        }

    async def deployed(self, script: str = WEB, **changes: Any) -> cloudless.Workload:
        """The first revision, available."""
        wanted = cloudless.Workload("web", **self.fields(script, **changes))
        workload = await self.client.follow(await self.client.apply(wanted))
        # A replica is told to be ready a moment before connections are led to it.
        await Observer(self.served, self.port).until_led_to(len(workload.status.replicas))
        return workload

    async def updated(self, **fields: Any) -> cloudless.Workload:
        """A change that is asked for; nobody waits."""
        return await self.client.update("web", **fields)

    async def until(self, phase: str, **fits: Any) -> api.RolloutStatus:
        """Wait until the rollout is in a phase, and its status has these values."""
        async with asyncio.timeout(LIMIT_S), self.client.watch(name="web") as changes:
            async for change in changes:
                status = change.workload.message.status
                rollout = status.rollout if status is not None else None
                if rollout is None or rollout.pending or rollout.phase.name != phase:
                    continue
                if all(getattr(rollout, name) == value for name, value in fits.items()):
                    return rollout
        raise AssertionError("a watch never ends by itself")

    async def until_settled(self) -> None:
        """Wait until no replica is on its way to somewhere; asked again, as time alone is no change."""
        async with asyncio.timeout(LIMIT_S):
            while not all(one.available for one in (await self.client.get("web")).status.replicas):
                await asyncio.sleep(0.02)

    async def apply(
        self, script: str = WEB, code: int | None = 0, flags: tuple[str, ...] = (), **changes: Any
    ) -> Result:
        """``cloudless apply`` of such a specification, to its end."""
        manifest = {"kind": "Workload", "name": "web", **self.fields(script, **changes)}
        return await self.cli("apply", "-f", "-", *flags, stdin=json.dumps(manifest), code=code)

    async def status(self) -> api.RolloutStatus:
        """The rollout as it is told now."""
        return (await self.client.get("web")).status.rollout or api.RolloutStatus()

    async def cli(self, *words: str, code: int | None = 0, **options: Any) -> Result:
        """A command line, without holding up what else runs here."""
        return await asyncio.to_thread(self.served.cli, *words, code=code, **options)


@pytest.fixture(scope="session")
def program(serve_all: Callable[..., Served]) -> Served:
    """The shared one."""
    return serve_all(name="rollouts")


@pytest.fixture(scope="module")
def mortal(serve: Callable[..., Served]) -> Served:
    """One that tests may kill."""
    return serve(name="mortal")


async def _stage(served: Served) -> AsyncIterator[Stage]:
    async with served.client() as client:
        yield Stage(served, client, free_ports(1)[0])
        for workload in await client.list():
            await client.follow(await client.delete(workload.name, grace_s=0), "deleted")


@pytest.fixture
async def stage(program: Served) -> AsyncIterator[Stage]:
    """The shared program; workloads that a test made are gone after it."""
    async for made in _stage(program):
        yield made


@pytest.fixture
async def mortal_stage(mortal: Served) -> AsyncIterator[Stage]:
    """The same, of the program that may be killed."""
    async for made in _stage(mortal):
        yield made
