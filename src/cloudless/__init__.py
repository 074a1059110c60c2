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
    from cloudless.sdk.copying.copier import Copied, CopyFailed, NoTar
    from cloudless.sdk.events import EventWatch
    from cloudless.sdk.exec import CannotExecute, ExecExit, ExecProcess
    from cloudless.sdk.explaining import Explanation
    from cloudless.sdk.failures import (
        CannotPlace,
        RolloutFailed,
        Superseded,
        WaitTimeout,
        WorkloadDeleted,
    )
    from cloudless.sdk.forward import Forward
    from cloudless.sdk.journal import JournalEntry, PastRollout
    from cloudless.sdk.logbatch import LogBatch, LogChunk
    from cloudless.sdk.logentry import LogLine, LogMarker, LogSource
    from cloudless.sdk.logs import LogStream
    from cloudless.sdk.objects import Event, Exec, ExecResult, Info, Node, Replica, Revision
    from cloudless.sdk.rollout import Rollout, Step
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
    "cloudless.sdk.copying.copier": ("Copied", "CopyFailed", "NoTar"),
    "cloudless.sdk.events": ("EventWatch",),
    "cloudless.sdk.exec": ("CannotExecute", "ExecExit", "ExecProcess"),
    "cloudless.sdk.explaining": ("Explanation",),
    "cloudless.sdk.failures": (
        "CannotPlace",
        "RolloutFailed",
        "Superseded",
        "WaitTimeout",
        "WorkloadDeleted",
    ),
    "cloudless.sdk.forward": ("Forward",),
    "cloudless.sdk.journal": ("JournalEntry", "PastRollout"),
    "cloudless.sdk.logbatch": ("LogBatch", "LogChunk"),
    "cloudless.sdk.logentry": ("LogLine", "LogMarker", "LogSource"),
    "cloudless.sdk.logs": ("LogStream",),
    "cloudless.sdk.objects": ("Event", "Exec", "ExecResult", "Info", "Node", "Replica", "Revision"),
    "cloudless.sdk.rollout": ("Rollout", "Step"),
    "cloudless.sdk.watch": ("Change", "WorkloadWatch"),
    "cloudless.sdk.workload": ("Workload",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "AlreadyExists",
    "CannotExecute",
    "CannotPlace",
    "Change",
    "Client",
    "CloudlessError",
    "Conflict",
    "Copied",
    "CopyFailed",
    "DeadlineExceeded",
    "Denied",
    "Event",
    "EventWatch",
    "Exec",
    "ExecExit",
    "ExecProcess",
    "ExecResult",
    "Exhausted",
    "Explanation",
    "Fatal",
    "FieldViolation",
    "Forward",
    "Info",
    "Invalid",
    "JournalEntry",
    "LogBatch",
    "LogChunk",
    "LogLine",
    "LogMarker",
    "LogSource",
    "LogStream",
    "NoTar",
    "Node",
    "NotFound",
    "OutOfRange",
    "PastRollout",
    "PreconditionFailed",
    "Replica",
    "Revision",
    "Rollout",
    "RolloutFailed",
    "Step",
    "Superseded",
    "Unavailable",
    "WaitTimeout",
    "Workload",
    "WorkloadDeleted",
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
