"""Run a program in a replica and end with its exit code.

A ready replica is chosen unless one is named. There is no shell: write sh -c '...' for
one. -it is for programs that talk with a person: Enter ~. leaves them. When we go away
the program ends, with all that it started. 125 means that we failed, 126 and 127 that the
program could not be run, 128 + n that signal n ended it.

get execs lists what runs by exec, detached programs too; --kill ends one of them, with all that it
started."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from cloudless.cli import exits
from cloudless.cli.context import Context
from cloudless.cli.parsing import UsageError, seconds
from cloudless.cli.terminal import neutral
from cloudless.domain.errors import CloudlessError, PreconditionFailed

if TYPE_CHECKING:
    from cloudless.sdk.client import Client
    from cloudless.sdk.exec import ExecExit, ExecProcess

#: What a shell says of a program whose reader has left: 128 + SIGPIPE.
NOBODY_READS = 141


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument("name", metavar="NAME", help="a workload, or NAME/ORDINAL for one replica")
    parser.add_argument("--replica", metavar="WHICH", default="", help="ordinal, or a unique prefix of an id")
    parser.add_argument("--all", action="store_true", help="in every replica that runs; lines say which")
    parser.add_argument("-i", "--stdin", action="store_true", help="give it our standard input")
    parser.add_argument("-t", "--tty", action="store_true", help="give it a terminal: ours")
    parser.add_argument("-u", "--user", default="", help="uid, uid:gid or a name from the container")
    parser.add_argument(
        "-e", "--env", action="append", default=[], metavar="K=V", help="environment variable"
    )
    parser.add_argument("--workdir", metavar="PATH", default="", help="working directory")
    parser.add_argument(
        "-d", "--detach", action="store_true", help="leave it running, without input or output"
    )
    parser.add_argument(
        "--exec-timeout", metavar="TIME", type=seconds, help="end the program after this; exit code 124"
    )
    parser.add_argument("--kill", metavar="ID", help="instead: end a program that runs by exec")
    parser.add_argument(
        "--signal", metavar="SIGNAL", default="", help="with --kill: send only this, and to the program alone"
    )
    parser.add_argument(
        "--grace", metavar="TIME", type=seconds, help="with --kill: from SIGTERM to SIGKILL, 5s by default"
    )
    parser.add_argument("-it", "-ti", dest="interactive", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("argv", metavar="-- PROGRAM ARG", nargs="*", help="what to run")


async def run(context: Context) -> int:
    """Run it, with our streams as its own."""
    given = context.arguments
    if given.interactive:
        given.stdin = given.tty = True
    command = [*given.argv, *(given.after or [])]
    if given.kill is not None or given.signal or given.grace is not None:
        from cloudless.cli.programs import kill

        return await kill(context, command)
    if not command:
        raise UsageError("which program?", hint=f"cloudless exec {given.name} -- ls /")
    _check(given)
    async with context.client() as client:
        from cloudless.cli.naming import on_target
        from cloudless.cli.verbs.run import pairs

        options = {
            "user": given.user,
            "env": pairs("--env", given.env),
            "working_dir": given.workdir,
        }

        async def execute(name: str, which: str) -> int:
            if given.all:
                return await _everywhere(context, client, name, command, options)
            if given.detach:
                return await _detached(context, client, name, command, [which], options)
            return await _here(context, client, name, command, which, options)

        return await on_target(client, given.name, given.replica, execute)


def _check(given: argparse.Namespace) -> None:
    """Refuse what cannot go together, before anything is asked."""
    from cloudless.cli.naming import parse_name

    refused: tuple[tuple[bool, str], ...] = (
        (given.detach and (given.stdin or given.tty), "--detach takes neither -i nor -t"),
        (given.detach and given.exec_timeout is not None, "--detach takes no --exec-timeout"),
        (given.exec_timeout is not None and given.exec_timeout <= 0, "--exec-timeout must be above 0"),
        (given.workdir and not given.workdir.startswith("/"), "--workdir must be an absolute path"),
        (given.all and (given.stdin or given.tty), "--all takes neither -i nor -t"),
        (given.all and bool(given.replica), "--all and --replica contradict each other"),
        (given.all and bool(parse_name(given.name)[1]), "--all is for a workload, not for one replica of it"),
    )
    for wrong, why in refused:
        if wrong:
            raise UsageError(why)
    if given.tty and not sys.stdin.isatty():
        raise UsageError("-t needs a terminal, and standard input is none", hint="leave out -t, keep -i")


async def _here(
    context: Context, client: Client, name: str, command: list[str], which: str, options: dict[str, Any]
) -> int:
    from cloudless.cli.rawmode import size_of
    from cloudless.cli.streams import pipe_has_bytes
    from cloudless.cli.talking import STDIN, STDOUT, Left, talk

    given = context.arguments
    size = (size_of(STDOUT) or size_of(STDIN)) if given.tty else None
    async with client.open_exec(
        name,
        command,
        replica=which,
        stdin=given.stdin,
        tty=given.tty,
        size=size,
        timeout_s=given.exec_timeout,
        **options,
    ) as process:
        if context.err.is_terminal and not which and process.replica:
            context.err.line(
                context.err.paint(f"{neutral(process.replica)} on {neutral(process.node)}", "dim")
            )
        try:
            end = await talk(process, stdin=given.stdin)
        except Left as left:
            return left.code
        except BrokenPipeError:
            return NOBODY_READS
    if end.exit_code and not given.stdin and pipe_has_bytes(STDIN):
        # It may have failed for want of them: | cloudless exec web -- tar x.
        context.err.line(context.err.paint("[what was piped to us was not passed on: -i does that]", "dim"))
    return conclude(context, end)


async def _detached(
    context: Context,
    client: Client,
    name: str,
    command: list[str],
    replicas: list[str],
    options: dict[str, Any],
) -> int:
    from cloudless.sdk.exec import CannotExecute

    worst = exits.OK
    for which in replicas:
        try:
            started = await client.exec_detached(name, command, replica=which, **options)
        except CannotExecute as error:
            context.err.line(f"{context.err.paint('error:', 'red')} {neutral(error.message)}")
            worst = max(worst, error.exit_code)
        except CloudlessError as error:
            if len(replicas) == 1:
                raise
            # The others are not to miss their program for this one.
            context.err.line(f"{context.err.paint('error:', 'red')} {neutral(error.message)}")
            worst = max(worst, exits.EXEC_FAILED)
        else:
            context.out.line(f"{started.replica} {started.exec_id}")
    return worst


async def _everywhere(
    context: Context, client: Client, name: str, command: list[str], options: dict[str, Any]
) -> int:
    from cloudless.cli.fanout import Fanout

    given = context.arguments
    workload = await client.get(name)
    replicas = sorted(workload.replicas, key=lambda one: (one.ordinal, one.id))
    running = [one for one in replicas if one.phase == "RUNNING"]
    if not running:
        raise PreconditionFailed(f"no replica of {workload.name} runs", hint=f"cloudless describe {name}")
    for one in replicas:
        if one.phase != "RUNNING":
            context.err.line(f"left out: {neutral(one.name)} is {one.phase.lower().replace('_', ' ')}")
    if given.detach:
        return await _detached(context, client, name, command, [one.id for one in running], options)
    processes: list[tuple[str, Callable[[], ExecProcess]]] = [
        (
            one.name,
            partial(
                client.open_exec,
                name,
                command,
                replica=one.id,
                stdin=False,
                timeout_s=given.exec_timeout,
                **options,
            ),
        )
        for one in running
    ]
    try:
        return await Fanout(context.out, context.err, [one.name for one in running]).run(processes)
    except BrokenPipeError:
        return NOBODY_READS


def conclude(context: Context, end: ExecExit) -> int:
    """Say why it ended when that was not its own doing; our exit code."""
    if end.reason == "CannotExecute":
        context.err.line(f"{context.err.paint('error:', 'red')} {neutral(end.message)}")
    elif end.message:
        context.err.line(context.err.paint(f"[{neutral(end.message)}]", "dim"))
    return exits.of_program(end.exit_code, end.reason)
