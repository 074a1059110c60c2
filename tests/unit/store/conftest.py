"""A clock that stands still, for every store of this room."""

from __future__ import annotations

import datetime

import pytest

from cloudless.aio.clock import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC))
