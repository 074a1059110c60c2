"""Options for every ring: with ``--no-skips`` a test that skips is a failure.

Properties are tried on the same examples in each run, so that a run can be repeated;
``--hypothesis-profile=search`` looks for others. Neither has a time limit for an example.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator

import pytest
from hypothesis import HealthCheck, settings

# Else pytest-asyncio makes a loop that nobody closes when the first async test comes after a sync one.
asyncio.set_event_loop(None)

settings.register_profile("search", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("repeat", settings.get_profile("search"), derandomize=True)
settings.load_profile("repeat")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--no-skips", action="store_true", help="count a skipped test as a failure")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and item.config.getoption("--no-skips") and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which --no-skips forbids: {report.longrepr}"
    return report
