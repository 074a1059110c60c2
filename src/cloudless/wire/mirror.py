"""Conversion by name between a domain model and the message that mirrors it.

Used where both sides have the same fields (specifications, resources, node facts).
Zero values of fields without presence are "not given" on the wire, so the model's
own default applies; sub-messages that equal the model's default are left out.
"""

from __future__ import annotations

import datetime
import enum
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

import betterproto2
from pydantic import BaseModel, ValidationError

from cloudless.domain.errors import FieldViolation, Invalid
from cloudless.domain.model import violations_of

M = TypeVar("M", bound=BaseModel)
W = TypeVar("W", bound=betterproto2.Message)


def from_wire(message: betterproto2.Message, model: type[M], path: str) -> M:
    """Validate a message as ``model``; raises ``Invalid`` with paths below ``path``."""
    refuse_unknown(message, path)
    try:
        return model.model_validate(plain(message))
    except ValidationError as error:
        raise Invalid(violations=violations_of(error, path)) from None
    except RecursionError:
        raise Invalid.field(path, "is nested too deeply") from None


def to_wire(model: BaseModel, message: type[W]) -> W:
    """Build the message that mirrors ``model``."""
    result = message()
    for name, convert, default in _writers(type(model), message):
        value = getattr(model, name)
        if value is not None and value != default:
            setattr(result, name, convert(value) if convert is not None else value)
    return result


def plain(message: betterproto2.Message) -> dict[str, Any]:
    """The fields that were given, by name, as plain values."""
    return {
        name: read(value)
        for name, read, absent in _readers(type(message))
        if (value := getattr(message, name)) != absent and value is not None
    }


def refuse_unknown(message: betterproto2.Message, path: str = "") -> None:
    """Raise ``Invalid`` when the message holds fields that this version does not know."""
    where = _with_unknown(message, path)
    if where is not None:
        raise Invalid(
            violations=(FieldViolation(where or "request", "holds a field that this version does not know"),),
            hint="use a client of the coordinator's version, or leave the field out",
        )


def _with_unknown(message: betterproto2.Message, path: str) -> str | None:
    if message._unknown_fields:
        return path
    for name in _message_fields(type(message)):
        value = getattr(message, name)
        below = f"{path}.{name}" if path else name
        children = value if isinstance(value, list) else [] if value is None else [value]
        for index, child in enumerate(children):
            where = _with_unknown(child, f"{below}[{index}]" if isinstance(value, list) else below)
            if where is not None:
                return where
    return None


@cache
def _message_fields(message: type[betterproto2.Message]) -> tuple[str, ...]:
    meta = _metadata(message)
    return tuple(
        name
        for name, field in meta.meta_by_field_name.items()
        if field.proto_type == betterproto2.TYPE_MESSAGE
        and issubclass(meta.cls_by_field[name], betterproto2.Message)
    )


Reader = Callable[[Any], Any]


def _same(value: Any) -> Any:
    return value


def _enum_name(value: Any) -> str:
    return str(getattr(value, "name", None) or f"unknown value {int(value)}")


@cache
def _readers(message: type[betterproto2.Message]) -> tuple[tuple[str, Reader, Any], ...]:
    """Per field: its name, how its value becomes plain, and the value that means "not given"."""
    meta = _metadata(message)
    readers: list[tuple[str, Reader, Any]] = []
    for name, field in meta.meta_by_field_name.items():
        read: Reader = _same
        absent: Any = None if field.optional or field.group else meta.default_gen[name]()
        kind = meta.cls_by_field[name]
        if field.proto_type == betterproto2.TYPE_MESSAGE and issubclass(kind, betterproto2.Message):
            read, absent = (_plain_list, []) if field.repeated else (plain, None)
        elif field.proto_type == betterproto2.TYPE_ENUM:
            read = _enum_name
        readers.append((name, read, absent))
    return tuple(readers)


def _plain_list(messages: list[Any]) -> list[dict[str, Any]]:
    return [plain(message) for message in messages]


@cache
def _writers(model: type[BaseModel], message: type[Any]) -> tuple[tuple[str, Reader | None, Any], ...]:
    """Per field: its name, how its value is written, and the default that is left out."""
    meta = _metadata(message)
    missing = set(meta.meta_by_field_name) ^ set(model.model_fields)
    if missing:
        raise TypeError(f"{model.__name__} and {message.__name__} differ in {sorted(missing)}")
    writers: list[tuple[str, Reader | None, Any]] = []
    for name, field in meta.meta_by_field_name.items():
        kind = meta.cls_by_field[name]
        convert: Reader | None = None
        default: Any = None
        if field.proto_type == betterproto2.TYPE_MESSAGE and issubclass(kind, betterproto2.Message):
            convert = _message_writer(kind, field.repeated)
            declared = model.model_fields[name]
            default = declared.get_default(call_default_factory=True) if not declared.is_required() else None
            default = default if isinstance(default, BaseModel) else None
        elif field.proto_type == betterproto2.TYPE_ENUM:
            convert = _enum_writer(kind)
        elif field.repeated:
            convert = list
        elif kind not in (str, int, bool, float, bytes, datetime.timedelta, datetime.datetime):
            convert = _same
        writers.append((name, convert, default))
    return tuple(writers)


def _message_writer(kind: type[Any], repeated: bool) -> Reader:
    if repeated:
        return lambda values: [to_wire(value, kind) for value in values]
    return lambda value: to_wire(value, kind)


def _enum_writer(kind: Any) -> Reader:
    def write(value: enum.Enum) -> Any:
        return kind[value.name]

    return write


def _metadata(message: Any) -> Any:
    """The generated class's field table (betterproto2's, pinned exactly)."""
    return message._betterproto
