"""Structured logs: one JSON object on one line for each event, or a line for a person.

``configure`` is called once, by the command that starts the program. Loggers are the
standard library's; fields go into ``extra``. Secrets never get here: callers log names
and ids, and fields whose names say that they hold one are masked all the same.
"""

from __future__ import annotations

import datetime
import json
import logging
import re
import sys
import traceback
from typing import IO, Any

#: Longest value of a field, in characters; a log is no place for whole objects.
MAX_FIELD_CHARS = 2000
_SECRET = re.compile(r"pass(word|wd)?|secret|token|credential|authorization|private_key", re.IGNORECASE)
#: What a LogRecord has by itself; everything else came in ``extra``.
_OWN = frozenset(vars(logging.LogRecord("", 0, "", 0, "", (), None))) | {"message", "asctime", "taskName"}
_COLOURS = {"DEBUG": "\x1b[2m", "WARNING": "\x1b[33m", "ERROR": "\x1b[31m", "CRITICAL": "\x1b[31m"}
_RESET = "\x1b[0m"


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """What the caller gave in ``extra``, with secrets masked and long values cut."""
    return {
        name: "***" if _SECRET.search(name) else _plain(value)
        for name, value in vars(record).items()
        if name not in _OWN
    }


class JsonFormatter(logging.Formatter):
    """``{"at": ..., "level": ..., "logger": ..., "message": ..., <fields>}``; errors with their trace."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "at": datetime.datetime.fromtimestamp(record.created, datetime.UTC).isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        for name, value in fields_of(record).items():
            entry.setdefault(name, value)
        if record.exc_info and record.exc_info[1] is not None:
            entry["error"] = "".join(traceback.format_exception(record.exc_info[1]))
        return json.dumps(entry, ensure_ascii=False, default=str)


class LineFormatter(logging.Formatter):
    """``12:34:56.789 warning room: message  key=value ...`` for a terminal."""

    def __init__(self, *, colours: bool) -> None:
        super().__init__()
        self._colours = colours

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.datetime.fromtimestamp(record.created).astimezone()
        room = record.name.removeprefix("cloudless.")
        head = f"{at:%H:%M:%S}.{int(record.msecs):03d} {record.levelname.lower():7}"
        text = f"{head} {room}: {record.getMessage()}"
        fields = "".join(f" {name}={_shown(value)}" for name, value in fields_of(record).items())
        text = _printable(text + (f" {fields}" if fields else ""))
        colour = _COLOURS.get(record.levelname, "") if self._colours else ""
        text = f"{colour}{text}{_RESET}" if colour else text
        if record.exc_info and record.exc_info[1] is not None:
            text += "\n" + "".join(traceback.format_exception(record.exc_info[1])).rstrip("\n")
        return text


def configure(
    json_lines: bool | None = None, level: str | int = "INFO", stream: IO[str] | None = None
) -> None:
    """Send all logs of this process to ``stream`` (stderr); replaces what was set before.

    ``json_lines`` None means JSON unless the stream is a terminal. Raises ``ValueError``
    for an unknown level.
    """
    target = stream if stream is not None else sys.stderr
    terminal = target.isatty()
    handler = logging.StreamHandler(target)
    as_json = not terminal if json_lines is None else json_lines
    handler.setFormatter(JsonFormatter() if as_json else LineFormatter(colours=terminal))
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper() if isinstance(level, str) else level)
    # asyncio says "Using selector" at debug: noise at our levels.
    for noisy in ("asyncio",):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def _plain(value: Any) -> Any:
    if isinstance(value, bool | int | float) or value is None:
        return value
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in list(value)[:50]]
    text = str(value)
    return text if len(text) <= MAX_FIELD_CHARS else text[: MAX_FIELD_CHARS - 3] + "..."


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return json.dumps(text, ensure_ascii=False) if not text or " " in text or '"' in text else text


def _printable(text: str) -> str:
    """Control characters made visible: a log line must not move a terminal's cursor."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
