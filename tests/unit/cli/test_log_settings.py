"""The flags of ``serve`` that say how much is kept of logs."""

from __future__ import annotations

import pytest

from cloudless.cli.serve import _config
from cloudless.cli.serve_settings import resolve
from cloudless.domain.errors import Invalid


def configured(*argv, environment=None):
    return _config("agent", resolve(argv, environment or {})).logs


def test_the_defaults():
    logs = configured()
    assert (logs.keep_dead_s, logs.keep_dead_bytes) == (7 * 86400, 2**30)
    assert (logs.file_bytes, logs.files) == (10 * 2**20, 5)


def test_every_setting_reaches_the_agent():
    logs = configured("--log-keep", "36h", "--log-keep-size", "2Gi", "--log-file-size", "1Mi")
    assert (logs.keep_dead_s, logs.keep_dead_bytes, logs.file_bytes) == (36 * 3600, 2**31, 2**20)
    assert configured(environment={"CLOUDLESS_LOG_FILES": "7"}).files == 7


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--log-keep", "long"),
        ("--log-keep-size", "-1"),
        ("--log-file-size", "1Ki"),
        ("--log-files", "1"),
        ("--log-files", "many"),
    ],
)
def test_wrong_values_name_their_flag(flag, value):
    with pytest.raises(Invalid) as caught:
        configured(flag, value)
    assert [violation.path for violation in caught.value.violations] == [flag]
