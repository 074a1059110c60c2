"""Import the generated API without what a command line does not need of it.

betterproto2 imports pydantic when it is installed (only to validate messages, which we
do in the domain), importlib.metadata (only for its own version) and dateutil (only for
JSON); dataclasses compiles an ``__init__`` for each of a hundred messages. Together they
cost more than all the rest of ``cloudless get``. They are kept out while the API is
imported and work as usual afterwards. docs/adr/0003-cli-start.md has the figures;
``serve`` does not come this way.
"""

from __future__ import annotations

import dataclasses
import sys
import types
from collections.abc import Callable
from typing import Any

_KEPT_OUT = ("pydantic", "betterproto2._version", "dateutil", "dateutil.parser")


def import_api() -> None:
    """Import ``cloudless.api``; does nothing special when any of it is there already."""
    if "betterproto2" in sys.modules or any(name in sys.modules for name in _KEPT_OUT):
        return
    version = types.ModuleType("betterproto2._version")
    version.__dict__.update(__version__="", check_compiler_version=lambda _: None)
    parser = types.ModuleType("dateutil.parser")
    parser.__dict__["isoparse"] = _isoparse
    package = types.ModuleType("dateutil")
    package.__dict__["parser"] = parser
    stand_ins: dict[str, Any] = {
        "pydantic": None,
        "betterproto2._version": version,
        "dateutil": package,
        "dateutil.parser": parser,
    }
    sys.modules.update(stand_ins)
    try:
        import betterproto2  # noqa: F401

        with_init = dataclasses.dataclass
        dataclasses.dataclass = _light_dataclass(with_init)
        try:
            import cloudless.api  # noqa: F401
        finally:
            dataclasses.dataclass = with_init
    finally:
        for name, stand_in in stand_ins.items():
            if sys.modules.get(name) is stand_in:
                del sys.modules[name]


def _light_dataclass(usual: Callable[..., Any]) -> Callable[..., Any]:
    """A ``dataclass`` that gives messages an ``__init__`` without compiling one for each."""

    def dataclass(cls: type | None = None, /, **options: Any) -> Any:
        if cls is not None or options != {"eq": False, "repr": False}:
            return usual(cls, **options) if cls is not None else usual(**options)
        return _message_class

    return dataclass


def _message_class(cls: Any) -> Any:
    fields: dict[str, Any] = {}
    for name, kind in cls.__dict__.get("__annotations__", {}).items():  # noqa: RUF063
        field = cls.__dict__[name]
        field.name, field.type = name, kind
        field._field_type = dataclasses._FIELD  # type: ignore[attr-defined]
        fields[name] = field
        delattr(cls, name)
    cls.__dataclass_fields__ = fields
    makers = {name: field.default_factory for name, field in fields.items()}
    finish = getattr(cls, "__post_init__", None)

    def __init__(self: Any, *values: Any, **given: Any) -> None:  # noqa: N807
        given.update(zip(makers, values))  # noqa: B905 (positional ones come first)
        for name, make in makers.items():
            setattr(self, name, given.pop(name) if name in given else make())
        if given:
            raise TypeError(f"{cls.__name__} has no field {', '.join(given)}")
        if finish is not None:
            finish(self)

    cls.__init__ = __init__
    return cls


def _isoparse(text: str) -> Any:
    import importlib

    return importlib.import_module("dateutil.parser").isoparse(text)
