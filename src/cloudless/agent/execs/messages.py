"""What callers of Exec and Attach send: checked, or refused with the field's name."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

from cloudless import api
from cloudless.agent.exec import check_command
from cloudless.agent.execs.limits import DEFAULT_SIZE, MAX_SIZE, MAX_STDIN_BYTES, MAX_TIMEOUT_S, START_S
from cloudless.agent.runtime.execport import ExecWish
from cloudless.domain.errors import FieldViolation, Invalid
from cloudless.transport.bidi import received

#: The members of a request's oneof.
INPUTS = ("start", "attach", "stdin", "stdin_close", "resize", "signal")
MAX_SIGNAL = 64


async def first(messages: AsyncIterator[api.ExecRequest], kind: str) -> api.ExecRequest:
    """The first message, which must hold ``kind``; raises ``Invalid``."""
    try:
        async with asyncio.timeout(START_S):
            message = await anext(messages, None)
    except TimeoutError:
        raise Invalid.field(kind, f"did not come within {START_S:g} s") from None
    if message is None or member_of(message) != kind:
        raise Invalid.field(kind, "is required in the first message")
    return message


async def inputs(messages: AsyncIterator[api.ExecRequest]) -> AsyncGenerator[api.ExecRequest, None]:
    """All messages, each checked. Raises ``Invalid``, and what the transport raises."""
    async for message in received(messages):
        member_of(message)
        yield message


def member_of(message: api.ExecRequest) -> str:
    """The one field that is set; raises ``Invalid`` for none or several, or a bad value.

    >>> member_of(api.ExecRequest(stdin=b"x"))
    'stdin'
    """
    given = [name for name in INPUTS if getattr(message, name) is not None]
    if len(given) != 1:
        raise Invalid(f"a message must hold one of {', '.join(INPUTS)}, this one holds {len(given)}")
    if message.stdin is not None and len(message.stdin) > MAX_STDIN_BYTES:
        raise Invalid.field("stdin", f"must be at most {MAX_STDIN_BYTES} bytes in one message")
    if message.signal is not None and not 0 < message.signal <= MAX_SIGNAL:
        raise Invalid.field("signal", f"must be from 1 to {MAX_SIGNAL}")
    if message.resize is not None:
        size_of(message.resize, "resize")
    return given[0]


def size_of(size: api.TerminalSize, path: str) -> tuple[int, int]:
    """(rows, columns); raises ``Invalid``."""
    for name in ("rows", "columns"):
        if not 0 < getattr(size, name) <= MAX_SIZE:
            raise Invalid.field(f"{path}.{name}", f"must be from 1 to {MAX_SIZE}")
    return size.rows, size.columns


def wish_of(start: api.ExecStart) -> tuple[ExecWish, float | None]:
    """What is to be run, and how many seconds it may take. Raises ``Invalid`` naming every wrong field."""
    found = check_command(
        argv=start.command, env=start.env, cwd=start.working_dir, user=start.user, prefix="start."
    )
    if start.detach:
        for name, why in (("stdin", "input"), ("tty", "terminal"), ("timeout", "time limit")):
            if getattr(start, name):
                found.append(FieldViolation(f"start.{name}", f"a detached program has no {why}"))
    timeout_s = None
    if start.timeout is not None:
        timeout_s = start.timeout.total_seconds()
        if not 0 < timeout_s <= MAX_TIMEOUT_S:
            found.append(
                FieldViolation("start.timeout", f"must be above 0 and at most {MAX_TIMEOUT_S:g} seconds")
            )
    if start.size is not None and not start.tty:
        found.append(FieldViolation("start.size", "needs tty"))
    if found:
        raise Invalid(violations=tuple(found))
    size = None
    if start.tty:
        size = size_of(start.size, "start.size") if start.size is not None else DEFAULT_SIZE
    wish = ExecWish(
        argv=tuple(start.command),
        env=tuple(f"{name}={value}" for name, value in start.env.items()),
        cwd=start.working_dir,
        user=start.user,
        stdin=start.stdin,
        tty=start.tty,
        size=size,
        detach=start.detach,
    )
    return wish, timeout_s
