"""Import the generated API without what a command line does not need of it.

betterproto2 imports pydantic when it is installed (only to validate messages, which we
do in the domain), importlib.metadata (only for its own version) and dateutil (only for
JSON). Together they cost more than all the rest of ``cloudless get``. They are kept out
while the API is imported and are importable as usual afterwards. docs/adr/0003-cli-start.md
has the figures; ``serve`` does not come this way.
"""

from __future__ import annotations

import sys
import types
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
        import cloudless.api  # noqa: F401
    finally:
        for name, stand_in in stand_ins.items():
            if sys.modules.get(name) is stand_in:
                del sys.modules[name]


def _isoparse(text: str) -> Any:
    import importlib

    return importlib.import_module("dateutil.parser").isoparse(text)
