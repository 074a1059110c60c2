"""Run a program in a replica and end with its exit code.

A ready replica is chosen unless one is named. There is no shell: write sh -c '...' for
one. 125 means that we failed, 126 and 127 that the program could not be run."""

from __future__ import annotations

import argparse
import sys

from cloudless.cli.context import Context
from cloudless.cli.parsing import UsageError, seconds
from cloudless.domain.errors import CloudlessError

#: Most bytes of our standard input that are sent along.
MAX_STDIN_BYTES = 512 * 1024


class ExecFailed(CloudlessError):
    """The program was killed because its time was up."""

    code = "CL-7000"


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument("name", metavar="NAME", help="a workload, or NAME/ORDINAL for one replica")
    parser.add_argument("--replica", metavar="WHICH", default="", help="ordinal, or a unique prefix of an id")
    parser.add_argument("-u", "--user", default="", help="uid, uid:gid or a name from the container")
    parser.add_argument(
        "-e", "--env", action="append", default=[], metavar="K=V", help="environment variable"
    )
    parser.add_argument("--workdir", metavar="PATH", default="", help="working directory")
    parser.add_argument(
        "--exec-timeout",
        metavar="TIME",
        type=seconds,
        default=60.0,
        help="kill the program after this, 60s by default",
    )
    parser.add_argument(
        "-i", "--stdin", action="store_true", help="give it our standard input, read to its end"
    )
    parser.add_argument("-t", "--tty", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("-it", "-ti", dest="tty", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("argv", metavar="-- PROGRAM ARG", nargs="*", help="what to run")


async def run(context: Context) -> int:
    """Run it, pass its output on."""
    arguments = context.arguments
    if arguments.tty:
        raise UsageError(
            "interactive exec (-t) comes with a later version",
            hint=f"cloudless exec {arguments.name} -- PROGRAM ARG, with -i to give it standard input",
        )
    command = [*arguments.argv, *(arguments.after or [])]
    if not command:
        raise UsageError("which program?", hint=f"cloudless exec {arguments.name} -- ls /")
    stdin = _read_stdin() if arguments.stdin else b""
    async with context.client() as client:
        from cloudless.cli.naming import parse_name, suggesting
        from cloudless.cli.verbs.run import pairs

        named = parse_name(arguments.name)
        if named.replica and arguments.replica:
            raise UsageError("name the replica once: NAME/ORDINAL or --replica")
        async with suggesting(client, named.workload):
            result = await client.exec(
                named.workload,
                command,
                replica=arguments.replica or named.replica,
                user=arguments.user,
                env=pairs("--env", arguments.env),
                working_dir=arguments.workdir,
                timeout_s=arguments.exec_timeout,
                stdin=stdin,
            )
    _pass_on(sys.stdout, result.stdout)
    _pass_on(sys.stderr, result.stderr)
    if result.truncated:
        context.err.line("[more output than is kept was cut off]")
    if result.timed_out:
        raise ExecFailed(
            f"the program was killed after {arguments.exec_timeout:g} s",
            hint="--exec-timeout 10m gives it more time",
        )
    return result.exit_code


def _read_stdin() -> bytes:
    data = sys.stdin.buffer.read(MAX_STDIN_BYTES + 1)
    if len(data) > MAX_STDIN_BYTES:
        raise UsageError(f"standard input has more than {MAX_STDIN_BYTES} bytes; this exec takes no more")
    return data


def _pass_on(stream: object, data: bytes) -> None:
    if not data:
        return
    raw = getattr(stream, "buffer", None)
    if raw is None:
        stream.write(data.decode("utf-8", "replace"))  # type: ignore[attr-defined]
        return
    stream.flush()  # type: ignore[attr-defined]
    raw.write(data)
    raw.flush()
