"""Logs: what a machine reads, what a person reads, and what nobody may read."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from cloudless.telemetry import logs

log = logging.getLogger("cloudless.room.part")


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:], root.level = handlers, level


def test_one_json_object_on_one_line() -> None:
    stream = io.StringIO()
    logs.configure(True, "INFO", stream)
    log.info("node linked\nand more", extra={"node": "n1", "count": 3, "many": {1, 2}})
    log.debug("not at this level")
    (line,) = stream.getvalue().splitlines()
    entry = json.loads(line)
    assert entry["message"] == "node linked\nand more"
    assert (entry["level"], entry["logger"]) == ("info", "cloudless.room.part")
    assert (entry["node"], entry["count"], sorted(entry["many"])) == ("n1", 3, [1, 2])
    assert entry["at"].endswith("+00:00")


def test_errors_carry_their_trace() -> None:
    stream = io.StringIO()
    logs.configure(True, "INFO", stream)
    try:
        raise ValueError("broken")
    except ValueError:
        log.exception("failed")
    entry = json.loads(stream.getvalue())
    assert "ValueError: broken" in entry["error"]
    assert "test_logs.py" in entry["error"]


@pytest.mark.parametrize("name", ["password", "api_token", "pull_secret", "Authorization"])
@pytest.mark.parametrize("json_lines", [True, False])
def test_secrets_are_masked(name: str, json_lines: bool) -> None:
    stream = io.StringIO()
    logs.configure(json_lines, "INFO", stream)
    log.info("pulled", extra={name: "hunter2"})
    assert "hunter2" not in stream.getvalue()
    assert name in stream.getvalue()


def test_lines_for_a_person() -> None:
    stream = io.StringIO()
    logs.configure(False, "INFO", stream)
    log.warning("store does not answer", extra={"why": "no route", "delay_s": 0.5, "empty": ""})
    text = stream.getvalue()
    assert 'room.part: store does not answer  why="no route" delay_s=0.5 empty=""' in text
    assert "\x1b" not in text


def test_control_characters_do_not_reach_a_terminal() -> None:
    stream = io.StringIO()
    logs.configure(False, "INFO", stream)
    log.info("name \x1b[2J of a\nnode")
    assert "\x1b" not in stream.getvalue()
    assert len(stream.getvalue().splitlines()) == 1


def test_a_stream_that_is_no_terminal_gets_json() -> None:
    stream = io.StringIO()
    logs.configure(None, "WARNING", stream)
    log.info("not at this level")
    log.warning("hello")
    assert json.loads(stream.getvalue())["message"] == "hello"


def test_a_terminal_gets_colours() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    logs.configure(None, "INFO", stream)
    log.error("hello")
    assert stream.getvalue().startswith("\x1b[31m")


def test_long_values_are_cut() -> None:
    stream = io.StringIO()
    logs.configure(True, "INFO", stream)
    log.info("big", extra={"value": "x" * 100_000, "items": list(range(1000))})
    assert len(stream.getvalue()) < 5000


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(ValueError, match="LOUD"):
        logs.configure(True, "loud", io.StringIO())
