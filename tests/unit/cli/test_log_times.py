from __future__ import annotations

import datetime

import pytest

from cloudless.cli.logs.times import moment
from cloudless.cli.parsing import UsageError

NOW = datetime.datetime(2026, 1, 2, 12, 0, tzinfo=datetime.UTC)


@pytest.fixture(params=["UTC", "Asia/Kolkata"])
def hours(request, monkeypatch):
    """How far local time is ahead."""
    import time

    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield 5.5 if request.param != "UTC" else 0.0
    monkeypatch.undo()
    time.tzset()


def test_what_has_no_zone_is_local(hours):
    ahead = datetime.timedelta(hours=hours)
    assert (
        moment("2026-01-02 10:00", "--since", NOW)
        == datetime.datetime(2026, 1, 2, 10, tzinfo=datetime.UTC) - ahead
    )
    assert moment("2026-01-02", "--since", NOW) == datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC) - ahead
    assert (
        moment("14:30", "--since", NOW) == datetime.datetime(2026, 1, 2, 14, 30, tzinfo=datetime.UTC) - ahead
    )


def test_what_has_one_is_not(hours):
    assert moment("2026-01-02T10:00:00Z", "--until", NOW).hour == 10
    assert moment("2026-01-02T10:00:00+02:00", "--until", NOW).hour == 8
    assert moment("1h", "--since", NOW) == NOW - datetime.timedelta(hours=1)
    assert moment("90", "--since", NOW) == NOW - datetime.timedelta(seconds=90)


@pytest.mark.parametrize("text", ["", "yesterday", "20260102T", "-5m", "25:00", "2026-13-01"])
def test_what_is_neither(text):
    with pytest.raises(UsageError, match="--since"):
        moment(text, "--since", NOW)
