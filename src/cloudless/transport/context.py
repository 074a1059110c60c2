"""What a handler may know about the call it serves, beyond its message.

The server sets it before a handler runs; services read it with ``current_call()``.
Generated handlers see only their message, so this travels in a ContextVar.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

#: Metadata by which a coordinator tells a node for whom it asks; from anybody else it means nothing.
CALLER_KEY = "cloudless-caller"


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


#: What ``be_patient`` does for the call of this task.
_patience: ContextVar[Callable[[], None] | None] = ContextVar("cloudless_patience", default=None)
#: What ``watch_peer`` does for the call of this task.
_watching: ContextVar[Callable[[], None] | None] = ContextVar("cloudless_watching", default=None)
#: What ``room_to_send`` waits for in the call of this task.
_room: ContextVar[Callable[[int], Awaitable[None]] | None] = ContextVar("cloudless_room", default=None)
_current: ContextVar[CallContext | None] = ContextVar("cloudless_call", default=None)


def current_call() -> CallContext:
    """The call that this task serves; ``LookupError`` outside of a handler."""
    context = _current.get()
    if context is None:
        raise LookupError("no call is being served here")
    return context


def set_current_call(context: CallContext) -> None:
    """For the server: what the task of a call is about."""
    _current.set(context)


@contextmanager
def calling(context: CallContext) -> Iterator[None]:
    """A block that is a call, for tests that call a handler directly."""
    token = _current.set(context)
    try:
        yield
    finally:
        _current.reset(token)


def be_patient() -> None:
    """Let the caller of this call read as slowly as it likes, for as long as it lives.

    For streams whose caller is paced by something else (a person, a socket); who uses it
    bounds how many there are. Does nothing outside of a call.
    """
    patience = _patience.get()
    if patience is not None:
        patience()


def set_patience(patience: Callable[[], None]) -> None:
    """For the server: how the present call becomes patient."""
    _patience.set(patience)


async def room_to_send(size_bytes: int) -> None:
    """Wait until the caller of this call takes so much at once, before it is made.

    For streams whose messages are large: who does not read costs nothing that way. Ends as
    sending would for a caller that takes nothing. Does nothing outside of a call.
    """
    room = _room.get()
    if room is not None:
        await room(size_bytes)


def set_room(room: Callable[[int], Awaitable[None]]) -> None:
    """For the server: how the present call waits for room."""
    _room.set(room)


def watch_peer() -> None:
    """Notice within seconds when the caller's machine is gone, and not just its process.

    For calls that hold something which must not outlive their caller. Costs a packet every
    few seconds on an idle connection. Does nothing outside of a call.
    """
    watching = _watching.get()
    if watching is not None:
        watching()


def set_watching(watching: Callable[[], None]) -> None:
    """For the server: how the present call's connection is watched."""
    _watching.set(watching)
