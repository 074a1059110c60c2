"""A coordinator in memory on a real port, and a client of it."""

from __future__ import annotations

import importlib.util
import pathlib
import sys

import pytest

_PATH = pathlib.Path(__file__).with_name("fake_coordinator.py")
if "fake_coordinator" not in sys.modules:
    _spec = importlib.util.spec_from_file_location("fake_coordinator", _PATH)
    _module = importlib.util.module_from_spec(_spec)
    sys.modules["fake_coordinator"] = _module
    _spec.loader.exec_module(_module)

from fake_coordinator import FakeCoordinator  # noqa: E402

import cloudless  # noqa: E402


@pytest.fixture
async def fake():
    """A coordinator that makes everything ready at once."""
    coordinator = FakeCoordinator()
    async with coordinator.serving():
        yield coordinator


@pytest.fixture
async def client(fake):
    """A client of ``fake`` that is not patient."""
    async with cloudless.connect(fake.address, timeout_s=5.0, patience_s=2.0) as connected:
        yield connected
