"""Cloudless: a container orchestrator as one asyncio program.

``import cloudless`` costs nothing: the client, the objects and the errors named below
are imported when they are first used. See docs/sdk.md.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cloudless.domain.errors import (
        AlreadyExists,
        CloudlessError,
        Conflict,
        DeadlineExceeded,
        Denied,
        Exhausted,
        Fatal,
        FieldViolation,
        Invalid,
        NotFound,
        OutOfRange,
        PreconditionFailed,
        Unavailable,
    )
    from cloudless.sdk.client import Client, connect
    from cloudless.sdk.events import EventWatch
    from cloudless.sdk.failures import CannotPlace, RolloutFailed, WaitTimeout
    from cloudless.sdk.logs import LogStream
    from cloudless.sdk.objects import Event, ExecResult, Info, LogLine, Node, Replica, Revision
    from cloudless.sdk.watch import Change, WorkloadWatch
    from cloudless.sdk.workload import Workload

__version__ = "0.1.0"

_HOMES = {
    "cloudless.domain.errors": (
        "AlreadyExists",
        "CloudlessError",
        "Conflict",
        "DeadlineExceeded",
        "Denied",
        "Exhausted",
        "Fatal",
        "FieldViolation",
        "Invalid",
        "NotFound",
        "OutOfRange",
        "PreconditionFailed",
        "Unavailable",
    ),
    "cloudless.sdk.client": ("Client", "connect"),
    "cloudless.sdk.events": ("EventWatch",),
    "cloudless.sdk.failures": ("CannotPlace", "RolloutFailed", "WaitTimeout"),
    "cloudless.sdk.logs": ("LogStream",),
    "cloudless.sdk.objects": ("Event", "ExecResult", "Info", "LogLine", "Node", "Replica", "Revision"),
    "cloudless.sdk.watch": ("Change", "WorkloadWatch"),
    "cloudless.sdk.workload": ("Workload",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "AlreadyExists",
    "CannotPlace",
    "Change",
    "Client",
    "CloudlessError",
    "Conflict",
    "DeadlineExceeded",
    "Denied",
    "Event",
    "EventWatch",
    "ExecResult",
    "Exhausted",
    "Fatal",
    "FieldViolation",
    "Info",
    "Invalid",
    "LogLine",
    "LogStream",
    "Node",
    "NotFound",
    "OutOfRange",
    "PreconditionFailed",
    "Replica",
    "Revision",
    "RolloutFailed",
    "Unavailable",
    "WaitTimeout",
    "Workload",
    "WorkloadWatch",
    "__version__",
    "connect",
]


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'cloudless' has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME_OF})
