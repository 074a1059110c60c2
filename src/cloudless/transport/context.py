"""What a handler may know about the call it serves, beyond its message.

The server sets it before a handler runs; services read it with ``current_call()``.
Generated handlers see only their message, so this travels in a ContextVar.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class CallContext:
    """One call. ``deadline_s`` is in the loop's time; ``certificate`` is the TLS peer's.

    ``method`` is the full path, ``/cloudless.api.CoordinatorService/GetWorkload``;
    ``request_id`` is the caller's ``x-request-id`` or one of the server's own.
    """

    method: str
    peer: str
    request_id: str = ""
    deadline_s: float | None = None
    metadata: Mapping[str, str | bytes] = field(default_factory=dict)
    certificate: Mapping[str, Any] | None = None

    def remaining_s(self) -> float | None:
        """Seconds until the caller gives up (0 when that has passed); None without limit."""
        if self.deadline_s is None:
            return None
        return max(self.deadline_s - asyncio.get_running_loop().time(), 0.0)


_current: ContextVar[CallContext | None] = ContextVar("cloudless_call", default=None)


def current_call() -> CallContext:
    """The call that this task serves; ``LookupError`` outside of a handler."""
    context = _current.get()
    if context is None:
        raise LookupError("no call is being served here")
    return context


def set_current_call(context: CallContext) -> None:
    """For the server, and for tests that call a handler directly."""
    _current.set(context)
