"""Runs commands in containers for people and scripts: buffered, with limits on everything.

``ExecCommand`` comes here; probes do not. A caller that goes away takes the command with
it, since the runtime ends what its caller's cancellation leaves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack

from cloudless.agent.execs.budget import ByteBudget
from cloudless.agent.execs.places import Places
from cloudless.agent.execs.registry import ExecRegistry
from cloudless.agent.limits import (
    DEFAULT_EXEC_OUTPUT_BYTES,
    EXEC_KEPT_BYTES,
    EXEC_TIMEOUT_S,
    MAX_EXEC_OUTPUT_BYTES,
    MAX_EXEC_STDIN_BYTES,
    MAX_EXEC_TIMEOUT_S,
    MIB,
)
from cloudless.agent.runtime.execport import ExecRequest, ExecResult, RunningExec
from cloudless.agent.runtime.port import Runtime
from cloudless.domain.errors import Exhausted, FieldViolation, Invalid
from cloudless.domain.names import check_env_name, check_text

MAX_ARGUMENTS = 1024
MAX_ARGUMENT_BYTES = 128 * 1024


class CommandRunner:
    """Commands take ``places`` and ``starts`` of the same kind as programs with input and output do.

    What they read and write is kept in ``budget``, which all of them share.
    """

    def __init__(
        self, runtime: Runtime, places: Places, starts: asyncio.Semaphore, registry: ExecRegistry
    ) -> None:
        self._runtime = runtime
        self._places = places
        self._starts = starts
        self._registry = registry
        self.budget = ByteBudget(EXEC_KEPT_BYTES)

    async def run(self, container_id: str, request: ExecRequest) -> ExecResult:
        """Run and wait; its time includes waiting for its start.

        Output that the budget has no room for is cut off, and said to be so. Raises ``Exhausted``,
        and what ``Runtime.exec`` raises.
        """
        with self._places.place(), self.budget.share() as share, ExitStack() as stack:
            if self.budget.left_bytes == 0 or share.take(len(request.stdin)) < len(request.stdin):
                raise Exhausted(
                    f"commands on this node keep {self.budget.limit_bytes // MIB} MiB of input and output"
                    " already",
                    hint="try again when some have ended, or use exec with streams, which keep nothing",
                )

            def began(process: RunningExec) -> None:
                stack.enter_context(self._registry.holding(process))

            return await self._runtime.exec(
                container_id, request, starts=self._starts, began=began, room=share
            )


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
    found = check_command(argv=argv, env=env, cwd=cwd, user=user)

    def refuse(path: str, what: str) -> None:
        found.append(FieldViolation(path, what))

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


def check_command(
    *, argv: Sequence[str], env: Mapping[str, str], cwd: str, user: str, prefix: str = ""
) -> list[FieldViolation]:
    """What is wrong with a command, field by field.

    >>> [one.path for one in check_command(argv=("sh",), env={}, cwd="tmp", user="")]
    ['working_dir']
    """
    found: list[FieldViolation] = []

    def refuse(path: str, what: str) -> None:
        found.append(FieldViolation(prefix + path, what))

    if not argv or not argv[0]:
        refuse("command", "is required: program and arguments, without a shell")
    if len(argv) > MAX_ARGUMENTS or sum(map(len, argv)) > MAX_ARGUMENT_BYTES:
        refuse("command", f"must be at most {MAX_ARGUMENTS} words and {MAX_ARGUMENT_BYTES} characters")
    texts: tuple[tuple[str, Iterable[str]], ...] = (
        ("command", argv),
        ("env", env.values()),
        ("working_dir", (cwd,)),
        ("user", (user,)),
    )
    for path, values in texts:
        for text in values:
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
    return found
