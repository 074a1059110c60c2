"""List what happened, oldest first; -w goes on with what happens next."""

from __future__ import annotations

import argparse

from cloudless.cli.changing import add_output_option
from cloudless.cli.context import Context
from cloudless.cli.output.formats import parse_format
from cloudless.cli.parsing import seconds


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument("names", nargs="*", metavar="NAME", help="only of these workloads or nodes")
    parser.add_argument(
        "--since", metavar="TIME", type=seconds, help="only of the last TIME, for example 10m"
    )
    parser.add_argument("-A", "--all-namespaces", action="store_true", help="of all namespaces")
    parser.add_argument("-w", "--watch", action="store_true", help="keep showing new events")
    parser.add_argument("--no-headers", action="store_true", help="leave out the titles of a table")
    add_output_option(parser)


async def run(context: Context) -> int:
    """As ``get events``."""
    from cloudless.cli.output.kinds import EVENTS
    from cloudless.cli.verbs.get import show

    context.arguments.selector = ""
    return await show(context, EVENTS, context.arguments.names, parse_format(context.arguments.output))
