"""The contract of a store, on the two that live in this process."""

from __future__ import annotations

import datetime
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.unit.store.contract import StoreContract
from tests.unit.store.subject import Subject, open_files
from tests.unit.store.watch_contract import WatchContract

from cloudless.aio.clock import ManualClock
from cloudless.store.memory import open_memory


@pytest.fixture(params=["memory", "embedded"])
async def subject(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Subject]:
    clock = ManualClock(datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC))

    async def pass_time(seconds: float) -> None:
        clock.advance(seconds)

    opened = open_memory(clock) if request.param == "memory" else open_files(tmp_path / "store", clock)
    async with opened as store:
        yield Subject(store, pass_time)


class TestStore(StoreContract):
    pass


class TestWatch(WatchContract):
    pass
