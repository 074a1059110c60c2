"""Messages as plain values: the JSON that ``-o json`` prints and scripts rely on.

Field names are those of the API. Times are ISO 8601 in UTC, durations seconds with an
``s``, enums their names, sizes bytes. In a specification only what was given appears;
elsewhere numbers, flags and texts always do, objects and times only when there are any.
"""

from __future__ import annotations

import datetime
from typing import Any

from cloudless import api
from cloudless.sdk.objects import enum_name

#: Messages in which a zero means "not given".
_SPARSE_ROOTS = (api.WorkloadSpec,)


def plain_workload(message: api.Workload) -> dict[str, Any]:
    """A workload with its status; the order of keys is that of a manifest."""
    whole = plain(message)
    first = ("namespace", "name", "labels", "annotations", "spec")
    return {"kind": "Workload"} | {key: whole.pop(key) for key in first if key in whole} | whole


def plain(message: Any, *, sparse: bool = False) -> dict[str, Any]:
    """The fields of a message by name."""
    sparse = sparse or isinstance(message, _SPARSE_ROOTS)
    result: dict[str, Any] = {}
    for name, field in message._betterproto.meta_by_field_name.items():
        value = getattr(message, name)
        if value is None:
            continue
        if sparse and not field.optional and not field.group and not value:
            continue
        result[name] = _value(value, sparse)
    return result


def _value(value: Any, sparse: bool) -> Any:
    if isinstance(value, bool | str | float):
        return value
    if isinstance(value, int):
        return enum_name(value) if hasattr(value, "name") else int(value)
    if isinstance(value, datetime.datetime):
        return time_text(value)
    if isinstance(value, datetime.timedelta):
        return duration_text(value)
    if isinstance(value, list):
        return [_value(item, sparse) for item in value]
    if isinstance(value, dict):
        return {str(key): _value(item, sparse) for key, item in value.items()}
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return plain(value, sparse=sparse)


def time_text(value: datetime.datetime) -> str:
    """ISO 8601 in UTC.

    >>> time_text(datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC))
    '2026-01-02T03:04:05Z'
    """
    return value.astimezone(datetime.UTC).isoformat().replace("+00:00", "Z")


def duration_text(value: datetime.timedelta) -> str:
    """Seconds with their unit, exactly.

    >>> duration_text(datetime.timedelta(milliseconds=1500)), duration_text(datetime.timedelta(minutes=2))
    ('1.5s', '120s')
    """
    micros = value // datetime.timedelta(microseconds=1)
    whole, part = divmod(abs(micros), 1_000_000)
    text = f"{whole}.{part:06d}".rstrip("0").rstrip(".")
    return f"{'-' if micros < 0 else ''}{text}s"
