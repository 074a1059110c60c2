"""Programs that run by exec, as the command line lists and ends them: ``get execs``, ``exec --kill``."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cloudless.cli import exits
from cloudless.cli.context import Context
from cloudless.cli.output.formats import Format, write
from cloudless.cli.output.kinds import EXECS
from cloudless.cli.parsing import UsageError
from cloudless.cli.terminal import neutral

if TYPE_CHECKING:
    from cloudless import api
    from cloudless.sdk.objects import Execs

#: Options of ``exec`` that say how a program is run.
_FOR_RUNNING = ("all", "stdin", "tty", "user", "env", "workdir", "detach", "exec_timeout")


async def list_execs(context: Context, names: Sequence[str], form: Format) -> int:
    """``get execs``: of the workloads (or replicas) that are named, or of all.

    What is missing is said on stderr, and by the exit code.
    """
    from cloudless.cli.naming import on_target

    items: list[api.Exec] = []
    missing: dict[str, str] = {}
    truncated = False
    async with context.client() as client:

        async def find(name: str, replica: str) -> Execs:
            return await client.execs(name, replica=replica)

        for name in names or [""]:
            if name:
                found = await on_target(client, name, "", find)
            else:
                found = await client.execs(namespace=context.namespace)
            items += [one.message for one in found]
            missing |= found.failures
            truncated = truncated or found.truncated
    if not items and form.name in ("table", "wide"):
        context.err.line("no execs")
    else:
        write(
            context.out,
            EXECS,
            items,
            form,
            context.clock.now(),
            with_namespace=context.namespace == "",
            with_header=not context.arguments.no_headers,
        )
    for node, why in sorted(missing.items()):
        context.err.line(f"missing: what runs on {neutral(node)} ({neutral(why)})")
    if truncated:
        context.err.line("missing: there are more than one answer holds; name a workload or a replica")
    return exits.UNREACHABLE if missing else exits.ERROR if truncated else exits.OK


async def kill(context: Context, command: Sequence[str]) -> int:
    """``exec NAME --kill ID``."""
    from cloudless.cli.naming import on_target

    given = context.arguments
    if given.kill is None:
        raise UsageError("--signal and --grace go with --kill", hint=f"cloudless get execs {given.name}")
    if not given.kill:
        raise UsageError("--kill: which program? It is empty", hint=f"cloudless get execs {given.name}")
    wrong = next((name for name in _FOR_RUNNING if getattr(given, name) not in (False, "", [], None)), "")
    if command or wrong:
        what = f"no --{wrong.replace('_', '-')}" if wrong else "no program"
        raise UsageError(f"--kill takes {what}")
    if given.signal and given.grace is not None:
        raise UsageError("--signal sends only that signal: --grace contradicts it")
    number = signal_number(given.signal) if given.signal else 0
    async with context.client() as client:

        async def end(name: str, replica: str) -> str:
            ended = await client.kill_exec(
                name, given.kill, replica=replica, signal=number, grace_s=given.grace
            )
            return f"{ended.replica} {ended.id}"

        which = await on_target(client, given.name, given.replica, end)
    context.out.line(f"{neutral(which)} {'signalled' if number else 'ended'}")
    return exits.OK


def signal_number(text: str) -> int:
    """The number of a signal; raises ``UsageError``.

    >>> signal_number("HUP"), signal_number("sigusr1"), signal_number("15")
    (1, 10, 15)
    """
    if text.isascii() and text.isdigit() and 0 < int(text) < signal.NSIG:
        return int(text)
    name = text.upper() if text.upper().startswith("SIG") else f"SIG{text.upper()}"
    if name not in signal.Signals.__members__:
        raise UsageError(f"--signal: {text!r} is no signal", hint="for example HUP, SIGUSR1 or 15")
    return int(signal.Signals[name])
