"""Runs commands in containers for people and scripts: buffered, with limits on everything.

``ExecCommand`` comes here; probes do not. A caller that goes away takes the command with
it, since the runtime ends what its caller's cancellation leaves.
"""

from __future__ import annotations

import asyncio

from cloudless.agent.limits import (
    CONCURRENT_EXECS,
    DEFAULT_EXEC_OUTPUT_BYTES,
    EXEC_TIMEOUT_S,
    MAX_EXEC_OUTPUT_BYTES,
    MAX_EXEC_STDIN_BYTES,
    MAX_EXEC_TIMEOUT_S,
)
from cloudless.agent.runtime.port import ExecRequest, ExecResult, Runtime
from cloudless.domain.errors import Exhausted, FieldViolation, Invalid
from cloudless.domain.names import check_env_name, check_text

MAX_ARGUMENTS = 1024
MAX_ARGUMENT_BYTES = 128 * 1024


class CommandRunner:
    """At most ``limit`` commands at the same time on this node."""

    def __init__(self, runtime: Runtime, limit: int = CONCURRENT_EXECS) -> None:
        self._runtime = runtime
        self._slots = asyncio.Semaphore(limit)
        self._limit = limit

    async def run(self, container_id: str, request: ExecRequest) -> ExecResult:
        """Run and wait. Raises ``Exhausted``, and what ``Runtime.exec`` raises."""
        if self._slots.locked():
            raise Exhausted(
                f"{self._limit} commands run on this node already", hint="try again when some have ended"
            )
        async with self._slots:
            return await self._runtime.exec(container_id, request)


def check_request(
    *,
    argv: tuple[str, ...],
    env: dict[str, str],
    cwd: str,
    user: str,
    stdin: bytes,
    timeout_s: float | None,
    output_limit_bytes: int,
) -> ExecRequest:
    """A request with its defaults; raises ``Invalid`` naming every field that is wrong.

    >>> check_request(argv=("true",), env={}, cwd="", user="", stdin=b"", timeout_s=None,
    ...               output_limit_bytes=0).timeout_s
    60.0
    """
    found: list[FieldViolation] = []

    def refuse(path: str, what: str) -> None:
        found.append(FieldViolation(path, what))

    if not argv or not argv[0]:
        refuse("command", "is required: program and arguments, without a shell")
    if len(argv) > MAX_ARGUMENTS or sum(map(len, argv)) > MAX_ARGUMENT_BYTES:
        refuse("command", f"must be at most {MAX_ARGUMENTS} words and {MAX_ARGUMENT_BYTES} characters")
    for path, texts in (("command", argv), ("env", env.values()), ("working_dir", (cwd,)), ("user", (user,))):
        for text in texts:
            try:
                check_text(text)
            except ValueError as error:
                refuse(path, str(error))
                break
    for name in env:
        try:
            check_env_name(name)
        except ValueError as error:
            refuse("env", f"{name[:40]!r} {error}")
    if cwd and not cwd.startswith("/"):
        refuse("working_dir", "must be an absolute path")
    if len(stdin) > MAX_EXEC_STDIN_BYTES:
        refuse("stdin", f"must be at most {MAX_EXEC_STDIN_BYTES} bytes")
    if timeout_s is not None and not 0 < timeout_s <= MAX_EXEC_TIMEOUT_S:
        refuse("timeout", f"must be above 0 and at most {MAX_EXEC_TIMEOUT_S:g} seconds")
    if not 0 <= output_limit_bytes <= MAX_EXEC_OUTPUT_BYTES:
        refuse("output_limit_bytes", f"must be between 0 and {MAX_EXEC_OUTPUT_BYTES}")
    if found:
        raise Invalid(violations=tuple(found))
    return ExecRequest(
        argv=argv,
        env=tuple(f"{name}={value}" for name, value in env.items()),
        cwd=cwd,
        user=user,
        stdin=stdin,
        timeout_s=timeout_s or EXEC_TIMEOUT_S,
        output_limit_bytes=output_limit_bytes or DEFAULT_EXEC_OUTPUT_BYTES,
    )
