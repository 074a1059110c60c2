"""What the codec knows of a generated message class, read once from its dataclass fields.

``encode`` and ``decode`` compile their tables from this. It reads only declarations
(numbers, types, groups, annotations), never values, and does without betterproto2's own
per-class tables, which cost milliseconds a class and are wrong for maps of enums.
"""

from __future__ import annotations

import dataclasses
import sys
import typing
from dataclasses import dataclass
from typing import Any

import betterproto2
from betterproto2 import FieldMetadata

#: Wire types of the protobuf encoding; 3 and 4 are groups, which nobody uses any more.
VARINT, FIXED64, LENGTH, START_GROUP, END_GROUP, FIXED32 = 0, 1, 2, 3, 4, 5

WIRE_TYPE: dict[str, int] = {
    **dict.fromkeys(("int32", "int64", "uint32", "uint64", "sint32", "sint64", "bool", "enum"), VARINT),
    **dict.fromkeys(("fixed64", "sfixed64", "double"), FIXED64),
    **dict.fromkeys(("fixed32", "sfixed32", "float"), FIXED32),
    **dict.fromkeys(("string", "bytes", "message", "map"), LENGTH),
}
#: struct formats of the types of fixed size.
FIXED_FORMAT = {
    "fixed64": "Q",
    "sfixed64": "q",
    "double": "d",
    "fixed32": "I",
    "sfixed32": "i",
    "float": "f",
}
#: Smallest and largest value of each integer type.
INTEGER_RANGE: dict[str, tuple[int, int]] = {
    **dict.fromkeys(("int32", "sint32", "sfixed32", "enum"), (-(2**31), 2**31 - 1)),
    **dict.fromkeys(("int64", "sint64", "sfixed64"), (-(2**63), 2**63 - 1)),
    **dict.fromkeys(("uint32", "fixed32"), (0, 2**32 - 1)),
    **dict.fromkeys(("uint64", "fixed64"), (0, 2**64 - 1)),
}
SCALAR_DEFAULT: dict[str, Any] = {
    **dict.fromkeys(INTEGER_RANGE, 0),
    "bool": False,
    "double": 0.0,
    "float": 0.0,
    "string": "",
    "bytes": b"",
}


@dataclass(frozen=True)
class ValueType:
    """The type of one value: a singular field, an element, a map's key or value.

    ``message`` is the generated class of a message or enum type. ``wrapped`` says that
    the value in Python is not that class but what it stands for (``datetime``, ``int``).
    """

    proto: str
    message: Any = None
    wrapped: bool = False

    @property
    def wire(self) -> int:
        """Wire type of this value when it stands alone."""
        return WIRE_TYPE[self.proto]

    def default(self) -> Any:
        """The value of a map entry that does not name one."""
        if self.proto == "enum":
            return self.message(0)
        return SCALAR_DEFAULT[self.proto]


@dataclass(frozen=True)
class FieldPlan:
    """One field. ``key`` is set for maps; ``explicit`` means that absence is None."""

    name: str
    number: int
    value: ValueType
    key: ValueType | None = None
    repeated: bool = False
    explicit: bool = False
    group: str = ""

    @property
    def packable(self) -> bool:
        """True for repeated numbers, which may come as one block."""
        return self.repeated and self.value.wire != LENGTH


def is_message_class(kind: Any) -> bool:
    """True for the classes that this codec is for; protobuf's own are handled by protobuf."""
    return isinstance(kind, type) and issubclass(kind, betterproto2.Message)


def plan_fields(message: type[Any]) -> list[FieldPlan]:
    """All fields of a generated class, in order of their numbers."""
    plans = [_plan(message, field) for field in dataclasses.fields(message)]
    return sorted(plans, key=lambda plan: plan.number)


def _plan(message: type[Any], field: dataclasses.Field[Any]) -> FieldPlan:
    meta = FieldMetadata.get(field)
    if meta.map_meta is not None:
        key, value = meta.map_meta
        return FieldPlan(
            field.name,
            meta.number,
            _value_type(message, field, value, argument=1),
            key=ValueType(key.proto_type),
        )
    value_type = _value_type(message, field, meta, argument=0)
    explicit = bool(meta.optional or meta.group) or (meta.proto_type == "message" and not meta.repeated)
    return FieldPlan(
        field.name,
        meta.number,
        value_type,
        repeated=bool(meta.repeated),
        explicit=explicit,
        group=meta.group or "",
    )


def _value_type(
    message: type[Any], field: dataclasses.Field[Any], meta: FieldMetadata, argument: int
) -> ValueType:
    if meta.unwrap is not None:
        return ValueType(meta.proto_type, meta.unwrap(), wrapped=True)
    if meta.proto_type not in ("message", "enum"):
        return ValueType(meta.proto_type)
    declared = field.type
    if isinstance(declared, str):
        # Resolving one annotation at a time: those of the other fields cost time for nothing.
        holder = type(message.__name__, (), {"__annotations__": {"it": declared}})
        declared = typing.get_type_hints(holder, vars(sys.modules[message.__module__]))["it"]
    arguments = typing.get_args(declared)
    return ValueType(meta.proto_type, arguments[argument] if arguments else declared)
