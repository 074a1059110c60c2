"""Whole coordinators in virtual time: hours pass in milliseconds, and nothing is timed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

import async_solipsism
import pytest
from tests.unit.coordinator.world import World, open_world

from cloudless.coordinator import health


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"virtual": async_solipsism.EventLoop}


@pytest.fixture(autouse=True)
def rare_lag(monkeypatch: pytest.MonkeyPatch) -> None:
    """Virtual days have too many half seconds to measure the loop's lag in each."""
    monkeypatch.setattr(health, "LAG_INTERVAL_S", 60.0)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """One coordinator on a memory store, leading, and one ready node "n1"."""
    async with open_world() as opened:
        await opened.start()
        await opened.join("n1")
        yield opened


@pytest.fixture
async def bare() -> AsyncIterator[World]:
    """The same without any node."""
    async with open_world() as opened:
        await opened.start()
        yield opened


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A timer that is due within less than the virtual clock's tick is due now: no warning."""
    for item in items:
        if "tests/unit/coordinator" in item.path.as_posix():
            item.add_marker(pytest.mark.filterwarnings("ignore:delta is less than resolution"))
