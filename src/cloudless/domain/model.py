"""The base of every model, and how a validation error becomes field violations.

All models are frozen and refuse unknown keys, so that nothing is ignored silently.
"""

from __future__ import annotations

import enum
import re
from functools import cache
from typing import Any, ClassVar, Self, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from cloudless.domain.errors import FieldViolation

#: More violations than this are not listed: the first ones are enough to go on with.
MAX_VIOLATIONS = 20
#: What a value has to be, in the words of those who write manifests.
_KINDS = {
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "dict_type": "must be a mapping",
    "list_type": "must be a list",
    "mapping_type": "must be a mapping",
    "model_attributes_type": "must be a mapping",
    "model_type": "must be a mapping",
    "tuple_type": "must be a list",
}
_NAMED = re.compile(r"(?P<field>[a-z]+(?:_[a-z]+)*(?:\.[a-z]+(?:_[a-z]+)*)*): (?P<rest>.+)", re.DOTALL)


class Model(BaseModel):
    """Frozen, strict about keys, with defaults validated nowhere but here."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    #: Names of cached properties: a changed copy must work them out again.
    _derived: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def trusted(cls, **values: Any) -> Self:
        """Like the constructor for values that are known to be right; an order of magnitude faster."""
        return _filled(cls, _defaults(cls) | values, set(values))

    def replaced(self, **changes: Any) -> Self:
        """A copy with some fields changed; the values are trusted (already of the right types)."""
        values = self.__dict__ | changes
        for name in self._derived:
            values.pop(name, None)
        return _filled(type(self), values, self.__pydantic_fields_set__.union(changes))

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        """Itself: nothing of it changes. Validation would copy every default that is a model."""
        return self


_M = TypeVar("_M", bound=Model)
_new = object.__new__
#: The slots that pydantic documents: planning makes many records, and setting them by name
#: around the guard of frozen models takes twice as long.
_set_values = BaseModel.__dict__["__dict__"].__set__
_set_given = BaseModel.__dict__["__pydantic_fields_set__"].__set__
_set_extra = BaseModel.__dict__["__pydantic_extra__"].__set__
_set_private = BaseModel.__dict__["__pydantic_private__"].__set__


def _filled(model: type[_M], values: dict[str, Any], given: set[str]) -> _M:
    """A new one, with what pydantic sets."""
    made = _new(model)
    _set_values(made, values)
    _set_given(made, given)
    _set_extra(made, None)
    _set_private(made, None)
    return made


@cache
def _defaults(model: type[BaseModel]) -> dict[str, Any]:
    """The defaults of a model's fields; they are frozen, so one of each serves all."""
    return {name: field.default for name, field in model.model_fields.items() if not field.is_required()}


class Choice(enum.StrEnum):
    """An enum whose members are read in any of the usual spellings (``Always``, ``on_failure``)."""

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        if not isinstance(value, str):
            return None
        snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", value).replace("-", "_").upper()
        return cls._member_map_.get(snake)  # type: ignore[return-value]


def violations_of(error: ValidationError, prefix: str = "") -> tuple[FieldViolation, ...]:
    """The field violations of a failed validation, with paths such as ``spec.ports[0].name``.

    A rule over several fields says which of them is wrong by beginning with its name
    ("limits.memory_bytes: must ..."); that becomes part of the path.
    """
    found = []
    for item in error.errors(include_url=False, include_context=True)[:MAX_VIOLATIONS]:
        path, description = _path(prefix, item["loc"]), _description(item)
        named = _NAMED.fullmatch(description) if item["type"] == "value_error" else None
        if named is not None:
            path = f"{path}.{named['field']}" if path else named["field"]
            description = named["rest"]
        found.append(FieldViolation(path, description))
    return tuple(found)


def _path(prefix: str, location: tuple[int | str, ...]) -> str:
    path = prefix
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part != "[key]":
            path += f".{part}" if path else str(part)
    return path


def _description(item: Any) -> str:
    kind, text = item["type"], str(item["msg"])
    if kind == "extra_forbidden":
        return "is not a known field"
    if kind == "missing":
        return "is required"
    if kind == "value_error":
        return str(item["ctx"]["error"])
    if kind == "enum":
        return f"must be one of {item['ctx']['expected']}"
    if kind in _KINDS:
        return _KINDS[kind]
    return (
        text.replace("Input should", "must")
        .replace("String should", "must")
        .replace("Dictionary should", "must")
    )
