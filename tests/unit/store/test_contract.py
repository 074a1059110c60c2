"""The contract of a store, on the two that live in this process."""

from __future__ import annotations

import datetime
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cloudless.aio.clock import ManualClock
from cloudless.store.embedded import open_embedded
from cloudless.store.memory import open_memory
from tests.unit.store.contract import StoreContract, Subject, WatchContract


@pytest.fixture(params=["memory", "embedded"])
async def subject(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Subject]:
    clock = ManualClock(datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC))

    async def pass_time(seconds: float) -> None:
        clock.advance(seconds)

    opened = open_memory(clock) if request.param == "memory" else open_embedded(tmp_path / "store", clock)
    async with opened as store:
        yield Subject(store, pass_time)


class TestStore(StoreContract):
    pass


class TestWatch(WatchContract):
    pass
