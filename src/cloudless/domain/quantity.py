"""Durations and quantities as people write them, and back.

Used by the models' field types; pure text arithmetic.
"""

from __future__ import annotations

import datetime
import re
from decimal import Decimal
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema

_DURATION_UNITS_S = {
    "ms": Decimal("0.001"),
    "s": Decimal(1),
    "m": Decimal(60),
    "h": Decimal(3600),
    "d": Decimal(86400),
}
_DURATION = re.compile(r"(?:(?P<number>\d{1,12}(?:\.\d{1,6})?)(?P<unit>ms|s|m|h|d))", re.ASCII)
_BINARY = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50}
_DECIMAL = {"k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15, "": 1}
_BYTES = re.compile(r"(?P<number>\d{1,16}(?:\.\d{1,9})?)(?P<unit>Ki|Mi|Gi|Ti|Pi|k|M|G|T|P|)", re.ASCII)
_CPU = re.compile(r"(?:(?P<milli>\d{1,12})m|(?P<cores>\d{1,9}(?:\.\d{1,3})?))", re.ASCII)

#: No duration in a specification may be longer than this.
MAX_DURATION = datetime.timedelta(days=366)


def parse_duration(text: str) -> datetime.timedelta:
    """Read "90s", "1m30s", "500ms", "2h"; raises ``ValueError`` on anything else.

    >>> parse_duration("1m30s").total_seconds()
    90.0
    >>> parse_duration("500ms").total_seconds()
    0.5
    """
    text = text.strip()
    if text == "0":
        return datetime.timedelta(0)
    position, seconds = 0, Decimal(0)
    while position < len(text):
        found = _DURATION.match(text, position)
        if found is None:
            raise ValueError(f"{text[:40]!r} is not a duration; write for example 30s, 500ms, 1m30s or 2h")
        seconds += Decimal(found["number"]) * _DURATION_UNITS_S[found["unit"]]
        position = found.end()
    if position == 0:
        raise ValueError("an empty text is not a duration; write for example 30s")
    if seconds > Decimal(MAX_DURATION.total_seconds()):
        raise ValueError(f"{text[:40]!r} is longer than 366 days")
    return datetime.timedelta(microseconds=int(seconds * 1_000_000))


def format_duration(value: datetime.timedelta) -> str:
    """Write a duration the way people do.

    >>> format_duration(datetime.timedelta(seconds=90)), format_duration(datetime.timedelta(milliseconds=500))
    ('1m30s', '500ms')
    """
    micros = round(value.total_seconds() * 1_000_000)
    if micros == 0:
        return "0s"
    if micros % 1000:
        return f"{micros / 1_000_000:.6f}".rstrip("0") + "s"
    millis = micros // 1000
    if millis % 1000:
        return f"{millis}ms"
    seconds, parts = millis // 1000, ""
    for unit, size in (("h", 3600), ("m", 60), ("s", 1)):
        count, seconds = divmod(seconds, size)
        parts += f"{count}{unit}" if count else ""
    return parts


def parse_bytes(text: str) -> int:
    """Read "64Mi", "1.5G", "1024"; raises ``ValueError``.

    >>> parse_bytes("64Mi"), parse_bytes("1.5k")
    (67108864, 1500)
    """
    found = _BYTES.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text[:40]!r} is not a size; write for example 64Mi, 2G or a number of bytes")
    unit = found["unit"]
    return int(Decimal(found["number"]) * (_BINARY[unit] if unit in _BINARY else _DECIMAL[unit]))


def format_bytes(value: int) -> str:
    """Write a size with the largest binary unit that keeps it whole.

    >>> format_bytes(67108864), format_bytes(1500)
    ('64Mi', '1500')
    """
    for unit, size in reversed(_BINARY.items()):
        if value and value % size == 0:
            return f"{value // size}{unit}"
    return str(value)


def parse_cpu(text: str) -> int:
    """Read "250m" or "1.5" (cores) as thousandths of a core; raises ``ValueError``.

    >>> parse_cpu("250m"), parse_cpu("1.5")
    (250, 1500)
    """
    found = _CPU.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text[:40]!r} is not an amount of CPU; write for example 250m or 1.5")
    return int(found["milli"]) if found["milli"] else int(Decimal(found["cores"]) * 1000)


def format_cpu(millicores: int) -> str:
    """Write thousandths of a core.

    >>> format_cpu(250), format_cpu(2000)
    ('250m', '2')
    """
    return str(millicores // 1000) if millicores % 1000 == 0 and millicores else f"{millicores}m"


def _duration(value: Any) -> Any:
    if isinstance(value, str):
        return parse_duration(value)
    if isinstance(value, datetime.timedelta):
        return value
    raise ValueError("must be a duration such as 30s, 500ms or 1m30s")


def _in_range(value: datetime.timedelta) -> datetime.timedelta:
    if value < datetime.timedelta(0):
        raise ValueError("must not be negative")
    if value > MAX_DURATION:
        raise ValueError("must not be longer than 366 days")
    return value


def _quantity(parse: Any, what: str) -> Any:
    def read(value: Any) -> Any:
        if isinstance(value, str):
            return parse(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(f"must be {what}")
        return value

    return read


Duration = Annotated[
    datetime.timedelta,
    BeforeValidator(lambda value: _in_range(_duration(value))),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema({"type": "string", "examples": ["30s", "500ms", "1m30s"]}),
]
#: No quantity may be larger than this: sums over a cluster stay within 64 bits.
MAX_BYTES = 2**53
MAX_MILLICORES = 10**9
Bytes = Annotated[
    int,
    Field(ge=0, le=MAX_BYTES),
    BeforeValidator(_quantity(parse_bytes, "a size such as 64Mi, or a number of bytes")),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string"}], "examples": ["64Mi"]}),
]
Millicores = Annotated[
    int,
    Field(ge=0, le=MAX_MILLICORES),
    BeforeValidator(_quantity(parse_cpu, "an amount of CPU such as 250m, or thousandths of a core")),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string"}], "examples": ["250m"]}),
]
