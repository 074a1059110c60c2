"""List nodes: the machines that run replicas, what is reserved on them, how they are."""

from __future__ import annotations

import argparse

from cloudless.cli.changing import add_output_option
from cloudless.cli.context import Context
from cloudless.cli.output.formats import parse_format


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these nodes")
    parser.add_argument("-l", "--selector", metavar="LABELS", default="", help="for example disk=ssd")
    parser.add_argument("--no-headers", action="store_true", help="leave out the titles of a table")
    add_output_option(parser)


async def run(context: Context) -> int:
    """As ``get nodes``."""
    from cloudless.cli.output.kinds import NODES
    from cloudless.cli.verbs.get import show

    context.arguments.watch = context.arguments.all_namespaces = False
    return await show(context, NODES, context.arguments.names, parse_format(context.arguments.output))
