"""Join a replica's own program: see what it writes, and type into it.

Its specification must ask for it: stdin: true, and tty: true for a terminal. Leaving
(Enter ~. on a terminal, else Ctrl-C) leaves the program as it is; its end is ours, with its
exit code. 125 means that we failed."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from cloudless.cli import exits
from cloudless.cli.context import Context
from cloudless.cli.parsing import UsageError
from cloudless.cli.terminal import neutral
from cloudless.cli.verbs.execute import NOBODY_READS, conclude

if TYPE_CHECKING:
    from cloudless.sdk.workload import Workload


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument("name", metavar="NAME", help="a workload, or NAME/ORDINAL for one replica")
    parser.add_argument("--replica", metavar="WHICH", default="", help="ordinal, or a unique prefix of an id")
    parser.add_argument("--no-stdin", action="store_true", help="only look")
    parser.add_argument(
        "--end-stdin", action="store_true", help="when our input ends, end the program's for good"
    )
    parser.add_argument(
        "--tail", metavar="N", type=int, default=0, help="lines to begin with, none by default"
    )


async def run(context: Context) -> int:
    """Carry our streams until the program ends or we leave."""
    given = context.arguments
    if given.no_stdin and given.end_stdin:
        raise UsageError("--no-stdin and --end-stdin contradict each other")
    async with context.client() as client:
        from cloudless.cli.naming import on_target
        from cloudless.cli.rawmode import size_of
        from cloudless.cli.talking import STDIN, STDOUT, Left, talk

        async def find(name: str, replica: str) -> tuple[Workload, str]:
            return await client.get(name), replica

        workload, which = await on_target(client, given.name, given.replica, find)
        tty = workload.spec.tty
        if tty and not sys.stdin.isatty() and not given.no_stdin:
            raise UsageError(
                f"{workload.name} is on a terminal, and our standard input is none",
                hint="cloudless attach --no-stdin, or type from a terminal",
            )
        process = client.attach(
            workload.name,
            namespace=workload.namespace,
            replica=which,
            stdin=not given.no_stdin,
            size=(size_of(STDOUT) or size_of(STDIN)) if tty else None,
            tail=given.tail,
        )
        async with process:
            if context.err.is_terminal:
                where = f"{neutral(process.replica)} on {neutral(process.node)}"
                context.err.line(context.err.paint(where, "dim"))
            try:
                end = await talk(process, stdin=not given.no_stdin, end_stdin=given.end_stdin, ends=False)
            except Left as left:
                return exits.OK if left.code == exits.INTERRUPTED else left.code
            except BrokenPipeError:
                return NOBODY_READS
        return conclude(context, end)
